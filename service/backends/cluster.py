"""Scoring on a cluster. If the cluster fails, threads score the rest, with the same results."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Protocol, TypeVar

import numpy as np

from service.backends.task import ScoringState, Task, score_task
from service.domain.project import Project
from service.learning.pool import Chunk, Pool
from service.learning.scoring import THREADS, KeepScores, Predictor, Scorer, Scores

log = logging.getLogger(__name__)

Item = TypeVar("Item")
AnyTask = TypeVar("AnyTask")
Result = TypeVar("Result")

Work = Callable[[AnyTask], Result]
"""A function of a module, which the cluster's workers import."""

TaskMaker = Callable[[int], Sequence[AnyTask]]
"""Returns tasks for a number of cores."""

MIN_CHUNKS = 32
"""Fewer chunks are scored in this process, as fast as on a cluster. 32 chunks are 260,000 rows of 64 features."""

TASKS_A_CORE = 4
"""Enough for the others to take over work of a slow worker."""

TASK_CHUNKS = (8, 64)
"""Minimum and maximum chunks per task: a task has an overhead of milliseconds, and takes long with a large forest."""

STALL_SECONDS = 60.0
"""A cluster without a result for this time has failed: longer than a task takes, or a worker needs to start."""

RETRY_SECONDS = 30.0
"""Pause before a failed cluster is tried again."""


class Connection(Protocol):
    """A running cluster. All methods may block and may raise the library's exceptions."""

    def n_cores(self) -> int:
        """Return the number of tasks that run at the same time."""

    def run(
        self, work: Work[AnyTask, Result], tasks: Sequence[AnyTask], n_at_once: int
    ) -> Iterator[tuple[AnyTask, Result]]:
        """Do `work` for each task and yield results as they come, with `n_at_once` tasks submitted at a time."""

    def close(self) -> None:
        """Disconnect."""


class ClusterFailed(Exception):
    """The cluster gave no result."""


class ClusterLink:
    """The connection of this process to a cluster, made when first needed and renewed some time after a failure."""

    def __init__(self, name: str, connect: Callable[[], Connection]) -> None:
        self.name = name
        self._connect = connect
        self._connecting = Lock()
        self._connection: Connection | None = None
        self._changing = Lock()
        self._resume_at = 0.0

    def results(
        self, work: Work[AnyTask, Result], make_tasks: TaskMaker[AnyTask], stall_seconds: float | None = None
    ) -> Iterator[tuple[AnyTask, Result]]:
        """Yield tasks and their results as they come. They end early if the cluster fails, without an error."""
        if time.monotonic() < self._resume_at:
            return
        try:
            yield from watch_for_stalls(lambda: self._run(work, make_tasks), stall_seconds or STALL_SECONDS)
        except Exception as error:  # noqa: BLE001 - libraries fail in many ways; our own bugs also fail in threads
            self._pause(error)

    def _run(self, work: Work[AnyTask, Result], make_tasks: TaskMaker[AnyTask]) -> Iterator[tuple[AnyTask, Result]]:
        with self._connecting:
            if self._connection is None:
                self._connection = self._connect()
            connection = self._connection
        n_cores = connection.n_cores()
        if n_cores == 0:
            raise ClusterFailed("it has no workers")
        yield from connection.run(work, make_tasks(n_cores), 2 * n_cores)

    def _pause(self, error: Exception) -> None:
        with self._changing:
            failed, self._connection = self._connection, None
            if time.monotonic() < self._resume_at:
                return
            self._resume_at = time.monotonic() + RETRY_SECONDS
        reason = " ".join(str(error).split())[:500]
        log.warning(
            "%s failed (%s: %s): scoring in this process instead, and trying %s again in %.0f seconds",
            *(self.name, type(error).__name__, reason, self.name, RETRY_SECONDS),
        )
        if failed is not None:
            Thread(target=failed.close, daemon=True).start()  # which may block


@dataclass(frozen=True, slots=True)
class Cluster:
    """Scores chunks of a project in one state on a cluster, and the rest in threads of this process.

    The workers open the files of the state themselves; `model` and `pool` are for the rest.
    """

    link: ClusterLink
    root: Path
    project: Project

    def score(self, model: Predictor, pool: Pool, scorer: Scorer, chunks: Sequence[Chunk], keep: KeepScores) -> None:
        """Pass the scores of each chunk to `keep`."""
        basis = ScoringState.of(self.root, self.project)
        missing = {chunk.rows.start: chunk for chunk in chunks}
        if basis is not None and len(chunks) >= MIN_CHUNKS:
            for task, scores in self.link.results(
                score_task, lambda n_cores: make_tasks(basis, scorer, chunks, n_cores)
            ):
                if scores is None:  # the state has changed, so all other results will be None, too
                    break
                for chunk, of_chunk in zip(task.chunks, split_scores(scores, task.chunks), strict=True):
                    keep(chunk, of_chunk)
                    del missing[chunk.rows.start]
            n_done = len(chunks) - len(missing)
            log.debug("%s scored %d of %d chunks of %s", self.link.name, n_done, len(chunks), basis.project_id)
        THREADS.score(model, pool, scorer, list(missing.values()), keep)


def make_tasks(basis: ScoringState, scorer: Scorer, chunks: Sequence[Chunk], n_cores: int) -> list[Task]:
    """Split chunks into tasks for a number of cores. The split does not change any score."""
    size = int(np.clip(len(chunks) // (TASKS_A_CORE * n_cores), *TASK_CHUNKS))
    return [Task(basis, scorer, tuple(chunks[start : start + size])) for start in range(0, len(chunks), size)]


def split_scores(scores: Scores, chunks: Sequence[Chunk]) -> list[Scores]:
    """Split concatenated scores into those of each chunk."""
    lengths = [chunk.rows.stop - chunk.rows.start for chunk in chunks]
    return np.split(scores, np.cumsum(lengths)[:-1])


def watch_for_stalls(items: Callable[[], Iterator[Item]], seconds: float) -> Iterator[Item]:
    """Yield from an iterator that may block for ever. Raises ClusterFailed if no item comes for `seconds`.

    A thread reads the iterator, and stays behind if it blocks; an error of the iterator is raised here.
    """
    queue: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    is_abandoned = Event()

    def draw() -> None:
        try:
            for item in items():
                queue.put(("item", item))
                if is_abandoned.is_set():
                    return
            queue.put(("end", None))
        except Exception as error:  # noqa: BLE001 - raised in the caller's thread
            queue.put(("error", error))

    Thread(target=draw, daemon=True, name="cluster").start()
    try:
        while True:
            kind, value = queue.get(timeout=seconds)
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    except Empty:
        raise ClusterFailed(f"no result for {seconds:.0f} seconds") from None
    finally:
        is_abandoned.set()
