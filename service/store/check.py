"""Check a data directory for damage. Changes nothing and takes no lock; a service may be running on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from service.domain.events import JsonObject, replay, votes_of
from service.domain.project import Project, Segment, contradictions
from service.domain.text_column import PoolTexts
from service.errors import ProjectNotFound, StoreDamaged
from service.store.cache import Cache
from service.store.directory import open_directory
from service.store.draws import read_draws
from service.store.events import events_in
from service.store.files import check_sum
from service.store.layout import (
    DRAWS,
    LEASES,
    LOG,
    STATE,
    SUMMARY,
    files_of,
    first_file,
    held_out_labels_file,
    ids_file,
    model_file,
    texts_file,
    urls_file,
)
from service.store.leases import read_leases
from service.store.load_state import has_lost_state, load_with_log
from service.store.snapshot import PartLoader, Stamp
from service.store.summaries import check_summary

TRIES = 5
"""Maximum number of checks of a project that is written meanwhile: files that its old state names may be gone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with a file of a project."""

    project_id: str
    file: str
    problem: str


def project_directories(root: Path) -> list[Path]:
    """Return the directories of projects, damaged ones included, sorted by name."""
    return sorted(path for path in (root / "projects").iterdir() if (path / STATE).exists() or is_damaged(path))


def is_damaged(path: Path) -> bool:
    """Return whether a directory has lost its state; a project that is being deleted has not."""
    with suppress(ProjectNotFound), open_directory(path, path.name) as directory:
        return has_lost_state(directory.path) and directory.has_its_name()
    return False


def check_project(path: Path) -> list[Finding]:
    """Verify all checksums of a project, and that its files are consistent."""
    findings: list[Finding] = []
    for _ in range(TRIES):
        try:
            with open_directory(path, path.name) as directory:
                before = stamp_of(directory.path)
                findings = list(findings_in(directory.path, path.name))
                if not findings or (directory.has_its_name() and stamp_of(directory.path) == before):
                    return findings
        except ProjectNotFound:
            return []
    return findings


def stamp_of(directory: Path) -> Stamp | None:
    """Return the stamp of a project's state file, None if it is missing."""
    with suppress(FileNotFoundError):
        return Stamp.of(directory / STATE)
    return None


def findings_in(directory: Path, project_id: str) -> Iterator[Finding]:
    """Yield the problems of a project; if its state cannot be read, only that one."""
    try:
        project, log = load_with_log(directory, project_id, to_end=True)
    except ProjectNotFound:
        if has_lost_state(directory):
            yield Finding(project_id, STATE, "is missing")
        return
    except (StoreDamaged, OSError) as error:
        yield Finding(project_id, STATE, problem_of(error, STATE))
        return
    if log is not None and not log.is_clean:
        problem = "holds more than its commits: a restart of the service removes what a dead process left there"
        yield Finding(project_id, STATE, problem)
    sums = [
        (file, partial(check_sum, directory / file, project.checksums.get(file))) for file in sorted(files_of(project))
    ]
    wrong = [Finding(project_id, STATE, problem) for problem in contradictions(project)]
    wrong += run_checks(project_id, sums)
    # A file with a wrong checksum must not be unpickled.
    yield from wrong or run_checks(project_id, part_checks(PartLoader(Cache(0), directory, project)))


def run_checks(project_id: str, checks: Iterable[tuple[str, Callable[[], object]]]) -> Iterator[Finding]:
    """Run checks, each given with its file, and yield the problems found."""
    for file, check in checks:
        try:
            check()
        except FileNotFoundError:
            yield Finding(project_id, file, "is missing")
        except (StoreDamaged, OSError) as error:
            yield Finding(project_id, file, problem_of(error, file))


