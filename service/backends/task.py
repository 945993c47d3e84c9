"""The task of a cluster worker: to score chunks that it reads from the shared data directory."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import scipy
import sklearn

from service import __version__
from service.compute.threads import thread_pools
from service.domain.project import Project
from service.errors import ProjectNotFound
from service.learning.pool import Chunk
from service.learning.scoring import Scorer, Scores, predictor_for, score_rows
from service.store import Part, Store

WORKER_CACHE_BYTES = 2**28
"""Cache of models and mapped pools in each process of the cluster."""


class WorkerMismatch(Exception):
    """The worker cannot see the data directory, or its results could differ from the service's."""


@dataclass(frozen=True, slots=True)
class ScoringState:
    """All that determines scores besides the scorer: the files of a project's state, and the platform."""

    root: Path
    project_id: str
    pool_id: str
    model_version: int
    segments: tuple[int, ...]
    platform: str

    @classmethod
    def of(cls, root: Path, project: Project) -> ScoringState | None:
        """Return that of a project, None without a model."""
        if project.model is None:
            return None
        segments = tuple(segment.number for segment in project.segments)
        return cls(root, project.project_id, project.pool_id, project.model.version, segments, describe_platform())


@dataclass(frozen=True, slots=True)
class Task:
    """Chunks to score. Tasks are pickled, with the scorer by reference: it is a function of a module."""

    basis: ScoringState
    scorer: Scorer
    chunks: tuple[Chunk, ...]


def score_task(task: Task) -> Scores | None:
    """Return the concatenated scores of a task's chunks, None if the project has changed.

    The scores are the same as those of `Threads`. Raises WorkerMismatch, or the store's errors.
    """
    basis = task.basis
    check_worker(basis.root, basis.platform)
    try:
        snapshot = open_store(basis.root).read(basis.project_id, Part.POOL, Part.MODEL, Part.WEIGHTS_OF_MODEL)
    except ProjectNotFound:
        return None
    if snapshot.pool is None or ScoringState.of(basis.root, snapshot.project) != basis:
        return None
    pool = snapshot.pool
    probabilities = predictor_for(snapshot.model, pool)
    return np.concatenate([score_rows(probabilities, task.scorer, pool.read(chunk)) for chunk in task.chunks])


def check_worker(root: Path, platform: str) -> None:
    """Raise WorkerMismatch unless this worker sees a data directory and computes as the service does."""
    if describe_platform() != platform:
        raise WorkerMismatch(f"{socket.gethostname()} has {describe_platform()}, and the service has {platform}")
    if not (root / "projects").is_dir():
        raise WorkerMismatch(f"{socket.gethostname()} has no data directory {root}")


@cache
def open_store(root: Path) -> Store:
    """Return this process's store of a data directory."""
    return Store(root, cache_bytes=WORKER_CACHE_BYTES)


@cache
def describe_platform() -> str:
    """Return all that floating-point results depend on: versions, and the processor type that BLAS detects."""
    processors = {pool["architecture"] for pool in thread_pools().info() if "architecture" in pool}
    return (
        f"active-query {__version__}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}, BLAS for {' and '.join(sorted(processors)) or 'any processor'}"
    )
