"""Preconditions of a change: If-Match and If-None-Match (RFC 9110, section 13), and the request's fingerprint."""

from __future__ import annotations

from dataclasses import dataclass

from service.domain.project import Project
from service.errors import PreconditionFailed

Tags = frozenset[str]
"""Entity tags as in a header: quoted, and with `W/` if weak; or `*` alone."""

ANY = "*"


@dataclass(frozen=True, slots=True)
class RequestFingerprint:
    """Identifies a request with an Idempotency-Key: digests of its caller and key, and of its content."""

    key: str
    content: str

    def __str__(self) -> str:
        return f"{self.key}{self.content}"


@dataclass(frozen=True, slots=True)
class Preconditions:
    """Conditions for changing a project, None for a header that was not sent; and the fingerprint of the request."""

    if_match: Tags | None = None
    if_none_match: Tags | None = None
    fingerprint: RequestFingerprint | None = None

    def check(self, project: Project | None) -> None:
        """Raise PreconditionFailed unless the conditions hold for a project, None if it does not exist."""
        self.check_if_match(project)
        if self.if_none_match_names(project):
            raise precondition_failed("If-None-Match", project)

    def check_if_match(self, project: Project | None, suffix: str = "") -> None:
        """Raise PreconditionFailed unless If-Match names the project. Weak tags never match (RFC 9110)."""
        if self.if_match is not None and not names(self.if_match, project, suffix):
            raise precondition_failed("If-Match", project)

    def if_none_match_names(self, project: Project | None, suffix: str = "") -> bool:
        """Return whether If-None-Match names the project. Weak tags count too (RFC 9110)."""
        known = self.if_none_match or frozenset()
        return names({tag.removeprefix("W/") for tag in known}, project, suffix)


UNCONDITIONAL = Preconditions()


def names(tags: Tags | set[str], project: Project | None, suffix: str) -> bool:
    """Return whether the tags include that of a project, in the representation with this suffix."""
    return project is not None and (ANY in tags or f'"{project.tag}{suffix}"' in tags)


def precondition_failed(header: str, project: Project | None) -> PreconditionFailed:
    """Return the error for a header whose condition fails."""
    return PreconditionFailed(header, None if project is None else (project.project_id, project.tag))
