"""Simulations: what strategies would have cost on samples whose labels are known."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import EncodedLabels
from service.domain.project import MICROSECONDS, EstimatorSpec, Project, TargetName, now, quote_label
from service.domain.targets import target_of_values, values_of_codes
from service.errors import FieldError, InvalidRequest, SimulationNotFound, StoreDamaged, TooManySimulations
from service.learning.pool import Pool, Rows, SparseRows
from service.store import Part, Store
from service.store.simulations import Record, Simulations
from service.store.staging import StagedRows, Staging
from service.strategies import check_target, resolve_strategy
from service.usecases.columns import name_columns
from service.usecases.fit import FitRequest, new_pool, new_project, stage_held_out
from service.usecases.simulation_result import BASELINE, summarize_runs
from service.usecases.simulation_run import (
    SimulatedStrategy,
    SimulationData,
    SimulationPlan,
    first_snapshot,
    n_test_rows,
    run_simulation_step,
    split_samples,
)
from service.usecases.texts import Samples, stage_features
from service.usecases.training import describe_failure
from service.usecases.uploads import check_lengths, first_entry, refuse_missing_values

DEFAULT_BUDGET = 200

MAX_WAITING = 20
"""How many simulations may be queued or running."""

MAX_KEPT = 100
RETENTION_SECONDS = 30 * 24 * 3600
"""How many simulations that have ended are kept, the newest, and for how long."""

Status = Literal["queued", "running", "done", "failed", "cancelled"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class SimulationRequest:
    """The request of POST /simulate: samples with their labels, or the project whose labelled samples they are.

    `samples` is the request that would make a project of the samples, and has the held-out set. `y` and `y_test` have
    all the labels. `owner` is the name of the caller's key. The plan has the strategies as requested, and without
    `has_budget` the default budget.
    """

    plan: SimulationPlan
    owner: str | None
    samples: FitRequest
    project_id: str | None = None
    y: EncodedLabels | None = None
    y_test: EncodedLabels | None = None
    has_budget: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """How many runs are done, of how many."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class SimulationView:
    """A simulation as it is shown; times are in microseconds since 1970 UTC."""

    simulation_id: str
    status: Status
    progress: Progress
    result: Record | None
    error: str | None
    project_id: str | None
    plan: SimulationPlan
    created_at: int
    ended_at: int | None
    owner: str | None


def create_simulation(store: Store, staging: Staging, request: SimulationRequest) -> SimulationView:
    """Store a simulation to be run.

    Raises InvalidRequest, TooManySimulations, ProjectNotFound and the store's errors.
    """
    data, target = read_samples(store, staging, request)
    plan = replace(with_baseline(request.plan), label_target=target)
    check_plan(plan, data, request)
    make_room(store.simulations)
    record = {
        "schema_version": 1,
        "owner": request.owner,
        "project_id": request.project_id,
        "created_at": now(),
        "plan": pack_plan(plan),
    }
    simulation_id = store.simulations.add(staging, record, pack_data(data))
    return view_simulation(store.simulations, simulation_id)


def read_samples(store: Store, staging: Staging, request: SimulationRequest) -> tuple[SimulationData, TargetName]:
    """Return the samples of a request, and their target. Raises InvalidRequest if they do not fit each other."""
    if request.samples.X is not None and request.y is not None:
        project, pool = sent_samples(staging, request.samples, request.samples.X)
        X, y = stored_rows(pool), request.y
    else:
        project, pool = labeled_project(store, request.project_id or "")
        X = copy_rows(pool, project.labels.labeled)
        y = EncodedLabels(values_of_codes(project), project.labels.codes)
    if len(np.unique(y.codes)) < 2:
        field = "/project_id" if request.samples.X is None else "/y"
        raise InvalidRequest.at(field, "must have two classes or numbers or more: with one there is nothing to learn")
    held_out = stage_held_out(request.samples, project, staging)
    if held_out is None or request.y_test is None:
        return SimulationData(X, y, missing_values=project.missing_values), project.target
    X_test, y_test = held_out.X, request.y_test
    check_held_out(X_test, y_test, project, y)
    rows = stored_rows(Pool.of(X_test.open()).weighted(pool.weights))
    return SimulationData(X, y, rows, y_test, project.missing_values), project.target


