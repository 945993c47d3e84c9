"""The errors of the domain. None of them knows its status; `http/problems.py` gives each the one that fits.

ServiceError
├── InvalidRequest           readable, but wrong: names every field that is, and what would have been right
│   └── IdempotencyKeyReused            an Idempotency-Key came before, with another request
├── NotFound
│   ├── ProjectNotFound
│   ├── LabelNotFound
│   └── LeaseNotFound        it never was, or it is over
├── Conflict
│   ├── ProjectExists        arrays for a project that has them, without `replace`
│   ├── ImportTargetExists      an import under a name that is taken
│   ├── ProjectReplaced      the project was replaced or deleted while the request was at work
│   ├── TooManyProjects
│   └── IdempotencyKeyInUse             a request with the same Idempotency-Key is at work
├── PreconditionFailed       the project is not at the version that the request is meant for
├── LabeledByOthers             who answers as one annotator may not take back what another said
├── FitFailed                the estimator cannot learn from these numbers
├── OutOfTime                a selection takes longer than it may
├── TooBusy                  all places for heavy requests are taken
├── StoreBusy                a lock could not be had in time
├── StoreUnwritable          nothing can be written where the data lies
│   ├── StoreFull            no space is left there
│   └── StoreReadOnly        it is mounted read-only
└── StoreDamaged             a file of one project cannot be read
    ├── ModelDamaged         the file of its model; a fit makes another
    └── UnknownSchema        written by a version of the service that this one does not know
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

MAX_ERRORS = 20
"""No reply lists more wrong fields than this."""


class ServiceError(Exception):
    """The root of all errors that a caller is told about; `str(error)` is one sentence for them."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: `pointer` is a JSON pointer (RFC 6901) into the request, `detail` what would have been right."""

    pointer: str
    detail: str


class InvalidRequest(ServiceError):
    """The request can be read but not followed."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(f"{first.pointer or 'the request'}: {first.detail}")

    @classmethod
    def at(cls, pointer: str, detail: str) -> InvalidRequest:
        """Build the error for a single field."""
        return cls([FieldError(pointer, detail)])

    def with_prefix(self, prefix: str) -> InvalidRequest:
        """Return the same errors, their pointers moved below `prefix`."""
        return InvalidRequest(FieldError(prefix + error.pointer, error.detail) for error in self.errors)


class IdempotencyKeyReused(InvalidRequest):
    """An Idempotency-Key came with another request before."""

    def __init__(self) -> None:
        problem = (
            "came with another request before (another path, body or header, or a key that may do something else): "
            "send the very same bytes again, or a new Idempotency-Key"
        )
        super().__init__([FieldError("/headers/Idempotency-Key", problem)])


class NotFound(ServiceError):
    """What the request names does not exist."""


class ProjectNotFound(NotFound):
    """No project of this name."""

    def __init__(self, project_id: str) -> None:
        super().__init__(f"there is no project {project_id!r}: POST /fit with X creates one")


class LabelNotFound(NotFound):
    """The sample has neither a label nor a skip."""

    def __init__(self, index: int | str) -> None:
        super().__init__(f"sample {index} has no label and no skip to retract")


class LeaseNotFound(NotFound):
    """Nothing is held under this name, or no longer."""

    def __init__(self, query_id: str) -> None:
        super().__init__(
            f"there is no lease {query_id[:64]!r}: it has expired or was released, or all its samples were answered; "
            "ask again with POST /query"
        )


class Conflict(ServiceError):
    """The request is right in itself, but not in the present state."""


class NoModel(Conflict):
    """The project has no model yet."""

    def __init__(self, project_id: str) -> None:
        super().__init__(f"project {project_id!r} has no model yet: it is fitted when two classes have labels")


class ProjectExists(Conflict):
    """Arrays were sent for a project that has them."""

    def __init__(self, project_id: str) -> None:
        super().__init__(
            f"project {project_id!r} exists: leave out X, y and ids to train it again, "
            "or send 'replace': true to throw its pool, labels and models away"
        )


class ImportTargetExists(Conflict):
    """A project was to be imported under a name that is taken."""

    def __init__(self, project_id: str) -> None:
        super().__init__(f"project {project_id!r} exists: delete it, or import under another name with ?project_id=")


class ProjectReplaced(Conflict):
    """The project went away under the request."""

    def __init__(self, project_id: str) -> None:
        super().__init__(
            f"project {project_id!r} was replaced or deleted while this request was at work; nothing was changed"
        )


class TooManyProjects(Conflict):
    """The limit of projects is reached."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"there are {limit} projects, and AQ_MAX_PROJECTS allows no more: delete one, or raise the limit"
        )


class IdempotencyKeyInUse(Conflict):
    """A request with the same Idempotency-Key is at work."""

    def __init__(self) -> None:
        super().__init__("a request with this Idempotency-Key is still at work; try again")


class PreconditionFailed(ServiceError):
    """The project is not as a header of the request says; `found` is its name and its ETag, None without one."""

    def __init__(self, header: str, found: tuple[str, str] | None) -> None:
        there_is = "there is no such project" if found is None else f'project {found[0]!r} has the ETag "{found[1]}"'
        super().__init__(f"{header} does not hold: {there_is}; nothing was changed")


class LabeledByOthers(ServiceError):
    """Somebody else answered the sample, too."""

    def __init__(self, index: int, annotator: str) -> None:
        super().__init__(
            f"sample {index} was answered by others than {annotator!r}, and a retraction takes all answers back: "
            "a key that answers as nobody in particular may"
        )


class FitFailed(ServiceError):
    """The estimator cannot learn from these numbers (they overflow, say)."""


class OutOfTime(ServiceError):
    """The work took longer than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the selection takes longer than AQ_QUERY_SECONDS={seconds} allows: ask with a quicker strategy or with "
            "fewer candidates, or raise the limit"
        )


class TooBusy(ServiceError):
    """All places for heavy requests are taken."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"this worker is busy with heavy requests; AQ_HEAVY_REQUESTS={limit} allows no more at once; try again"
        )


class StoreBusy(ServiceError):
    """Another writer holds the lock for too long."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is being written by another request; try again")


class StoreUnwritable(ServiceError):
    """Nothing can be written where the data lies; what lies there can be read."""


class StoreFull(StoreUnwritable):
    """The disk is full; nothing was changed."""


class StoreReadOnly(StoreUnwritable):
    """The file system is mounted read-only, as it is after a fault of the disk; nothing was changed."""


class StoreDamaged(ServiceError):
    """A file on disk cannot be read as what it must be."""

    @classmethod
    def of(cls, project_id: str, problem: str) -> Self:
        """Build the error for a project."""
        return cls(f"project {project_id!r}: {problem}; `active-query check --project {project_id}` tells more")


class ModelDamaged(StoreDamaged):
    """The file of a project's model is missing, or not what was written."""


class UnknownSchema(StoreDamaged):
    """The state was written by a version of the service that this one does not know."""
