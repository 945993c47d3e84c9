"""GET /projects/{id}/predictions: what the current model predicts for the samples of a project."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.admission import AdmissionLimit
from service.compute.threads import n_cores, run_in_threads
from service.domain.labels import Label
from service.domain.project import Project, TargetName
from service.domain.sample_ids import PoolIds
from service.errors import FieldError, InvalidRequest, NoModel, OutOfTime
from service.learning.multilabel_scores import thresholds_of_classes
from service.learning.pool import Chunk
from service.learning.scoring import outputs_of, predictor_for
from service.store import Part, Snapshot, Store
from service.telemetry.metrics import count_predictions
from service.usecases.foreseen import refuse_long_pass
from service.usecases.query_request import HEAVY_SAMPLES
from service.usecases.training import read_with_model

CHUNKS_AT_ONCE = 2 * n_cores()
"""Chunks that are predicted together: enough for every core, few enough for the memory."""

NO_CLASS = -1
"""The class code of a sample whose probabilities are not finite."""


@dataclass(frozen=True, slots=True, eq=False)
class PredictionRequest:
    """Which predictions are wanted: those of `indices`, or of all samples, after the sample `after`.

    `limit` is the largest number of them, None if they are sent while they are predicted.
    """

    project_id: str
    indices: Sequence[int] | None = None
    after: int | None = None
    min_confidence: float = 0.0
    unlabeled_only: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PredictionBlock:
    """Predictions of k samples in the order of the pool: the class code, its probability, and all of them (k, c).

    The columns of `probabilities` are the project's classes; a class that the model has not seen has probability 0. If
    the target is a number, `numbers` (k,) are predicted instead, NaN where the model gives no finite one. If a sample
    may have several labels, `sets` (k, c) are the predicted classes, and the code of a row without any says nothing.
    """

    index: NDArray[np.int64]
    code: NDArray[np.int64]
    confidence: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    numbers: NDArray[np.float64] | None = None
    sets: NDArray[np.bool_] | None = None

    def labels(self, classes: Sequence[Label]) -> list[Label | None]:
        """Return the predicted labels (k,), None without a finite prediction."""
        if self.numbers is not None:
            return [None if math.isnan(number) else number for number in self.numbers.tolist()]
        if self.sets is not None:
            return [
                None if code == NO_CLASS else tuple(classes[column] for column in np.flatnonzero(row).tolist())
                for code, row in zip(self.code.tolist(), self.sets, strict=True)
            ]
        names = [*classes, None]
        return [names[code] for code in self.code.tolist()]

    def take(self, rows: NDArray[np.bool_] | slice) -> PredictionBlock:
        """Return some of the predictions."""
        numbers = None if self.numbers is None else self.numbers[rows]
        sets = None if self.sets is None else self.sets[rows]
        columns = self.index[rows], self.code[rows], self.confidence[rows], self.probabilities[rows]
        return PredictionBlock(*columns, numbers, sets)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The project, the ids of its samples (None without), how many samples are looked at, and their predictions."""

    project: Project
    model_version: int
    ids: PoolIds | None
    n_candidates: int
    blocks: Iterator[PredictionBlock]


def list_predictions(store: Store, request: PredictionRequest, admission: AdmissionLimit) -> Predictions:
    """Predict samples in the order of the pool, a few chunks at a time, as the blocks are asked for.

    The first block is predicted at once. Raises ProjectNotFound, NoModel, InvalidRequest for an index beyond the pool,
    OutOfTime, TooBusy and the store's errors.
    """
    snapshot = read_with_model(store, request.project_id, Part.POOL, Part.IDS)
    project = snapshot.project
    if snapshot.model is None or project.model is None:
        raise NoModel(project.project_id)
    if project.target == "number" and request.min_confidence:
        raise InvalidRequest.at("/query/min_confidence", "is for classes: predicted numbers have no confidence")
    wanted = wanted_samples(project, request)
    n_candidates = int(np.count_nonzero(wanted))
    if request.limit is not None and not request.min_confidence:
        refuse_long_pass(project, snapshot.mapped_pool, min(n_candidates, request.limit))
    blocks = predict_blocks(snapshot, wanted, request, admission)
    first = first_block(blocks, request)
    return Predictions(project, project.model.version, snapshot.ids, n_candidates, chain(first, blocks))


def first_block(blocks: Iterator[PredictionBlock], request: PredictionRequest) -> list[PredictionBlock]:
    """Return the first block, if there is one. Raises InvalidRequest if none of many predictions is sure enough."""
    try:
        return list(islice(blocks, 1))
    except OutOfTime as error:
        if not request.min_confidence:
            raise
        problem = "no sample was found in the time limit of a query, AQ_QUERY_SECONDS: send a lower one"
        raise InvalidRequest.at("/query/min_confidence", problem) from error


def wanted_samples(project: Project, request: PredictionRequest) -> NDArray[np.bool_]:
    """Return a mask (n,) of the samples that a request names, or raise InvalidRequest."""
    n = project.n_samples
    wanted = np.full(n, request.indices is None)
    wanted[project.removed] = False
    if request.indices is not None:
        beyond = [index for index in request.indices if not 0 <= index < n]
        if beyond:
            raise InvalidRequest(FieldError("/query/indices", f"{index} must be from 0 to {n - 1}") for index in beyond)
        wanted[list(request.indices)] = True
    if request.after is not None:
        wanted[: request.after + 1] = False
    if request.unlabeled_only:
        wanted &= project.is_unlabeled
    return wanted