def part_checks(loader: PartLoader) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield a check of each part of a project, with the file to name if it fails."""
    project = loader.project
    yield first_file(project.segments[0]), lambda: loader.pool(project.n_texts)
    if project.has_ids:
        yield ids_file(project.segments[0]), lambda: check_names(loader)
    if project.has_texts:
        yield texts_file(project.segments[0]), lambda: check_texts(project, texts_file, loader.texts())
    if project.has_urls:
        yield urls_file(project.segments[0]), lambda: check_texts(project, urls_file, loader.urls())
    if project.held_out is not None:
        held_out = project.held_out
        yield first_file(held_out), lambda: loader.held_out(held_out, project.n_texts)
        file = held_out_labels_file(held_out)
        yield file, lambda: check_codes(project, held_out.n_rows, loader.whole(file))
    if project.model is not None:
        model = project.model
        yield model_file(model.version), lambda: loader.model(model)
    directory = loader.directory
    if directory is None:
        return
    if project.event_log is not None:
        yield LOG, lambda: check_events(directory, project)
    if (directory / LEASES).exists():
        yield LEASES, lambda: check_leases(directory, project)
    if (directory / DRAWS).exists():
        yield DRAWS, lambda: check_draws(directory, project)
    if (directory / SUMMARY).exists():
        yield SUMMARY, lambda: check_summary(directory, project)


def check_names(loader: PartLoader) -> None:
    """Raise StoreDamaged unless each sample has an id."""
    for segment, names in zip(loader.project.segments, loader.ids().parts, strict=True):
        if len(names) != segment.n_rows:
            raise StoreDamaged(f"{ids_file(segment)} holds {len(names)} ids for {segment.n_rows} rows")


def check_texts(project: Project, file_of: Callable[[Segment], str], texts: PoolTexts) -> None:
    """Raise StoreDamaged unless each sample has a text."""
    for segment, column in zip(project.segments, texts.parts, strict=True):
        if len(column) != segment.n_rows:
            raise StoreDamaged(f"{file_of(segment)} holds {len(column)} texts for {segment.n_rows} rows")


def check_codes(project: Project, n_rows: int, codes: Any) -> None:
    """Raise StoreDamaged unless each row of the held-out set has one of the project's classes."""
    if len(codes) != n_rows or not ((codes >= 0) & (codes < project.n_codes)).all():
        raise StoreDamaged("does not hold one of the labels for each row of the held-out set")


def check_leases(directory: Path, project: Project) -> None:
    """Raise StoreDamaged unless each leased sample exists and is leased once, and the same of each reserve."""
    leases = read_leases(directory / LEASES)
    if leases.pool_id != project.pool_id:
        return
    for what, index in [("leases", leases.index), *(("reserves", reserve.index) for reserve in leases.reserves)]:
        if len(np.unique(index)) < len(index) or not ((index >= 0) & (index < project.n_samples)).all():
            raise StoreDamaged(f"{what} a sample twice, or one that does not exist")


def check_draws(directory: Path, project: Project) -> None:
    """Raise StoreDamaged unless each drawn sample exists."""
    draws = read_draws(directory / DRAWS)
    of_pool = draws.all if draws.pool_id == project.pool_id else ()
    if not all(((draw.index >= 0) & (draw.index < project.n_samples)).all() for draw in of_pool):
        raise StoreDamaged("holds a drawn sample that does not exist")


def check_events(directory: Path, project: Project) -> None:
    """Raise StoreDamaged unless the events end with the version and the votes of the state."""
    try:
        votes = replay(check_order(events_in(directory, project), project.version))
    except (LookupError, TypeError, ValueError) as error:  # for example, of an imported project
        raise StoreDamaged("holds an invalid event") from error
    if votes != votes_of(project):
        raise StoreDamaged("holds events that do not lead to the labels of the state")


def check_order(events: Iterable[JsonObject], last: int) -> Iterator[JsonObject]:
    """Yield events, and raise StoreDamaged unless their versions grow up to `last`."""
    version = 0
    for event in events:
        if event["version"] < version:
            raise StoreDamaged(f"holds version {event['version']} after {version}")
        version = event["version"]
        yield event
    if version != last:
        raise StoreDamaged(f"ends with version {version}, and the state is {last}")


def problem_of(error: Exception, file: str) -> str:
    """Return the text of an error without the name of the file."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    return str(error).removeprefix(f"{file} ")
