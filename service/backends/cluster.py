"""A pass over the pool on a cluster. Whatever becomes of the cluster, the answer comes, and is the same."""

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

from service.backends.task import ScoringState, Task
from service.domain.project import Project
from service.learning.pool import Chunk, Pool
from service.learning.scoring import THREADS, KeepScores, Predictor, Scorer, Scores

log = logging.getLogger(__name__)

Item = TypeVar("Item")
TaskResult = tuple[Task, Scores | None]
TaskMaker = Callable[[int], Sequence[Task]]
"""Makes tasks for a number of cores."""

MIN_CHUNKS = 32
"""Fewer chunks are scored here: that takes no longer than to ask a cluster. 32 are 260,000 rows of 64 features."""

TASKS_A_CORE = 4
"""Enough for a slow worker to be helped out by the others."""

TASK_CHUNKS = (8, 64)
"""The smallest and the largest task: a task costs the cluster milliseconds, and a large forest takes long for one."""

STALL_SECONDS = 60.0
"""A cluster that gives no answer for so long is left alone: longer than a task takes, or a worker to start."""

RETRY_SECONDS = 30.0
"""How long a cluster is left alone that failed."""


class Connection(Protocol):
    """A running cluster. All methods may raise what its library raises, and may block."""

    def n_cores(self) -> int:
        """Return how many tasks are worked on at the same time."""

    def run(self, tasks: Sequence[Task], n_at_once: int) -> Iterator[TaskResult]:
        """Have `work` done on each task and yield the answers as they come; `n_at_once` tasks are out at a time."""

    def close(self) -> None:
        """Let go of the cluster."""


class ClusterFailed(Exception):
    """The cluster gave no answer."""


class ClusterLink:
    """This process's one way to a cluster: connected when first needed, and after a failure again some time later."""

    def __init__(self, name: str, connect: Callable[[], Connection]) -> None:
        self.name = name
        self._connect = connect
        self._connecting = Lock()
        self._connection: Connection | None = None
        self._changing = Lock()
        self._resume_at = 0.0

    def results(self, make_tasks: TaskMaker) -> Iterator[TaskResult]:
        """Yield the answers to the tasks as they come. Where the cluster fails they end early: never an error."""
        if time.monotonic() < self._resume_at:
            return
        try:
            yield from watch_for_stalls(lambda: self._run(make_tasks), STALL_SECONDS)
        except Exception as error:  # noqa: BLE001 - libraries fail in many ways; a fault of our own shows in the threads
            self._pause(error)

    def _run(self, make_tasks: TaskMaker) -> Iterator[TaskResult]:
        with self._connecting:
            if self._connection is None:
                self._connection = self._connect()
            connection = self._connection
        n_cores = connection.n_cores()
        if n_cores == 0:
            raise ClusterFailed("it has no workers")
        yield from connection.run(make_tasks(n_cores), 2 * n_cores)

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
            Thread(target=failed.close, daemon=True).start()  # which may block, like all that the library does


@dataclass(frozen=True, slots=True)
class Cluster:
    """Scores chunks of a project as it is in one state on a cluster, and what is left over in threads of its own.

    The workers open what the state names themselves; the model and the pool at hand are what is left over scored with.
    """

    link: ClusterLink
    root: Path
    project: Project

    def score(self, model: Predictor, pool: Pool, scorer: Scorer, chunks: Sequence[Chunk], keep: KeepScores) -> None:
        """Hand the scores of each chunk to `keep`."""
        basis = ScoringState.of(self.root, self.project)
        missing = {chunk.rows.start: chunk for chunk in chunks}
        if basis is not None and len(chunks) >= MIN_CHUNKS:
            for task, scores in self.link.results(lambda n_cores: make_tasks(basis, scorer, chunks, n_cores)):
                if scores is None:  # another model came, say: all the other answers will say the same
                    break
                for chunk, of_chunk in zip(task.chunks, split_scores(scores, task.chunks), strict=True):
                    keep(chunk, of_chunk)
                    del missing[chunk.rows.start]
            n_done = len(chunks) - len(missing)
            log.debug("%s scored %d of %d chunks of %s", self.link.name, n_done, len(chunks), basis.project_id)
        THREADS.score(model, pool, scorer, list(missing.values()), keep)


def make_tasks(basis: ScoringState, scorer: Scorer, chunks: Sequence[Chunk], n_cores: int) -> list[Task]:
    """Deal chunks out to so many cores. Which task a chunk is part of does not change its scores."""
    size = int(np.clip(len(chunks) // (TASKS_A_CORE * n_cores), *TASK_CHUNKS))
    return [Task(basis, scorer, tuple(chunks[start : start + size])) for start in range(0, len(chunks), size)]


def split_scores(scores: Scores, chunks: Sequence[Chunk]) -> list[Scores]:
    """Cut scores that lie one behind the other into those of each chunk."""
    lengths = [chunk.rows.stop - chunk.rows.start for chunk in chunks]
    return np.split(scores, np.cumsum(lengths)[:-1])


def watch_for_stalls(items: Callable[[], Iterator[Item]], seconds: float) -> Iterator[Item]:
    """Yield what an iterator gives that may block for ever; raise ClusterFailed when nothing comes for `seconds`.

    It is drawn from in a thread of its own, which stays behind when it blocks, and its error is raised here.
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
        except Exception as error:  # noqa: BLE001 - it is raised where somebody sees it
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
        raise ClusterFailed(f"no answer for {seconds:.0f} seconds") from None
    finally:
        is_abandoned.set()
