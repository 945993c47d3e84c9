"""The default model against unscaled logistic regression: `python -m tests.benchmarks.default_model`.

Both learn from the same random labels of each data set. The table has the difference of their macro-F1 on the held-out
rows, in points and averaged over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from sklearn.metrics import f1_score

from service.domain.project import EstimatorSpec
from service.learning.estimators import fit, resolve_estimator
from service.learning.models import predict_probabilities
from tests.benchmarks.efficiency.data import Split, names, split

OLD = resolve_estimator("logistic_regression", {})
MODELS = {
    "`auto`": resolve_estimator("auto", {}),
    "`logistic_regression`, scaled": resolve_estimator("logistic_regression", {"scale": True}),
    "`extra_trees`": resolve_estimator("extra_trees", {"n_estimators": 100}),
}


def f1_of(spec: EstimatorSpec, data: Split, n_labels: int, seed: int) -> float:
    """Return the macro-F1 of an estimator with the first labels of a pool, in points."""
    rows = slice(n_labels)
    model = fit(spec, data.X[rows], data.y[rows], seed, len(data.X))
    predicted = model.classes_[predict_probabilities(model, data.X_test).argmax(axis=1)]
    return 100 * float(f1_score(data.y_test, predicted, average="macro"))


def gains(data: Sequence[Split], n_labels: int) -> list[float]:
    """Return how much each model gains over the old one, on average over the splits of a data set."""
    each = [
        [f1_of(spec, of_seed, n_labels, seed) - f1_of(OLD, of_seed, n_labels, seed) for spec in MODELS.values()]
        for seed, of_seed in enumerate(data)
    ]
    return np.mean(each, axis=0).tolist()


@click.command()
@click.option(
    "--data",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of .npz files with X and y, added to the data sets of scikit-learn.",
)
@click.option("--labels", "numbers", multiple=True, type=click.IntRange(2), default=(100, 200), show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Number of seeds.")
def main(folder: Path | None, numbers: Sequence[int], seeds: int) -> None:
    """Print the table of all data sets that have a pool of enough rows."""
    heads = [f"{name}, {n_labels} labels" for n_labels in numbers for name in MODELS]
    print("| data set |", " | ".join(heads), "|")
    print("| --- |" + " --- |" * len(heads))
    rows = []
    for name in names(folder):
        data = [split(name, folder, seed) for seed in range(seeds)]
        if len(data[0].X) >= 2 * max(numbers):
            rows.append([gain for n_labels in numbers for gain in gains(data, n_labels)])
            print(f"| {name} |", " | ".join(f"{gain:+.1f}" for gain in rows[-1]), "|", flush=True)
    print("| mean |", " | ".join(f"{gain:+.1f}" for gain in np.mean(rows, axis=0)), "|")


if __name__ == "__main__":
    main()