def sent_samples(staging: Staging, request: FitRequest, samples: Samples) -> tuple[Project, Pool]:
    """Return the project that POST /fit would make of samples, and its pool. Raises InvalidRequest."""
    check_lengths(samples, {"y": request.y, "ids": request.ids, "urls": request.urls})
    X = name_columns(stage_features("texts", samples, request.text, staging), request.feature_names, staging)
    if request.target is None and request.y is not None and target_of_values(request.y.values) == "labels":
        request = replace(request, target="labels")
    project = new_project(request, X.open(), X.names)
    project = replace(project, missing_values=request.missing_values or project.missing_values)
    refuse_missing_values(X, project.missing_values)
    return project, new_pool(X, project)


def labeled_project(store: Store, project_id: str) -> tuple[Project, Pool]:
    """Return a project with labelled samples, and its pool. Raises InvalidRequest and ProjectNotFound."""
    snapshot = store.read(project_id, Part.POOL)
    if snapshot.pool is None or snapshot.project.n_labeled == 0:
        raise InvalidRequest.at("/project_id", f"project {project_id!r} has no labelled samples")
    return snapshot.project, snapshot.pool


def check_held_out(X_test: StagedRows, y_test: EncodedLabels, project: Project, y: EncodedLabels) -> None:
    """Raise InvalidRequest for a held-out set that does not fit the samples."""
    refuse_missing_values(X_test, project.missing_values)
    wrong = []
    if X_test.n_columns != project.n_features:
        problem = f"has {X_test.n_columns} columns, but the samples have {project.n_features}"
        wrong.append(FieldError("/X_test", problem))
    if X_test.is_sparse != project.is_sparse:
        wrong.append(FieldError("/X_test", "must be dense or sparse (CSR) as the samples are"))
    if len(y_test.codes) != X_test.n_rows:
        problem = f"has {len(y_test.codes)} entries, but X_test has {X_test.n_rows} rows"
        wrong.append(FieldError("/y_test", problem))
    known, pointer_of = {(type(label), label) for label in y.values}, first_entry("y_test", y_test)
    for code, label in enumerate(y_test.values if project.target == "class" else ()):
        if (type(label), label) not in known:
            wrong.append(FieldError(pointer_of(code), f"is {quote_label(label)}, which no sample of y has"))
    if wrong:
        raise InvalidRequest(wrong)


def stored_rows(pool: Pool) -> Rows:
    """Return all rows of a pool of one segment; a copy where terms of texts are weighted."""
    return pool.segments[0] if pool.weights is None else copy_rows(pool, np.arange(len(pool)))


def copy_rows(pool: Pool, index: NDArray[np.int64]) -> Rows:
    """Return a copy of some rows of a pool, with the weights of terms applied."""
    taken = pool.take(index)
    if not pool.is_sparse:
        return np.asarray(taken)
    return SparseRows(taken.data, taken.indices, taken.indptr, pool.n_columns)


def with_baseline(plan: SimulationPlan) -> SimulationPlan:
    """Return a plan that has the strategy to compare with."""
    if any(strategy.name == BASELINE for strategy in plan.strategies):
        return plan
    return replace(plan, strategies=(*plan.strategies, SimulatedStrategy(BASELINE, {})))


def check_plan(plan: SimulationPlan, data: SimulationData, request: SimulationRequest) -> None:
    """Raise InvalidRequest for a plan that these samples do not allow."""
    if not plan.is_error and plan.target is not None and plan.target > 1:
        raise InvalidRequest.at("/target", f"must be a number from 0 to 1: it is {plan.score_name}")
    n_samples = len(data.X)
    refuse_other_targets(plan)
    wrong = [
        FieldError(f"/initial/{position}", f"must be from 0 to {n_samples - 1}")
        for position, index in enumerate(plan.initial or ())
        if index >= n_samples
    ]
    if wrong:
        raise InvalidRequest(wrong)
    n_initial = plan.n_initial if plan.initial is None else len(plan.initial)
    n_pool = n_samples - (n_test_rows(plan, n_samples) if data.X_test is None else 0)
    if n_pool <= n_initial:
        field = "n_initial" if plan.initial is None else "initial"
        rest = "" if data.X_test is not None else f", of which {n_samples - n_pool} are held out"
        raise InvalidRequest.at(f"/{field}", f"leaves nothing to ask: there are {n_samples} samples{rest}")
    if request.has_budget and plan.budget > n_pool:
        raise InvalidRequest.at("/budget", f"must be at most {n_pool}: there are no more samples to ask about")
    first_snapshot(split_samples(data, plan, 0), plan, 0)


