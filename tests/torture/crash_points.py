"""SIGKILL before each file operation of each kind of change, and amid each write: the old state is there or the new."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.torture.crashing import OPERATIONS
from tests.torture.outcome import Tally
from tests.torture.sizes import Sizes

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Crasher:
    """A process that runs jobs in children of its own."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.torture.crashing"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=os.environ | THREADS, stdin=pipe, stdout=pipe, text=True)

    def run(self, **job: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        done: dict[str, Any] = json.loads(self.process.stdout.readline())
        return done

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Die at every point of every operation, and look what is there."""
    tally, crasher = Tally(), Crasher()
    try:
        for operation in OPERATIONS:
            try_operation(crasher, operation, sizes.crash_points, scratch, tally)
    finally:
        crasher.close()
    return tally


def try_operation(crasher: Crasher, operation: str, most: int, scratch: Path, tally: Tally) -> None:
    """Do an operation to its end, then die at each of its points in turn."""
    begin = scratch / operation
    prepared = crasher.run(do="prepare", root=str(begin), operation=operation)
    if prepared["status"] != 0:
        tally.lose(f"{operation}: cannot be prepared: {prepared['said']}")
        return
    root = shutil.copytree(begin, scratch / "whole", symlinks=True)
    done = crasher.run(do="crash", root=str(root), operation=operation, point=0, torn=False)
    shutil.rmtree(root)
    if done["status"] != 0:
        tally.lose(f"{operation}: cannot be done: {done['said']}")
        return
    points = done["said"].splitlines()
    chosen = range(len(points), 0, -max(1, len(points) // most))
    seen: dict[int, Any] = {}
    for point in chosen:
        for torn in (False, True) if points[point - 1] == "write" else (False,):
            die(crasher, operation, begin, scratch / "crashed", point, torn, seen, tally)
    n_commits = sum(line.startswith("commit ") for line in points)
    tally.check(n_commits > 0 or operation == "start", f"{operation} has no commit among its {len(points)} points")
    tally.figures[operation] = f"{len(points)} operations"


def die(
    crasher: Crasher,
    operation: str,
    begin: Path,
    root: Path,
    point: int,
    torn: bool,
    seen: dict[int, Any],
    tally: Tally,
) -> None:
    """Die at one point; what is there then is what all find who died between the same two commits."""
    what = f"{operation}, operation {point}{', torn' if torn else ''}"
    shutil.copytree(begin, root, symlinks=True)
    died = crasher.run(do="crash", root=str(root), operation=operation, point=point, torn=torn)
    looked = crasher.run(do="look", root=str(root))
    shutil.rmtree(root)
    tally.count("crashes")
    before = died["said"].splitlines()
    what += f" after {before[-1:]}"
    if died["status"] not in (-9, 0):
        tally.lose(f"{what}: {died['status']} {died['said'][-1000:]}")
        return
    if died["status"] == 0:
        tally.count("changes that were done before their crash point")
    if looked["status"] != 0:
        tally.lose(f"{what}: cannot be opened: {looked['said']}")
        return
    found = json.loads(looked["said"])
    tally.check(not found["wrong"], f"{what}: {found['wrong']}")
    n_commits = sum(line.startswith("commit ") for line in before)
    known = seen.setdefault(n_commits, found["seen"])
    tally.check(found["seen"] == known, f"{what}, {n_commits} commits: {found['seen']}, and not {known}")
    others = [state for number, state in seen.items() if number != n_commits]
    tally.check(found["seen"] not in others, f"{what}: {n_commits} commits came to nothing")
