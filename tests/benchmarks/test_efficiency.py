"""The label-efficiency benchmark: runs, resuming, statistics and report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import ttest_1samp

from service.learning.estimators import resolve_estimator
from tests.benchmarks.efficiency import journal
from tests.benchmarks.efficiency.__main__ import main, runs_of_defaults
from tests.benchmarks.efficiency.data import split
from tests.benchmarks.efficiency.defaults import auc_table, defaults_table, summary_table
from tests.benchmarks.efficiency.rare import count_found
from tests.benchmarks.efficiency.report import draw_all, report
from tests.benchmarks.efficiency.runs import OLD_STRATEGY, Curve, Run, execute, n_queries
from tests.benchmarks.efficiency.statistics import (
    Cell,
    Difference,
    Needed,
    against,
    area,
    by_set,
    holm,
    labels_needed,
    needed_by_set,
)

pytestmark = pytest.mark.slow

RUN = Run("blobs", "logistic_regression", "warm", 10, "auto", 0)
CELL = Cell("logistic_regression", "warm", 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of two classes."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y = np.arange(160) % 2
    np.savez(folder / "blobs.npz", X=rng.normal(size=(160, 3)) + y[:, None], y=np.array(["no", "yes"])[y])
    return folder


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of the command: the first of two runs was in the journal, followed by a truncated line."""
    out = tmp_path_factory.mktemp("efficiency")
    with journal.open_journal(out / "runs.jsonl") as file:
        journal.write(file, RUN, Curve([20, 30], {"accuracy": [0, 1], "f1_macro": [0, 1], "auc": [0, 1]}))
        file.write('{"data": "blo')
    options = ["--set", "blobs", "--strategy", "auto", "--strategy", "random", "--start", "warm", "--batch", "10"]
    options += ["--model", "logistic_regression", "--seeds", "1", "--jobs", "1", "--data", str(folder)]
    ended = CliRunner().invoke(main, [*options, "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    return out


def scored(*scores: float) -> Curve:
    return Curve([10, 20, 30][: len(scores)], {"f1_macro": list(scores)})


def runs_of(strategy: str, *curves: Curve, data: str = "a") -> Iterator[tuple[Run, Curve]]:
    """The runs of a strategy, seed by seed."""
    for seed, curve in enumerate(curves):
        yield Run(data, CELL.model, CELL.start, CELL.batch_size, strategy, seed), curve


def test_runs_in_the_journal_are_not_repeated(out):
    found = journal.read(out / "runs.jsonl")
    assert found[RUN].scores["accuracy"] == [0, 1]
    assert sorted((run.strategy, run.batch_size) for run in found) == [("auto", 10), ("random", 0), ("random", 10)]


def test_a_truncated_line_does_not_affect_the_others(out):
    lines = (out / "runs.jsonl").read_text().splitlines()
    assert [line for line in lines if not line.endswith("}")] == ['{"data": "blo']
    assert len(lines) == 4


def test_the_report_compares_with_random_selection(out):
    report = (out / "report.md").read_text()
    assert "## auto against random, by data set" in report
    assert "linear, warm, b = 10" in report


def test_the_command_plots_curves_and_differences(out):
    assert {path.name for path in out.glob("*.png")} == {"curves-linear-warm-10.png", "differences.png"}


def test_a_run_is_reproducible(folder):
    curve = execute(RUN, folder)
    assert curve == execute(RUN, folder)
    assert list(curve.labels) == [20, 30, 40, 50, 60]
    assert set(curve.scores) == {"accuracy", "balanced_accuracy", "f1_macro", "auc"}
    assert 0.5 < curve.scores["accuracy"][-1] <= 1


def test_a_cold_run_starts_without_labels(folder):
    assert execute(Run("blobs", "random_forest", "cold", 10, "random", 0), folder).labels[0] == 10


def test_the_whole_pool_is_scored_for_comparison(folder):
    assert list(execute(Run("blobs", "logistic_regression", "warm", 0, "random", 0), folder).labels) == [112]


@pytest.mark.parametrize(
    ("n_pool", "batch_size", "n"), [(112, 10, 4), (112, 100, 0), (600, 100, 3), (9000, 100, 6), (50, 1, 0), (60, 1, 16)]
)
def test_a_run_ends_before_most_of_the_pool_is_labelled(n_pool, batch_size, n):
    assert n_queries(Run("a", "logistic_regression", "warm", batch_size, "auto", 0), n_pool, 2) == n


def test_every_row_is_either_in_the_pool_or_held_out(folder):
    data = split("blobs", folder, 3)
    assert (len(data.X), len(data.X_test)) == (112, 48)
    assert len({tuple(row) for row in np.concatenate([data.X, data.X_test]).tolist()}) == 160


def test_a_class_with_a_single_row_is_refused(tmp_path):
    np.savez(tmp_path / "lone.npz", X=np.zeros((9, 2)), y=[0] * 8 + [1])
    with pytest.raises(ValueError, match="'lone' has a class of a single row"):
        split("lone", tmp_path, 0)


def test_random_alone_is_reported_without_a_comparison(tmp_path):
    runs = dict(runs_of("random", scored(0.1, 0.2), scored(0.3, 0.4)))
    assert [path.name for path in draw_all(runs, tmp_path)] == ["curves-linear-warm-10.png"]
    assert "over 2 seeds" in report(runs)


def test_the_area_is_the_mean_score_over_the_labels():
    assert area(scored(0, 1, 1), "f1_macro") == pytest.approx(0.75)


@pytest.mark.parametrize("d", [[0.1, 0.2, -0.3, 0.5], [-1.0, -2.0, -1.5], [0.01, 0.02]])
def test_differences_are_tested_as_scipy_does(d):
    found, expected = Difference.of(d), ttest_1samp(d, 0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_worse == pytest.approx(ttest_1samp(d, 0, alternative="less").pvalue)


@pytest.mark.parametrize(("d", "p"), [([-0.1, -0.1], 0.0), ([0.0, 0.0], 1.0), ([0.1, 0.1], 1.0), ([-0.1], 1.0)])
def test_constant_differences(d, p):
    assert Difference.of(d).p_worse == p


def test_holm_correction_matches_a_hand_calculation():
    assert holm([0.03, 0.01, 0.04, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])


def test_only_common_seeds_are_compared():
    runs = dict(runs_of("auto", scored(1, 1), scored(0.5, 0.5))) | dict(runs_of("random", scored(0, 1)))
    assert against(runs, "auto", "random", "f1_macro") == {("a", CELL): {0: 0.5}}


def test_cells_of_a_data_set_have_equal_weight():
    forest = Cell("random_forest", "warm", 10)
    found = by_set({("a", CELL): {0: 0.1, 1: 0.3, 2: 9.0}, ("a", forest): {0: 0.3, 1: 0.5}})
    assert (found["a"].mean, found["a"].n_seeds) == (pytest.approx(0.3), 2)


@pytest.mark.parametrize(("score", "n"), [(0.5, 20), (0.51, 30), (0.9, np.inf)])
def test_labels_needed_for_a_score(score, n):
    assert labels_needed(scored(0.1, 0.5, 0.8), "f1_macro", score) == n


def test_labels_needed_are_medians_for_95_percent_of_the_full_score():
    runs = dict(runs_of("auto", scored(0.1, 0.95, 1.0), scored(0.1, 0.2, 0.3)))
    runs |= dict(runs_of("random", scored(0.1, 0.94, 0.95), scored(0.95, 1, 1)))
    runs |= {Run("a", CELL.model, "warm", 0, "random", seed): scored(1.0) for seed in (0, 1)}
    found = needed_by_set(runs, "auto", "random", "f1_macro", [CELL])
    assert found == {"a": Needed(np.inf, 30, 1, 2, 2)}


def defaults_worked_by_hand(*seeds: int) -> dict[Run, Curve]:
    """Curves whose means over the labels are 0.5 at random and 0.75 with auto, and 0.25 and 0.5 with the old defaults.

    Random labels reach 0.8 at 200, auto does at 110; under the old model they reach 0.4, which auto does at once.
    """
    scores = {
        ("auto", "random"): [0.2, 0.5, 0.8],
        ("auto", "auto"): [0.5, 0.8, 0.9],
        ("logistic_regression", "random"): [0.1, 0.25, 0.4],
        ("logistic_regression", OLD_STRATEGY): [0.1, 0.6, 0.7],
    }
    return {
        Run("a", model, "cold", 10, strategy, seed): Curve([20, 110, 200], {"f1_macro": of_labels, "auc": of_labels})
        for (model, strategy), of_labels in scores.items()
        for seed in seeds
    }


def cells_of_first_row(table: str) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]


def test_the_table_of_defaults_worked_by_hand():
    row = cells_of_first_row(defaults_table(defaults_worked_by_hand(0)))
    assert row == ["a", "", "+25.0 / -", "", "110", "+25.0", "110", "+25.0", "20"]


def test_a_difference_that_is_the_same_for_all_seeds_is_significant():
    runs = defaults_worked_by_hand(0, 1)
    assert cells_of_first_row(defaults_table(runs))[2] == "+25.0* / -"
    assert cells_of_first_row(auc_table(runs)) == ["a", "", "+25.0* / -", ""]


def test_the_summary_of_the_defaults_counts_data_sets():
    runs = defaults_worked_by_hand(0, 1)
    runs |= {replace(run, data="b"): curve for run, curve in runs.items() if run.strategy == "auto"}
    runs |= {Run("b", "auto", "cold", 10, "random", seed): Curve([20, 200], {"f1_macro": [1, 1]}) for seed in (0, 1)}
    row = cells_of_first_row(summary_table(runs))
    assert row == ["macro-F1, b = 10", "auto less random", "1 of 2", "1", "1", "1", "+0.0", "-25.0 (b)", "1"]


def test_the_runs_of_the_defaults_start_with_the_quickest():
    every, short = (list(runs_of_defaults(["a"], is_short=is_short)) for is_short in (False, True))
    assert [run.batch_size for run in every] == 9 * [100] + 15 * [10] + 9 * [1]
    assert [(run.batch_size, run.strategy) for run in short[3:]] == [
        *((10, "random"), (10, "margin"), (10, "auto")),
        *((10, "random"), (10, "old_auto")),
    ]


def test_the_old_strategy_is_queried_by_its_parameters(folder):
    labels = execute(Run("blobs", "logistic_regression", "cold", 10, OLD_STRATEGY, 0), folder).labels
    assert list(labels) == [10, 20, 30, 40, 50, 60]


def test_random_labels_need_no_fit_between_scores(folder, monkeypatch):
    monkeypatch.setattr("tests.benchmarks.efficiency.runs.SCORED_EVERY", {10: 2})
    curve = execute(Run("blobs", "logistic_regression", "cold", 10, "random", 0), folder)
    assert list(curve.labels) == [20, 40, 60]
    assert min(curve.scores["auc"]) > 0.7


def test_rare_rows_are_counted(monkeypatch):
    monkeypatch.setattr("tests.benchmarks.efficiency.rare.MODEL", resolve_estimator("gaussian_nb", {}))
    rng = np.random.default_rng(0)
    y = (np.arange(400) < 7).astype(np.int64)
    X = rng.normal(size=(400, 2)) + 9 * y[:, np.newaxis]
    at_random, chosen = (count_found(X, y, strategy, 0) for strategy in ("random", "anchor_al"))
    assert at_random < chosen <= 5


def test_a_journal_is_read_as_written(tmp_path):
    path = tmp_path / "deep" / "runs.jsonl"
    with journal.open_journal(path) as file:
        journal.write(file, RUN, scored(0.25))
    assert journal.read(path) == {RUN: scored(0.25)}
    assert json.loads(path.read_text())["strategy"] == "auto"