def refuse_other_targets(plan: SimulationPlan) -> None:
    """Raise InvalidRequest for strategies that cannot ask for the labels of these samples."""
    errors: list[FieldError] = []
    for position, each in enumerate(plan.strategies):
        try:
            check_target(*resolve_strategy(each.name, each.params), plan.label_target)
        except InvalidRequest as error:
            errors += [FieldError(f"/strategies/{position}", wrong.detail) for wrong in error.errors]
    if errors:
        raise InvalidRequest(errors)


def make_room(simulations: Simulations) -> None:
    """Remove simulations that ended long ago. Raises TooManySimulations if too many have not ended."""
    kept = list(view_all(simulations))
    if sum(view.ended_at is None for view in kept) >= MAX_WAITING:
        raise TooManySimulations(MAX_WAITING)
    ended = [view for view in kept if view.ended_at is not None]
    oldest = now() - RETENTION_SECONDS * MICROSECONDS
    for position, view in enumerate(sorted(ended, key=lambda view: -(view.ended_at or 0))):
        if position >= MAX_KEPT - 1 or (view.ended_at or 0) < oldest:
            with suppress(SimulationNotFound):
                simulations.remove(view.simulation_id)


def view_all(simulations: Simulations) -> Iterable[SimulationView]:
    """Return all simulations, the oldest first; damaged ones are left out and logged."""
    views = []
    for simulation_id in simulations.ids():
        try:
            views.append(view_simulation(simulations, simulation_id))
        except SimulationNotFound:
            continue  # deleted meanwhile
        except StoreDamaged as error:
            log.error("simulation %s is left out: %s", simulation_id, error)
    return sorted(views, key=lambda view: (view.created_at, view.simulation_id))


def view_simulation(simulations: Simulations, simulation_id: str) -> SimulationView:
    """Return a simulation. Raises SimulationNotFound or StoreDamaged."""
    record = simulations.plan(simulation_id)
    plan = unpack_plan(record["plan"])
    is_running = simulations.is_running(simulation_id)
    end = simulations.end(simulation_id)
    n_done = len(simulations.runs(simulation_id))
    return SimulationView(
        simulation_id=simulation_id,
        status=end["status"] if end is not None else "running" if is_running else "queued",
        progress=Progress(n_done, plan.n_runs),
        result=None if end is None else end.get("result"),
        error=None if end is None else end.get("error"),
        project_id=record["project_id"],
        plan=plan,
        created_at=record["created_at"],
        ended_at=None if end is None else end["at"],
        owner=record["owner"],
    )


def cancel_simulation(simulations: Simulations, simulation_id: str) -> None:
    """Cancel a simulation, or remove one that has ended. Raises SimulationNotFound."""
    if not simulations.keep_end(simulation_id, end_record("cancelled")):
        simulations.remove(simulation_id)


def remove_simulations_of(simulations: Simulations, project_id: str) -> None:
    """Remove the simulations of a project, which hold copies of its samples."""
    for simulation_id in simulations.ids():
        with suppress(SimulationNotFound, StoreDamaged):
            if simulations.plan(simulation_id)["project_id"] == project_id:
                simulations.remove(simulation_id)


RunMany = Callable[[SimulationData, SimulationPlan, list[int]], Iterable[tuple[int, Record]]]
"""Does the runs with these numbers, and yields each with its result when it is done."""


def run_here(data: SimulationData, plan: SimulationPlan, numbers: list[int]) -> Iterable[tuple[int, Record]]:
    """Do runs one after another in this thread."""
    return ((number, run_simulation_step(data, plan, number)) for number in numbers)


