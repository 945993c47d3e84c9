"""On what terms a request may change a project: the conditions of its If-Match and If-None-Match (RFC 9110, 13), and
that it must not do again what it has done before."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import PreconditionFailed
from service.project import Project

Tags = frozenset[str]
"""Entity tags as a header holds them: in quotes, behind `W/` where they are weak; or `*` alone."""

ANY = "*"


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells a request with an Idempotency-Key from all others: digests of its caller's key, and of all it says.

    `again` tells that one with this key began before, of which nobody knows what became.
    """

    key: str
    content: str
    again: bool

    def __str__(self) -> str:
        return f"{self.key}{self.content}"


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a request that was made before: the project as it is now, and the event that the request led to."""

    project: Project
    kind: str
    n_labels: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What must be true of a project for a request to be followed, None where a header was not sent; and its mark."""

    if_match: Tags | None = None
    if_none_match: Tags | None = None
    mark: Mark | None = None

    def check(self, project: Project | None) -> None:
        """Raise PreconditionFailed unless they hold of a project, which is None where there is none."""
        for header, holds in (("If-Match", self.holds_match(project)), ("If-None-Match", self.holds_none(project))):
            if not holds:
                raise PreconditionFailed(header, None if project is None else (project.project_id, project.tag))

    def holds_match(self, project: Project | None, suffix: str = "") -> bool:
        """Tell whether If-Match names a project by its tag. A weak tag names nothing here."""
        return self.if_match is None or names(self.if_match, project, suffix)

    def holds_none(self, project: Project | None, suffix: str = "") -> bool:
        """Tell whether If-None-Match does not name a project. A weak tag names what it is of."""
        if self.if_none_match is None:
            return True
        return not names({tag.removeprefix("W/") for tag in self.if_none_match}, project, suffix)


UNCONDITIONAL = Terms()


def names(tags: Tags | set[str], project: Project | None, suffix: str) -> bool:
    """Tell whether tags have that of a project among them, or of a form of it that has its own: `suffix` tells it."""
    return project is not None and (ANY in tags or f'"{project.tag}{suffix}"' in tags)
