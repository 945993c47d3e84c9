"""A run of a simulation: query, label and fit in turns, in memory, with the true labels as the answers.

Each step is the one of POST /fit, /query and /label, in the same order and with the same seeds, so that a real project
with the same samples, labels and settings asks the same questions and has the same scores, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import EncodedLabels
from service.domain.leases import NO_HOLDINGS
from service.domain.parameters import Parameters
from service.domain.project import EstimatorSpec, HeldOut, MissingValues, TargetName
from service.domain.targets import TARGETS, target_of
from service.errors import FitFailed
from service.learning.pool import Pool, Rows, SparseRows, copy_rows
from service.learning.scoring import THREADS
from service.store import Snapshot
from service.store.cache import Cache
from service.strategies import resolve_strategy
from service.usecases.fit import FitRequest, new_project, with_changes, with_initial_labels
from service.usecases.label import LabelRequest, SubmittedLabel, apply_labels
from service.usecases.query import build_question, seed_of
from service.usecases.query_batch import choose_batch
from service.usecases.query_request import QueryRequest
from service.usecases.training import fit_and_score
from service.usecases.uploads import first_entry

Indices = NDArray[np.int64]

PROJECT = "simulation"
MAX_SEED = 2**32


@dataclass(frozen=True, slots=True)
class SimulatedStrategy:
    """A strategy and all its parameters."""

    name: str
    params: Parameters


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """What to simulate; `label_target` says what the labels are.

    `initial` are indices, and `n_initial` and `test_size` are used where these are not given. The runs are numbered
    repeat by repeat: run i is strategy i % s of repeat i // s.
    """

    strategies: tuple[SimulatedStrategy, ...]
    estimator: EstimatorSpec
    batch_size: int
    budget: int
    n_initial: int
    initial: tuple[int, ...] | None
    test_size: float
    repeats: int
    random_state: int
    target: float | None
    label_target: TargetName = "class"

    @property
    def is_error(self) -> bool:
        """Whether the runs are measured by an error, which falls, and not by the accuracy."""
        return self.label_target == "number"

    @property
    def score_name(self) -> str:
        """The score that the runs are measured by, with its article."""
        return TARGETS[self.label_target].headline_words

    @property
    def n_runs(self) -> int:
        """The number of runs."""
        return self.repeats * len(self.strategies)


@dataclass(frozen=True, slots=True, eq=False)
class SimulationData:
    """Samples with their true labels, and a held-out set; without one, each repeat draws its own."""

    X: Rows
    y: EncodedLabels
    X_test: Rows | None = None
    y_test: EncodedLabels | None = None
    missing_values: MissingValues = "refuse"


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The samples of a repeat: a pool, of which `initial` are labelled at the start, and a held-out set."""

    data: SimulationData

    X: Rows
    y: EncodedLabels
    initial: Indices
    X_test: Rows
    y_test: EncodedLabels


def run_simulation_step(data: SimulationData, plan: SimulationPlan, number: int) -> dict[str, list[Any]]:
    """Do one run. Return its points: the numbers of labels, and the accuracies or errors, None without a model."""
    repeat, nth = divmod(number, len(plan.strategies))
    strategy = plan.strategies[nth]
    split = split_samples(data, plan, repeat)
    snapshot = fit_again(first_snapshot(split, plan, repeat), is_new=True)
    points = [point_of(snapshot)]
    n_asked = 0
    while n_asked < plan.budget:
        request = QueryRequest(
            PROJECT, *resolve_strategy(strategy.name, strategy.params), min(plan.batch_size, plan.budget - n_asked)
        )
        question = build_question(Cache(0), snapshot, request, NO_HOLDINGS, THREADS)
        batch = choose_batch(question, request, seed_of(request, snapshot.project), snapshot.project.random_state)
        indices = batch.selection.indices.tolist()
        if not indices:
            break
        n_asked += len(indices)
        snapshot = fit_again(label(snapshot, indices, split.y))
        points.append(point_of(snapshot))
    n_labeled, accuracy = zip(*points, strict=True)
    return {"n_labeled": list(n_labeled), "accuracy": list(accuracy)}


def point_of(snapshot: Snapshot) -> tuple[int, float | None]:
    """Return the number of labels and the main score of the model, None without one."""
    project, score = snapshot.project, snapshot.project.test_score
    return project.n_labeled, None if score is None else getattr(score, target_of(project).headline)


