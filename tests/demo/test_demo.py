"""`active-query demo`: its computations, and a complete run against a real service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from service.client import Client, ServiceError
from service.demo.comparisons import COMPARISONS, digits, yardstick
from service.demo.measurement import Curves, Outcome, measure_comparison
from service.demo.report import format_labels_saved, format_table, percent, summarize
from service.demo.serving import run_service
from tests.support.serving import Service

DEMO = [sys.executable, "-m", "service", "demo"]
PNG = b"\x89PNG\r\n\x1a\n"


def simulation(labels: list[int], accuracies: list[float]) -> dict[str, Any]:
    """The reply about a simulation of one run of a strategy."""
    points = zip(labels, accuracies, strict=True)
    curve = [{"n_labeled": n_labels, "mean": accuracy, "high": None} for n_labels, accuracy in points]
    return {"repeats": 1, "result": {"strategies": [{"strategy": "margin", "curve": curve}]}}


def curves(labels: list[int], *runs: list[float]) -> Curves:
    return Curves.of([simulation(labels, run) for run in runs], "margin", len(labels))


RANDOM = curves([10, 20, 30, 40, 50], [0.5, 0.6, 0.6, 0.6, 0.9], [0.5, 0.6, 0.8, 0.7, 0.7])
"""Its mean is 0.5, 0.6, 0.7, 0.65, 0.8."""


def test_curves_are_averaged_over_runs() -> None:
    both = curves([10, 20], [0.5, 0.6], [0.7, 0.6])
    assert (both.labels.tolist(), both.n_runs) == ([10, 20], 2)
    assert both.mean == pytest.approx([0.6, 0.6])
    assert both.deviation == pytest.approx([0.1, 0.0])


def test_runs_with_different_numbers_of_labels_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="same numbers of labels"):
        Curves.of([simulation([10], [0.5]), simulation([11], [0.5])], "margin", 1)


def test_the_deviation_over_the_repeats_of_a_simulation_follows_from_its_interval() -> None:
    values = np.array([0.5, 0.7, 0.9])
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    repeated = simulation([10], [values.mean()]) | {"repeats": 3}
    repeated["result"]["strategies"][0]["curve"][0]["high"] = interval.high
    assert Curves.of([repeated], "margin", 1).deviation == pytest.approx([values.std(ddof=1)])


@pytest.mark.parametrize(
    ("accuracy", "needed"), [(0.4, 10), (0.5, 10), (0.55, 20), (0.7, 30), (0.71, 50), (0.8, 50), (0.81, None)]
)
def test_labels_needed_is_where_the_mean_first_reaches_an_accuracy(accuracy: float, needed: int | None) -> None:
    assert RANDOM.labels_needed(accuracy) == needed


@pytest.mark.parametrize(
    ("n_labels", "accuracy", "saved"),
    [(10, 0.5, "0"), (20, 0.7, "10"), (20, 0.8, "30"), (20, 0.9, "> 30"), (30, 0.6, "-10"), (50, 0.9, "> 0")],
)
def test_labels_saved_is_how_many_more_random_queries_need(n_labels: int, accuracy: float, saved: str) -> None:
    assert format_labels_saved(RANDOM, n_labels, accuracy) == saved


def test_the_table_has_every_second_point_and_the_last() -> None:
    outcome = Outcome(COMPARISONS[0], curves([10, 20, 30, 40], [0.5, 0.8, 0.75, 0.9]), RANDOM)
    assert format_table(outcome, every=2).splitlines() == [
        "  labels    accuracy      random   labels saved",
        "      10      50.0 %      50.0 %              0",
        "      30      75.0 %      70.0 %             20",
        "      40      90.0 %      65.0 %           > 10",
    ]
    assert summarize(outcome) == ("50.0 % -> 90.0 % with 30 queries; random queries: 65.0 % on average over 2 seeds")


def test_the_yardstick_is_as_agreed() -> None:
    start = yardstick(0)
    assert start.X.shape == (900, 10)
    assert (start.n_labeled, len(start.y), len(start.y_test)) == (90, 900, 100)
    assert (yardstick(1).X == start.X).all()


def test_every_seed_gives_the_digits_another_split() -> None:
    start = digits(0)
    assert (start.n_labeled, len(start.y), len(start.y_test)) == (20, 1347, 450)
    assert (digits(1).X_test != start.X_test).any()
    assert (digits(0).X_test == start.X_test).all()


@pytest.mark.slow
def test_the_demo_deletes_its_simulations(serve: Callable[..., Service]) -> None:
    client = Client(f"http://127.0.0.1:{serve().port}/")
    outcome = measure_comparison(client, replace(COMPARISONS[0], n_queries=1), n_seeds=2)
    assert outcome.active.labels.tolist() == [90, 91]
    assert outcome.random.labels.tolist() == [90, 91, 92]
    with pytest.raises(ServiceError, match=r"POST /simulate: 422 .*'entropi' is not a strategy.*'entropy'"):
        measure_comparison(client, replace(COMPARISONS[0], strategy="entropi"), n_seeds=2)
    assert client.send("GET", "/simulations")["simulations"] == []


def test_a_service_that_does_not_start_shows_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--no-such-option")
    with pytest.raises(ServiceError, match=r"(?s)instead of starting.*no-such-option"), run_service():
        pass


def test_without_matplotlib_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from service.cli.main import main; main(['demo'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'active-query[demo]'" in done.stderr


@pytest.mark.slow
def test_a_terminated_demo_stops_its_service(tmp_path: Path) -> None:
    # SIGTERM has the handler of SIGINT.
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [*DEMO, "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as demo:
        assert demo.stdout is not None
        assert b"Yardstick" in demo.stdout.readline()
        demo.terminate()
        _, error = demo.communicate(timeout=60)
    assert (demo.returncode, error.strip()) == (1, b"Aborted!")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
@pytest.mark.timeout(300)  # the simulations have the lowest priority
def test_active_queries_beat_random_ones(tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, "--seeds", "1", "--out", str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "88.0 % -> 91.0 % with 20 queries" in done.stdout

    measured = json.loads((tmp_path / "curves.json").read_text())
    assert measured["yardstick"]["active"]["labels"] == list(range(90, 111))
    accuracy = measured["yardstick"]["active"]["accuracy"]
    assert (accuracy[0], accuracy[-1]) == (0.88, 0.91)
    assert measured["digits"]["active"]["labels"] == list(range(20, 301, 10))
    chosen, at_random = (measured["digits"][who]["accuracy"][28] for who in ("active", "random"))
    assert chosen > at_random
    assert f"-> {percent(chosen)} with 280 queries; random queries: {percent(at_random)}" in done.stdout
    for name in measured:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)