def run_simulation(simulations: Simulations, simulation_id: str, run_many: RunMany = run_here) -> None:
    """Do the runs of a simulation that are not done, and store its result, or why it failed.

    Raises SimulationNotFound, and errors of the store that may not recur.
    """
    plan, data = open_simulation(simulations, simulation_id)
    done = set(simulations.runs(simulation_id))
    missing = [number for number in range(plan.n_runs) if number not in done]
    try:
        for number, result in run_many(data, plan, missing):
            simulations.keep_run(simulation_id, number, result)
            if simulations.end(simulation_id) is not None:
                return
        runs = [simulations.run(simulation_id, number) for number in range(plan.n_runs)]
        simulations.keep_end(simulation_id, end_record("done", result=summarize_runs(plan, runs)))
    except (SimulationNotFound, OSError):
        raise
    except Exception as error:
        log.exception("simulation %s failed", simulation_id)
        simulations.keep_end(simulation_id, end_record("failed", error=describe_failure(error)))


def open_simulation(simulations: Simulations, simulation_id: str) -> tuple[SimulationPlan, SimulationData]:
    """Return the plan and the samples of a simulation. Raises SimulationNotFound or StoreDamaged."""
    plan = unpack_plan(simulations.plan(simulation_id)["plan"])
    return plan, unpack_data(simulations.data(simulation_id))


def end_record(status: Status, **details: Any) -> Record:
    """Return the record of how a simulation ended."""
    return {"status": status, "at": now(), **details}


def pack_plan(plan: SimulationPlan) -> Record:
    """Return a plan as plain values."""
    return {
        "strategies": [{"name": strategy.name, "params": dict(strategy.params)} for strategy in plan.strategies],
        "estimator": {"name": plan.estimator.name, "params": dict(plan.estimator.params)},
        **{name: getattr(plan, name) for name in PLAIN_FIELDS},
    }


PLAIN_FIELDS = (
    "batch_size",
    "budget",
    "n_initial",
    "initial",
    "test_size",
    "repeats",
    "random_state",
    "target",
    "label_target",
)


def unpack_plan(record: Mapping[str, Any]) -> SimulationPlan:
    """Return the plan of plain values."""
    return SimulationPlan(
        strategies=tuple(SimulatedStrategy(**strategy) for strategy in record["strategies"]),
        estimator=EstimatorSpec(**record["estimator"]),
        # Simulations of earlier versions lack the last.
        **{name: record[name] for name in PLAIN_FIELDS if name in record},
    )


def pack_data(data: SimulationData) -> Record:
    """Return samples as arrays and plain values."""
    packed: dict[str, Any] = {
        "X": pack_rows(data.X),
        "y": data.y.codes,
        "classes": data.y.values,
        "missing_values": data.missing_values,
    }
    if data.X_test is not None and data.y_test is not None:
        packed |= {"X_test": pack_rows(data.X_test), "y_test": data.y_test.codes, "test_classes": data.y_test.values}
    return packed


def unpack_data(record: Mapping[str, Any]) -> SimulationData:
    """Return the samples of arrays and plain values."""
    X, y = unpack_rows(record["X"]), unpack_labels(record["classes"], record["y"])
    if "X_test" not in record:
        return SimulationData(X, y, missing_values=record["missing_values"])
    y_test = unpack_labels(record["test_classes"], record["y_test"])
    return SimulationData(X, y, unpack_rows(record["X_test"]), y_test, record["missing_values"])


def unpack_labels(values: Any, codes: NDArray[np.int32]) -> EncodedLabels:
    """Return labels of an array of numbers, or of plain values."""
    return EncodedLabels(values if isinstance(values, np.ndarray) else tuple(values), codes)


def pack_rows(rows: Rows) -> Mapping[str, Any]:
    """Return rows as arrays by name."""
    if not isinstance(rows, SparseRows):
        return {"rows": np.asarray(rows)}
    return {"data": rows.data, "indices": rows.indices, "indptr": rows.indptr, "n_columns": rows.n_columns}


def unpack_rows(arrays: Mapping[str, Any]) -> Rows:
    """Return the rows of arrays by name."""
    if "rows" not in arrays:
        return SparseRows(**arrays)
    rows: Rows = arrays["rows"]
    return rows
