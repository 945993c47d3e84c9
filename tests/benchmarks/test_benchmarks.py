"""The benchmark command and its measuring tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.load import Load, python_rate, requests_per_second
from tests.benchmarks.measure import PeakMemory, cpu_milliseconds, in_turns
from tests.benchmarks.report import LINES
from tests.benchmarks.rows import at_most, faster, times
from tests.benchmarks.small import Empty, query_body
from tests.support.serving import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # starting processes takes long on a busy machine
ROOT = Path(__file__).parents[2]
MB = 2**20


@pytest.fixture(scope="module")
def command_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Run the command for two rows; return its output and its output directory."""
    out = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--rows", "6", "--rows", "7", "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, out


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Empty]:
    """The almost empty endpoint."""
    directory = tmp_path_factory.mktemp("empty")
    service = Empty(directory / "data", directory / "log").start()
    yield service
    service.kill()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_command_prints_a_table_of_comparisons_and_one_of_sizes(command_run):
    tables = [cells(line) for line in command_run[0].splitlines() if line.startswith("|")]
    assert tables[0] == ["", "work", "measured", "compared with", "", "ratio", "bar", "reached"]
    assert [line[6] for line in tables[2:4]] == ["at least 20 x", ""]
    sizes = tables.index(["rows", *(name for name, _ in LINES.values()), "own memory"])
    assert [line[0] for line in tables[sizes + 2 :]] == ["2,000"]


def test_the_command_writes_all_numbers_as_json(command_run):
    result = json.loads((command_run[1] / "benchmarks.json").read_text())
    assert {"measured", "command", "machine", "versions", "rows", "cost", "profile", "clients"} == result.keys()
    assert {"numpy", "scikit-learn", "gunicorn"} < result["versions"].keys()
    assert [row["number"] for row in result["rows"]] == [6] * len(result["rows"])
    assert all(row["measured"] > 0 and row["samples"] for row in result["rows"])  # a slow library is timed once
    assert all(cost["fit"] > 0 and cost["query_again"] > 0 and cost["label"] > 0 for cost in result["cost"])


def test_the_command_plots_cost_against_pool_size(command_run):
    picture = (command_run[1] / "cost.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 10_000


@pytest.mark.parametrize(
    ("row", "ratio", "reached"),
    [
        (times(1, "w", [3, 30, 2], "ms", "t", [2, 2], at_most=1.5), 1.5, True),
        (times(1, "w", [4], "ms", "t", [2], at_most=1.5), 2, False),
        (times(1, "w", [50], "/s", "t", [100], at_least=0.6), 0.5, False),
        (times(1, "w", [50], "/s", "t", [100]), 0.5, None),
        (faster(1, "w", [10], "t", [200], 20), 20, True),
        (faster(1, "w", [10], "t", [199], 20), 19.9, False),
        (faster(1, "w", [10], "not installed", [], 20), None, None),
        (at_most(1, "w", 30, "ms", 30), None, True),
        (at_most(1, "w", 31, "ms", 30), None, False),
    ],
)
def test_a_row_tells_the_ratio_of_medians_and_whether_it_is_good_enough(row, ratio, reached):
    assert (row.ratio, row.reached) == (ratio, reached)


def test_measurements_are_taken_in_turns_and_backwards_every_other_time():
    taken: list[str] = []

    def measure(name: str) -> float:
        taken.append(name)
        return float(len(taken))

    assert in_turns(3, lambda: measure("a"), lambda: measure("b")) == [[1, 4, 5], [2, 3, 6]]
    assert "".join(taken) == "abbaab"


def test_peak_memory_includes_a_short_allocation():
    with PeakMemory([os.getpid()]) as memory:
        held = bytearray(os.urandom(64 * MB))
        wait_until(lambda: memory.growth_mb > 60)
        del held
    assert memory.growth_mb < 200


def test_cpu_time_is_that_of_the_process():
    before, own = cpu_milliseconds([os.getpid()]), time.process_time()
    while time.process_time() - own < 0.2:
        sum(range(1000))
    used = cpu_milliseconds([os.getpid()]) - before
    time.sleep(0.2)
    assert used == pytest.approx(200, abs=40)
    assert cpu_milliseconds([os.getpid()]) - before == pytest.approx(used, abs=40)


@pytest.mark.parametrize("generator", [requests_per_second, python_rate])
def test_a_load_generator_counts_responses_and_raises_on_an_error(empty, generator):
    bodies = ((query_body("a"), query_body("b")), (query_body("c"),))
    assert generator(empty.port, Load("/empty", bodies), 1) > 1
    with pytest.raises(RuntimeError, match="/nowhere"):
        generator(empty.port, Load("/nowhere", bodies), 1)
