"""The errors of the service. `http/problems.py` maps each to its HTTP status.

ServiceError
├── InvalidRequest           parsed, but wrong: names each wrong field and what it must be
│   └── IdempotencyKeyReused   sent with another request before
├── NotFound
│   ├── ProjectNotFound
│   ├── LabelNotFound
│   ├── LeaseNotFound        it never existed, or has ended
│   └── SimulationNotFound
├── Conflict
│   ├── ProjectExists        arrays for a project that has them, without `replace`
│   ├── ImportTargetExists   an import under a name that is taken
│   ├── ProjectReplaced      the project was replaced or deleted during the request
│   ├── TooManyProjects
│   └── IdempotencyKeyInUse  a request with the same key is in progress
├── PreconditionFailed       the project is not at the version that the request names
├── LabeledByOthers          an annotator may not retract the labels of others
├── FitFailed                the estimator cannot learn from these numbers
│   └── FitTooSlow           it exceeded its time limit
├── OutOfTime                a query exceeded its time limit
├── TooBusy                  too many heavy requests are in progress
├── TooManySimulations       they wait to be run
├── StoreBusy                a lock could not be acquired in time
├── StoreUnwritable          the data directory cannot be written
│   ├── StoreFull            its disk is full
│   └── StoreReadOnly        it is mounted read-only
└── StoreDamaged             a file of one project cannot be read
    ├── ModelDamaged         the file of its model; a fit makes another
    └── UnknownSchema        written by another version of the service
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

MAX_ERRORS = 20
"""Maximum number of wrong fields in a reply."""


class ServiceError(Exception):
    """Base class of the errors reported to callers; `str(error)` is one sentence for them."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """A wrong field: a JSON pointer (RFC 6901) into the request, and what the field must be."""

    pointer: str
    detail: str


class InvalidRequest(ServiceError):
    """The request was parsed, but its content is wrong."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(f"{first.pointer or 'the request'}: {first.detail}")

    @classmethod
    def at(cls, pointer: str, detail: str) -> InvalidRequest:
        """Build the error for a single field."""
        return cls([FieldError(pointer, detail)])

    def with_prefix(self, prefix: str) -> InvalidRequest:
        """Return the same errors with `prefix` before each pointer."""
        return InvalidRequest(FieldError(prefix + error.pointer, error.detail) for error in self.errors)


class IdempotencyKeyReused(InvalidRequest):
    """The Idempotency-Key was sent with another request before."""

    def __init__(self) -> None:
        problem = (
            "was sent with another request before (another path, body, header or API key): "
            "repeat that request byte for byte, or send a new Idempotency-Key"
        )
        super().__init__([FieldError("/headers/Idempotency-Key", problem)])


class NotFound(ServiceError):
    """The request names something that does not exist."""


class ProjectNotFound(NotFound):
    """There is no project with this name."""

    def __init__(self, project_id: str) -> None:
        super().__init__(f"there is no project {project_id!r}: POST /fit with X creates one")


class LabelNotFound(NotFound):
    """The sample has neither a label nor a skip."""

    def __init__(self, index: int | str) -> None:
        super().__init__(f"sample {index} has no label and no skip to retract")


class LeaseNotFound(NotFound):
    """There is no current lease with this id."""

    def __init__(self, query_id: str) -> None:
        super().__init__(
            f"there is no lease {query_id[:64]!r}: it has expired or was released, or all its samples were labelled; "
            "get another with POST /query"
        )


class SimulationNotFound(NotFound):
    """There is no simulation with this id."""

    def __init__(self, simulation_id: str) -> None:
        super().__init__(f"there is no simulation {simulation_id[:64]!r}: GET /simulations lists all")


class Conflict(ServiceError):
    """The request is valid, but not in the current state."""


class NoModel(Conflict):
    """The project has no model yet."""

    def __init__(self, project_id: str) -> None:
        super().__init__(f"project {project_id!r} has no model yet: it is fitted when two classes have labels")


class ProjectExists(Conflict):
    """Arrays were sent for an existing project."""

    def __init__(self, project_id: str) -> None:
        super().__init__(
            f"project {project_id!r} exists: leave out X, y and ids to train it again, "
            "or send 'replace': true to replace its pool, labels and models"
        )


class ImportTargetExists(Conflict):
    """The name for an imported project is taken."""

    def __init__(self, project_id: str) -> None:
        super().__init__(f"project {project_id!r} exists: delete it, or import under another name with ?project_id=")


class ProjectReplaced(Conflict):
    """The project was replaced or deleted during the request."""

    def __init__(self, project_id: str) -> None:
        super().__init__(f"project {project_id!r} was replaced or deleted during this request; nothing was changed")


class TooManyProjects(Conflict):
    """The maximum number of projects is reached."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"there are {limit} projects already, as many as AQ_MAX_PROJECTS allows: delete one, or raise the limit"
        )


class IdempotencyKeyInUse(Conflict):
    """A request with the same Idempotency-Key is in progress."""

    def __init__(self) -> None:
        super().__init__("a request with this Idempotency-Key is still in progress; try again")


class PreconditionFailed(ServiceError):
    """A precondition in a header does not hold; `found` is the project's name and ETag, None if it does not exist."""

    def __init__(self, header: str, found: tuple[str, str] | None) -> None:
        there_is = "there is no such project" if found is None else f'project {found[0]!r} has the ETag "{found[1]}"'
        super().__init__(f"{header} does not hold: {there_is}; nothing was changed")


class LabeledByOthers(ServiceError):
    """Another annotator has labelled the sample as well."""

    def __init__(self, index: int, annotator: str) -> None:
        super().__init__(
            f"sample {index} has labels of annotators other than {annotator!r}, and a retraction removes all of them: "
            "it needs an API key that is not tied to an annotator"
        )


class FitFailed(ServiceError):
    """The estimator cannot learn from these numbers, for example because they overflow."""


class FitTooSlow(FitFailed):
    """A fit exceeded its time limit; `faster` says which estimators would do."""

    def __init__(self, estimator: str, seconds: int, faster: str) -> None:
        super().__init__(
            f"the fit with {estimator} took longer than AQ_FIT_SECONDS={seconds} allows: {faster}; or raise the limit"
        )


class OutOfTime(ServiceError):
    """The query exceeded its time limit."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the query takes longer than AQ_QUERY_SECONDS={seconds} allows: use a faster strategy or fewer "
            "candidates, or raise the limit"
        )


class TooBusy(ServiceError):
    """Too many heavy requests are in progress."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"this worker is busy with heavy requests; AQ_HEAVY_REQUESTS={limit} allows no more at once; try again"
        )


class TooManySimulations(ServiceError):
    """Too many simulations wait."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} simulations are queued or running, and no more may wait: try later, or cancel one")


class StoreBusy(ServiceError):
    """A lock was not released in time."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is being written by another request; try again")


class StoreUnwritable(ServiceError):
    """The data directory cannot be written; it can still be read."""


class StoreFull(StoreUnwritable):
    """The disk is full; nothing was changed."""


class StoreReadOnly(StoreUnwritable):
    """The file system is read-only, for example after a disk fault; nothing was changed."""


class StoreDamaged(ServiceError):
    """A file on disk is missing or damaged."""

    @classmethod
    def of(cls, project_id: str, problem: str) -> Self:
        """Build the error for a project."""
        return cls(f"project {project_id!r}: {problem}; run `active-query check --project {project_id}` for details")


class ModelDamaged(StoreDamaged):
    """The file of a project's model is missing or damaged."""


class UnknownSchema(StoreDamaged):
    """The state was written by another version of the service."""
