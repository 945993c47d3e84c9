"""How right the evaluation without a held-out set is: `python -m tests.benchmarks.evaluation`.

Projects are simulated on made-up data of two classes. The first table has how often the interval of the accuracy covers
the accuracy of the models that predict out of fold, measured on samples that are in no project. The second one has the
mean of LURE over projects beside the true accuracy on the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import make_classification

from service.learning.estimators import fit, resolve_estimator
from service.learning.evaluation import Estimate, out_of_fold_interval, wilson_interval
from service.learning.folds import fit_folds
from service.learning.lure import Drawn, lure_accuracy
from service.learning.models import predict_codes, predict_probabilities
from service.strategies.sampling import add_gumbel_noise, chances_of, log_powers
from service.strategies.uncertainty import margin

ESTIMATORS = {
    "logistic_regression": resolve_estimator("logistic_regression", {"scale": True}),
    "gaussian_nb": resolve_estimator("gaussian_nb", {}),
}
POOL, HELD_OUT = 2_000, 3_000
UNIFORM_ROWS = 30, 100, 300
TURNS = 5
DRAWS = 40, 100, 300
LURE_BATCH, FIRST_LABELS = 20, 20
Array = NDArray[Any]
Fit = Callable[[Array, Array], Any]


class SimulatedPool:
    """Samples in random order: a pool, and others that measure models."""

    def __init__(self, fit_model: Fit, seed: int) -> None:
        X, y = make_classification(POOL + HELD_OUT, 10, n_informative=5, flip_y=0.1, class_sep=0.8, random_state=seed)
        self.fit_model, self.seed = fit_model, seed
        self.X, self.y = X[:POOL], y[:POOL].astype(np.int32)
        self.X_test, self.y_test = X[POOL:], y[POOL:].astype(np.int32)

    def scores(self, labeled: Array) -> Array:
        """Return the margin scores of the pool by a model of some labels."""
        return margin(predict_probabilities(self.fit_model(self.X[labeled], self.y[labeled]), self.X))

    def out_of_fold(self, labeled: Array, X_test: Array, y_test: Array) -> tuple[Array, float]:
        """Return whether each label is predicted without it, and the accuracy of these models elsewhere."""
        right, accuracy = np.zeros(len(labeled), bool), 0.0
        X, y = self.X[labeled], self.y[labeled]
        for held_out, model in fit_folds(self.fit_model, X, y, self.seed, np.arange(len(y)), y):
            right[held_out] = predict_codes(model, X[held_out]) == y[held_out]
            accuracy += len(held_out) / len(y) * float((predict_codes(model, X_test) == y_test).mean())
        return right, accuracy


def uniform_project(pool: SimulatedPool, n: int) -> dict[str, float]:
    """Label n uniform samples and as many by margin, in turns, and measure."""
    uniform, chosen = np.arange(n), np.empty(0, np.int64)
    # The first model takes ten labels, and both classes.
    n_first = max(10, int((pool.y != pool.y[0]).argmax()) + 1)
    for known in np.linspace(0, n, TURNS + 1).astype(int)[1:]:
        scores = pool.scores(np.r_[uniform[: max(known, n_first)], chosen])
        scores[:n] = scores[chosen] = -1.0
        chosen = np.r_[chosen, np.argsort(-scores)[: known - len(chosen)]]
    labeled = np.r_[uniform, chosen]
    right, truth = pool.out_of_fold(labeled, pool.X_test, pool.y_test)
    n_right = int(right[:n].sum())
    of_chosen = pool.out_of_fold(chosen, pool.X_test, pool.y_test)[0]
    intervals = {
        "plain Wilson": wilson_interval(n_right, n),
        "evaluation": out_of_fold_interval(n_right, n),
        "cross-validation on chosen samples": out_of_fold_interval(int(of_chosen.sum()), n),
    }
    return {"bias": n_right / n - truth, "bias on chosen samples": of_chosen.mean() - truth} | covered(intervals, truth)


def lure_project(pool: SimulatedPool, beta: float, n: int) -> dict[str, float]:
    """Draw n samples by `power` in batches with a fit before each, label them, and measure."""
    rng = np.random.default_rng([pool.seed, 1])
    labeled, parts = rng.permutation(POOL)[:FIRST_LABELS], []
    while len(labeled) < n + FIRST_LABELS:
        scores = pool.scores(labeled)
        scores[labeled] = 0.0
        log_weights = log_powers(scores, beta)
        drawn = np.argsort(-add_gumbel_noise(log_weights, rng))[:LURE_BATCH]
        parts.append((POOL - len(labeled) - np.arange(LURE_BATCH), chances_of(log_weights, drawn).log_q))
        labeled = np.r_[labeled, drawn]
    unlabeled = np.setdiff1d(np.arange(POOL), labeled)
    right, elsewhere = pool.out_of_fold(labeled, pool.X[unlabeled], pool.y[unlabeled])
    truth = (right.sum() + elsewhere * len(unlabeled)) / POOL
    wrong, n_open, log_q = ~right[FIRST_LABELS:], *map(np.concatenate, zip(*parts, strict=True))
    before = np.cumsum(wrong) - wrong + (~right[:FIRST_LABELS]).sum()
    none = np.zeros(n, np.int64)
    bounds = right.sum() / POOL, 1 - (~right).sum() / POOL
    found = lure_accuracy(Drawn(n_open, log_q, wrong, none.astype(bool), before, none), POOL, bounds)
    values = {"truth": truth, "LURE": found.value, "mean of the same samples": 1 - wrong.mean()}
    return values | {"error": found.value - truth} | covered({"LURE's": found}, truth)


def covered(intervals: Mapping[str, Estimate], truth: float) -> dict[str, float]:
    """Return whether each interval covers a value, and how wide it is."""
    covers = {f"{name} interval covers": found.low <= truth <= found.high for name, found in intervals.items()}
    return covers | {f"{name} width": found.high - found.low for name, found in intervals.items()}


def print_table(
    rows: Mapping[str, Callable[[SimulatedPool], dict[str, float]]], pools: Sequence[SimulatedPool]
) -> None:
    """Print the means over projects of each row, and the standard deviation of errors."""
    head = None
    for name, measure in rows.items():
        every = [measure(pool) for pool in pools]
        means = {key: f"{np.mean([one[key] for one in every]):.3f}" for key in every[0]}
        if "error" in every[0]:
            means["error"] += f" ± {np.std([one['error'] for one in every]):.3f}"
        if head is None:
            head = f"| project | {' | '.join(means)} |"
            click.echo(f"{head}\n|{' --- |' * (len(means) + 1)}")
        click.echo(f"| {name} | {' | '.join(means.values())} |")
    click.echo()


@click.command()
@click.option("--projects", type=click.IntRange(1), default=200, show_default=True, help="Number of projects.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first one.")
@click.option("--estimator", type=click.Choice(list(ESTIMATORS)), default="logistic_regression", show_default=True)
@click.option("--table", "tables", type=click.Choice(["uniform", "lure"]), multiple=True, default=("uniform", "lure"))
def main(projects: int, seed: int, estimator: str, tables: tuple[str, ...]) -> None:
    """Print the tables. With 200 projects, the first takes two CPU minutes and the second three."""
    fit_model = partial(fit, ESTIMATORS[estimator], random_state=0)
    pools = [SimulatedPool(fit_model, nth) for nth in range(seed, seed + projects)]
    if "uniform" in tables:
        print_table({f"{n} uniform samples": partial(uniform_project, n=n) for n in UNIFORM_ROWS}, pools)
    if "lure" in tables:
        rows = {
            f"beta {beta:g}, {n} draws": partial(lure_project, beta=beta, n=n) for beta in (1.0, 3.0) for n in DRAWS
        }
        print_table(rows, pools)


if __name__ == "__main__":
    main()
