"""Checks of a data directory that no process is using."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from service.cli.main import main
from service.errors import ServiceError
from service.store.check import check_project, project_directories
from service.store.layout import FOLDERS, files_of
from service.store.load_state import load_state
from tests.torture.outcome import Tally


def check_data_directory(root: Path, tally: Tally) -> None:
    """Report everything that `active-query check` finds."""
    for directory in project_directories(root):
        for finding in check_project(directory):
            tally.fail(f"check: {finding.project_id}: {finding.file}: {finding.problem}")
    tally.count("full checks of the data directory")


def check_command(root: Path, *arguments: str) -> tuple[int, list[str]]:
    """Run `active-query check`; return its exit status and output lines."""
    run = CliRunner().invoke(main, ["check", *arguments], env={"AQ_DATA_DIR": str(root)})
    return run.exit_code, run.stdout.splitlines()


def leftover_files(root: Path) -> list[str]:
    """Return files that no state refers to, and directories that are not projects."""
    found = [path for path in (root / "staging").iterdir() if path.name != "lock"]
    named = project_directories(root)
    for directory in (root / "projects").iterdir():
        if directory not in named:
            found.append(directory)
            continue
        try:
            files = files_of(load_state(directory, directory.name))
        except ServiceError:
            continue
        there = (path for folder in FOLDERS for path in (directory / folder).glob("*"))
        found += [path for path in there if str(path.relative_to(directory)) not in files]
        found += directory.glob("*.new")
    return sorted(str(path.relative_to(root)) for path in found)


def check_no_leftovers(root: Path, tally: Tally) -> None:
    """Report leftover files."""
    for name in leftover_files(root):
        tally.fail(f"leftover file: {name}")
