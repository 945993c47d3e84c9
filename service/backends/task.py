"""What a worker of a cluster does: scores a run of chunks that it reads from the shared data directory itself."""

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
"""What each process of the cluster may keep at hand of models and mapped pools."""


class WorkerMismatch(Exception):
    """A worker that must not score: its numbers could differ from the service's own, or it does not see the data."""


@dataclass(frozen=True, slots=True)
class ScoringState:
    """What scores follow from, beside the scorer: the files of one state of one project, and who computes with them."""

    root: Path
    project_id: str
    pool_id: str
    model_version: int
    segments: tuple[int, ...]
    platform: str

    @classmethod
    def of(cls, root: Path, project: Project) -> ScoringState | None:
        """Describe a project's pool and model; None without a model."""
        if project.model is None:
            return None
        segments = tuple(segment.number for segment in project.segments)
        return cls(root, project.project_id, project.pool_id, project.model.version, segments, describe_platform())


@dataclass(frozen=True, slots=True)
class Task:
    """Some chunks to be scored, all in one go. It is pickled with its scorer by reference: a function of a module."""

    basis: ScoringState
    scorer: Scorer
    chunks: tuple[Chunk, ...]


def score_task(task: Task) -> Scores | None:
    """Return the scores of a task's chunks, one behind the other; None when the project has moved on.

    The numbers are those that `Threads` hands out. Raises WorkerMismatch, or the store's errors.
    """
    basis = task.basis
    if describe_platform() != basis.platform:
        raise WorkerMismatch(f"{socket.gethostname()} has {describe_platform()}, and the service has {basis.platform}")
    if not (basis.root / "projects").is_dir():
        raise WorkerMismatch(f"{socket.gethostname()} has no data directory {basis.root}")
    try:
        snapshot = open_store(basis.root).read(basis.project_id, Part.POOL, Part.MODEL)
    except ProjectNotFound:
        return None
    if snapshot.pool is None or ScoringState.of(basis.root, snapshot.project) != basis:
        return None
    pool = snapshot.pool
    probabilities = predictor_for(snapshot.model, pool)
    return np.concatenate([score_rows(probabilities, task.scorer, pool.read(chunk)) for chunk in task.chunks])


@cache
def open_store(root: Path) -> Store:
    """Open the data directory once in each process."""
    return Store(root, cache_bytes=WORKER_CACHE_BYTES)


@cache
def describe_platform() -> str:
    """Name all that numbers depend on: the versions of what computes, and what BLAS takes the processor for."""
    processors = {pool["architecture"] for pool in thread_pools().info() if "architecture" in pool}
    return (
        f"active-query {__version__}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}, BLAS for {' and '.join(sorted(processors)) or 'any processor'}"
    )
