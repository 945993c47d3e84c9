"""On what terms a request may change a project: the conditions of its If-Match and If-None-Match (RFC 9110, 13), and
that it must not do again what it has done before."""

from __future__ import annotations

from dataclasses import dataclass

from service.domain.project import Project
from service.errors import PreconditionFailed

Tags = frozenset[str]
"""Entity tags as a header holds them: in quotes, behind `W/` where they are weak; or `*` alone."""

ANY = "*"


@dataclass(frozen=True, slots=True)
class RequestFingerprint:
    """What tells a request with an Idempotency-Key from all others: digests of its caller's key, and of all it says."""

    key: str
    content: str

    def __str__(self) -> str:
        return f"{self.key}{self.content}"


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What must be true of a project for a request to be followed, None where a header was not sent; and its mark."""

    if_match: Tags | None = None
    if_none_match: Tags | None = None
    fingerprint: RequestFingerprint | None = None

    def check(self, project: Project | None) -> None:
        """Raise PreconditionFailed unless they hold of a project, which is None where there is none."""
        self.check_if_match(project)
        if self.if_none_match_names(project):
            raise precondition_failed("If-None-Match", project)

    def check_if_match(self, project: Project | None, suffix: str = "") -> None:
        """Raise PreconditionFailed unless If-Match names a project by its tag. A weak tag names nothing here."""
        if self.if_match is not None and not names(self.if_match, project, suffix):
            raise precondition_failed("If-Match", project)

    def if_none_match_names(self, project: Project | None, suffix: str = "") -> bool:
        """Tell whether If-None-Match names a project. A weak tag names what it is of."""
        known = self.if_none_match or frozenset()
        return names({tag.removeprefix("W/") for tag in known}, project, suffix)


UNCONDITIONAL = Preconditions()


def names(tags: Tags | set[str], project: Project | None, suffix: str) -> bool:
    """Tell whether tags have that of a project among them, or of a form of it that has its own: `suffix` tells it."""
    return project is not None and (ANY in tags or f'"{project.tag}{suffix}"' in tags)


def precondition_failed(header: str, project: Project | None) -> PreconditionFailed:
    """Return the error for a header that does not hold."""
    return PreconditionFailed(header, None if project is None else (project.project_id, project.tag))