def predict_blocks(
    snapshot: Snapshot, wanted: NDArray[np.bool_], request: PredictionRequest, admission: AdmissionLimit
) -> Iterator[PredictionBlock]:
    """Yield the predictions of the wanted samples, a block for each chunk of the pool that holds any.

    A few chunks for each core are predicted at once, and no more than a page takes.

    A place for heavy work is held only while chunks are predicted, never while the client reads.
    """
    pool, model = snapshot.mapped_pool, snapshot.model
    outputs, block_of = predictor_for(model, pool), BLOCKS[snapshot.project.target]

    def predict(chunk: Chunk) -> PredictionBlock:
        with np.errstate(all="ignore"):
            found = outputs(pool.read(chunk))
        block = block_of(np.arange(chunk.rows.start, chunk.rows.stop), found, snapshot)
        kept = wanted[chunk.rows]
        if request.min_confidence:
            kept = kept & (block.confidence >= request.min_confidence)  # NaN is less than any number
        return block.take(kept)

    due = [chunk for chunk in pool.chunks(outputs_of(model)) if wanted[chunk.rows].any()]
    chunks, n_at_once = iter(due), CHUNKS_AT_ONCE
    if request.limit is not None and not request.min_confidence:
        n_at_once = min(CHUNKS_AT_ONCE, 1 + request.limit * len(due) // max(int(wanted.sum()), 1))
    place: Callable[[], AbstractContextManager[object]] = admission.enter if len(pool) >= HEAVY_SAMPLES else nullcontext
    while some := list(islice(chunks, n_at_once)):
        found: dict[int, PredictionBlock] = {}
        with place():
            run_in_threads(lambda nth: found.__setitem__(nth, predict(some[nth])), range(len(some)))  # noqa: B023
        count_predictions(sum(len(block.index) for block in found.values()))
        yield from (found[nth] for nth in range(len(some)) if len(found[nth].index))
        if place == admission.enter:
            place = admission.try_enter  # the reply has begun: wait a moment for a place, and go on without


def block_of_classes(index: NDArray[np.int64], found: NDArray[Any], snapshot: Snapshot) -> PredictionBlock:
    """Return the most probable class of each row of probabilities (k, m)."""
    P = probabilities_of_classes(found, snapshot)
    is_finite = np.isfinite(P).all(axis=1)
    code = np.where(is_finite, P.argmax(axis=1), NO_CLASS)
    return PredictionBlock(index, code, np.where(is_finite, P.max(axis=1), np.nan), P)


def block_of_sets(index: NDArray[np.int64], found: NDArray[Any], snapshot: Snapshot) -> PredictionBlock:
    """Return the classes of each row of marginals (k, m), and the probability of the least sure decision about one."""
    P = probabilities_of_classes(found, snapshot)
    is_finite = np.isfinite(P).all(axis=1)
    sets = thresholds_of_classes(snapshot.project) <= P
    surest = np.where(sets, P, 1.0 - P).min(axis=1)
    code = np.where(is_finite, 0, NO_CLASS)
    return PredictionBlock(index, code, np.where(is_finite, surest, np.nan), P, sets=sets)


def block_of_numbers(index: NDArray[np.int64], found: NDArray[Any], snapshot: Snapshot) -> PredictionBlock:
    """Return predicted numbers (k, 1)."""
    n, numbers = len(index), found[:, 0].astype(np.float64)
    known = np.where(np.isfinite(numbers), numbers, np.nan)
    return PredictionBlock(index, np.full(n, NO_CLASS), np.full(n, np.nan), np.empty((n, 0)), known)


BLOCKS: dict[TargetName, Callable[[NDArray[np.int64], NDArray[Any], Snapshot], PredictionBlock]] = {
    "class": block_of_classes,
    "labels": block_of_sets,
    "number": block_of_numbers,
}
"""The predictions of rows (k,) from what the model returns for them, by target."""


def probabilities_of_classes(found: NDArray[Any], snapshot: Snapshot) -> NDArray[np.float64]:
    """Return probabilities (k, m) as those of the project's classes (k, c), 0 for a class the model does not know."""
    P = np.zeros((len(found), len(snapshot.project.classes)))
    P[:, snapshot.model.classes_] = found
    return P


def first_predictions(
    blocks: Iterator[PredictionBlock], limit: int, *, may_be_short: bool = False
) -> tuple[list[PredictionBlock], bool]:
    """Return the first `limit` predictions, and whether more may follow.

    If the page `may_be_short`, it ends at the deadline of the request. Raises OutOfTime otherwise.
    """
    taken: list[PredictionBlock] = []
    n_left = limit
    try:
        for block in blocks:
            if n_left == 0:
                return taken, True
            taken.append(block.take(slice(n_left)))
            if len(block.index) > n_left:
                return taken, True
            n_left -= len(block.index)
    except OutOfTime:
        if not may_be_short:
            raise
        return taken, True
    return taken, False