def first_snapshot(split: Split, plan: SimulationPlan, repeat: int) -> Snapshot:
    """Return the project of a repeat before its first fit, as POST /fit makes it. Raises InvalidRequest."""
    known = np.full(len(split.y.codes), -1, np.int32)
    known[split.initial] = split.y.codes[split.initial]
    request = FitRequest(
        PROJECT,
        y=split.y.only(known >= 0),
        estimator=plan.estimator,
        random_state=seed_of_repeat(plan, repeat),
        similar_labels="allow",
        missing_values=split.data.missing_values,
        missing_is_class=True,
        target=plan.label_target,
    )
    project = with_changes(new_project(request, split.X), request)
    y_test = split.y_test.only(split.y_test.codes >= 0)
    project = target_of(project).admit(project, y_test.values, first_entry("y_test", y_test))
    held_out = HeldOut(1, len(split.X_test), isinstance(split.X_test, SparseRows))
    project = replace(with_initial_labels(project, request.y), held_out=held_out)
    pool = Pool.of(split.X, allows_missing=project.allows_missing)
    return Snapshot(project, pool, X_test=Pool.of(split.X_test), y_test=target_of(project).encode(project, y_test))


def seed_of_repeat(plan: SimulationPlan, repeat: int) -> int:
    """Return the seed of a repeat, which is that of its project."""
    return (plan.random_state + repeat) % MAX_SEED


def fit_again(snapshot: Snapshot, *, is_new: bool = False) -> Snapshot:
    """Return the snapshot with the model of its labels, and the version that the commits of the service give it.

    A new project and its model are one commit, later models are commits of their own. If a later fit fails, the model
    stays; if the first one does, FitFailed is raised.
    """
    before = snapshot.project if is_new else snapshot.project.next_version()
    model, project = snapshot.model, before
    if before.fit_is_due:
        try:
            model, ref, _, _ = fit_and_score(replace(snapshot, project=before))
            project = before.with_model(ref)
        except FitFailed as error:
            if is_new:
                raise
            project = before.with_failed_fit(before, str(error), is_final=True)
    return replace(snapshot, project=project.next_version() if is_new or project is not before else before, model=model)


def label(snapshot: Snapshot, indices: list[int], y: EncodedLabels) -> Snapshot:
    """Return the snapshot with the true labels of some samples."""
    labels = y.values.tolist() if isinstance(y.values, np.ndarray) else y.values
    records = [SubmittedLabel(index, None, labels[y.codes[index]]) for index in indices]
    return replace(snapshot, project=apply_labels(snapshot, LabelRequest(PROJECT, records)).project)


def split_samples(data: SimulationData, plan: SimulationPlan, repeat: int) -> Split:
    """Return the pool, the labels at the start and the held-out set of a repeat."""
    rng = np.random.default_rng([seed_of_repeat(plan, repeat), len(data.X)])
    if data.X_test is not None and data.y_test is not None:
        initial = initial_rows(data.y.codes, plan, rng)
        return Split(data, data.X, data.y, initial, data.X_test, data.y_test)
    fixed = np.array(plan.initial or [], np.int64)
    free = np.setdiff1d(np.arange(len(data.X)), fixed)
    n_test = n_test_rows(plan, len(data.X))
    is_test = np.zeros(len(data.X), bool)
    is_test[rng.permutation(free)[:n_test]] = True
    rows, test_rows = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    y = EncodedLabels(data.y.values, data.y.codes[rows])
    initial = np.searchsorted(rows, fixed) if plan.initial is not None else initial_rows(y.codes, plan, rng)
    y_test = EncodedLabels(data.y.values, data.y.codes[test_rows])
    return Split(data, copy_rows(data.X, rows), y, initial, copy_rows(data.X, test_rows), y_test)


def n_test_rows(plan: SimulationPlan, n_samples: int) -> int:
    """Return the size of a held-out set that is drawn."""
    return max(1, round(plan.test_size * n_samples))


def initial_rows(codes: NDArray[np.int32], plan: SimulationPlan, rng: np.random.Generator) -> Indices:
    """Return the samples that are labelled at the start: those given, or some drawn of as many classes as possible."""
    if plan.initial is not None:
        return np.array(plan.initial, np.int64)
    order = rng.permutation(len(codes))
    is_first = np.zeros(len(codes), bool)
    is_first[np.unique(codes[order], return_index=True)[1]] = True
    drawn: Indices = np.concatenate([order[is_first], order[~is_first]])[: plan.n_initial]
    return drawn
