"""Metrics: each event is counted once, including those of dead workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MultiProcessValue

from service.errors import FitFailed, TooBusy
from service.store import Store
from service.telemetry import metrics
from service.telemetry.metrics import CATALOGUE
from service.telemetry.multiprocess import count_files, end_worker, free_number, worker_number, worker_pids
from service.telemetry.procfs import read_usage
from service.usecases.totals import Totals, TotalsCounter
from tests.support.calls import end_labels, get, line_pool, post
from tests.support.prometheus import lint_metrics, metric_families, metric_value
from tests.support.serving import wait_until


def scrape(client: FlaskClient) -> str:
    return client.get("/metrics").get_data(as_text=True)


def grown(client: FlaskClient, before: str, name: str, **labels: str) -> float:
    """The increase of a metric since an earlier scrape: other tests of this process count, too."""
    return metric_value(scrape(client), name, **labels) - metric_value(before, name, **labels)


def test_a_single_process_counts_in_memory(client: FlaskClient) -> None:
    assert worker_number() is None
    before = scrape(client)
    get(client, "/healthz")
    assert grown(client, before, "active_query_requests_total", route="/healthz", status="200", method="GET") == 1


def test_the_linter_of_prometheus_has_no_complaint(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    post(client, "/query", project_id="p")
    text = scrape(client)
    assert lint_metrics(text) == []
    assert set(metric_families(text)) == {each.name.removesuffix("_total") for each in CATALOGUE}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# HELP active_query_a A.\n# TYPE active_query_a gauge\nactive_query_a 1\nactive_query_a 1\n", "duplicated"),
        ("# HELP active_query_a A\n# TYPE active_query_a gauge\nactive_query_a 1\n", "no help sentence"),
        ("# HELP other A.\n# TYPE other gauge\nother 1\n", "does not start with"),
        ("# HELP active_query_a_sum A.\n# TYPE active_query_a_sum gauge\nactive_query_a_sum 1\n", "suffix of a"),
        ("# HELP active_query_a A.\n# TYPE active_query_a summary\nactive_query_a_sum 1\n", "type summary"),
    ],
)
def test_the_linter_reports_each_problem(text: str, complaint: str) -> None:
    assert [each for each in lint_metrics(text) if complaint in each]


def test_callers_cannot_create_time_series(client: FlaskClient) -> None:
    for number in range(20):
        client.open(f"/made-up-{number}", method=f"MADE{number}")
        client.open(f"/projects/made-up-{number}", method=f"MADE{number}")
        client.get(f"/projects/made-up-{number}?made-up-{number}=1")
        post(client, "/query", 422, project_id="p", strategy=f"made-up-{number}")
    text = scrape(client)
    assert "made-up" not in text
    assert "MADE" not in text
    assert metric_value(text, "active_query_requests_total", method="other", route="none", status="404") >= 20


def test_metrics_name_no_project(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="secret-plan", X=line_pool(), y=end_labels())
    post(client, "/query", project_id="secret-plan")
    assert "secret-plan" not in scrape(client)


def test_a_query_is_timed_by_its_strategy_unless_it_is_cached(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    before = scrape(client)
    for _ in range(3):
        post(client, "/query", project_id="p", strategy="entropy")
    assert grown(client, before, "active_query_query_seconds_count", strategy="entropy") == 1
    assert grown(client, before, "active_query_cache_hits_total", kind="answer") == 2
    assert grown(client, before, "active_query_cache_misses_total", kind="answer") == 1
    assert grown(client, before, "active_query_cache_hits_total", kind="state") >= 3


@pytest.mark.parametrize(("values", "n_timed"), [((1.0, 2.0), 1), ((2.0, 2.0), 3)], ids=["no ties", "ties"])
def test_a_batch_without_ties_is_selected_once_for_all_seeds(
    client: FlaskClient, values: tuple[float, float], n_timed: int
) -> None:
    post(client, "/fit", 201, project_id="p", X=[[0.0], [9.0], *([value] for value in values)], y=[0, 1, None, None])
    before = scrape(client)
    for seed in range(3):
        post(client, "/query", project_id="p", strategy="entropy", random_state=seed)
    assert grown(client, before, "active_query_query_seconds_count", strategy="entropy") == n_timed
    assert grown(client, before, "active_query_cache_hits_total", kind="answer") == 3 - n_timed


def test_a_query_without_a_project_is_timed(client: FlaskClient) -> None:
    before = scrape(client)
    post(client, "/query", probabilities=[[0.5, 0.5], [0.9, 0.1]], strategy="ratio")
    assert grown(client, before, "active_query_query_seconds_count", strategy="ratio") == 1


def test_evidence_is_timed_unless_it_is_cached_and_predictions_are_counted(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    before = scrape(client)
    for path in ("evaluation", "report", "report", "predictions"):
        assert client.get(f"/projects/p/{path}").status_code == 200
    for kind in ("evaluation", "report"):
        assert grown(client, before, "active_query_evidence_seconds_count", kind=kind) == 1
    assert grown(client, before, "active_query_predictions_total") == len(line_pool())


def test_a_fit_is_timed(client: FlaskClient) -> None:
    before = scrape(client)
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), estimator="gaussian_nb")
    labels = {"estimator": "gaussian_nb", "mode": "foreground", "outcome": "fitted"}
    assert grown(client, before, "active_query_fit_seconds_count", **labels) == 1


@pytest.mark.parametrize(("error", "outcome"), [(FitFailed("no"), "failed"), (MemoryError(), "error")])
def test_a_failed_fit_has_its_own_outcome(client: FlaskClient, error: Exception, outcome: str) -> None:
    before = scrape(client)
    with pytest.raises(type(error)), metrics.in_background(), metrics.time_fit("svc"):
        assert metric_value(scrape(client), "active_query_background_fits") == 1
        raise error
    assert grown(client, before, "active_query_fit_seconds_count", mode="background", outcome=outcome) == 1
    assert metric_value(scrape(client), "active_query_background_fits") == 0


def test_refusals_are_counted_by_reason(client: FlaskClient) -> None:
    before = scrape(client)
    metrics.count_refusal(TooBusy(4))
    assert grown(client, before, "active_query_refused_total", reason="too_busy") == 1


def test_waits_for_locks_are_timed_by_kind(client: FlaskClient) -> None:
    before = scrape(client)
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    post(client, "/label", project_id="p", labels=[{"index": 3, "label": 1}])
    assert grown(client, before, "active_query_lock_wait_seconds_count", kind="project") >= 2
    assert grown(client, before, "active_query_lock_wait_seconds_count", kind="fit") == 1
    assert grown(client, before, "active_query_lock_wait_seconds_count", kind="gate") >= 3


def test_a_scrape_is_the_only_request_in_progress(client: FlaskClient) -> None:
    context = client.application.test_request_context()
    context.push()
    context.pop()  # a request that ended before it was counted
    assert metric_value(scrape(client), "active_query_requests_in_flight") == 1


def test_the_totals_are_those_of_all_projects(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="one", X=line_pool(), y=end_labels())
    post(client, "/fit", 201, project_id="two", X=line_pool(30))
    answers = [{"index": 3, "label": 1}, {"index": 4, "skip": True}]
    post(client, "/label", project_id="one", labels=answers, refit="never")
    text = scrape(client)
    numbers = {"projects": 2, "samples": 50, "labeled_samples": 3, "skipped_samples": 1, "labels_since_fit": 1}
    for name, number in {**numbers, "fits_due": 1, "fits_failed": 0, "projects_unreadable": 0}.items():
        assert metric_value(text, f"active_query_{name}") == number, name
    client.delete("/projects/one")
    assert metric_value(scrape(client), "active_query_samples") == 30


def test_current_leases_are_counted(client: FlaskClient, store: Store) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    for annotator, batch_size in (("ada", 2), ("bob", 3)):
        lease = {"annotator": annotator, "lease_seconds": 60, "batch_size": batch_size}
        asked = post(client, "/query", project_id="p", **lease)
    counter = TotalsCounter(store)
    assert (counter.count().leases, counter.count().leased_samples) == (2, 5)
    post(client, "/label", project_id="p", labels=[{"index": asked["indices"][0], "label": 1}], refit="never")
    assert (counter.count().leases, counter.count().leased_samples) == (2, 4)
    client.delete(f"/projects/p/leases/{asked['query_id']}")
    assert (counter.count().leases, counter.count().leased_samples) == (1, 2)


def test_an_expired_lease_is_not_counted(client: FlaskClient, store: Store) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    post(client, "/query", project_id="p", annotator="ada", lease_seconds=2)
    counter = TotalsCounter(store)
    assert counter.count().leases == 1
    wait_until(lambda: counter.count().leases == 0)


def test_unreadable_projects_are_counted(client: FlaskClient, tmp_path: Path) -> None:
    for name in ("one", "two"):
        post(client, "/fit", 201, project_id=name, X=line_pool(), y=end_labels())
    (tmp_path / "data/projects/one/state.joblib").write_bytes(b"rubbish")
    text = scrape(client)
    assert metric_value(text, "active_query_projects") == 2
    assert metric_value(text, "active_query_projects_unreadable") == 1
    assert metric_value(text, "active_query_samples") == 20


def test_an_unchanged_state_is_read_for_one_scrape_only(
    client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    read: list[str] = []
    peek = store.peek
    monkeypatch.setattr(store, "peek", lambda project_id: (read.append(project_id), peek(project_id))[1])
    counter = TotalsCounter(store)
    assert counter.count() == counter.count() == Totals(projects=1, samples=20, labeled_samples=2)
    assert read == ["p"]
    post(client, "/label", project_id="p", labels=[{"index": 3, "label": 1}])
    assert counter.count().labeled_samples == 3


def test_a_scrape_with_too_little_time_says_so(client: FlaskClient, store: Store) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    assert TotalsCounter(store, seconds=-1).count() == Totals(projects_passed_over=1)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of counters."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def count_and_die(number: int, kind: str = "counter", mode: str = "") -> None:
    """Count once in a new process with the number of a worker, and exit without cleanup."""
    value = MultiProcessValue(lambda: number)(kind, "m", "m_total", ["a"], ["x"], "Help.", mode)
    value.inc(1.0)
    value._file.close()


def total(directory: Path) -> float:
    """The sum of all counts."""
    return sum(sample.value for each in MultiProcessCollector.merge(count_files(directory)) for sample in each.samples)


def test_a_thousand_dead_workers_lose_no_count_and_leave_two_files(shared: Path) -> None:
    for n_counts in range(1, 1_001):
        count_and_die(n_counts % 2)
        if n_counts % 100 == 0:
            assert total(shared) == n_counts
    assert sorted(path.name for path in shared.iterdir()) == ["counter_0.db", "counter_1.db"]


def test_the_gauges_of_a_dead_worker_end_and_its_counts_stay(shared: Path) -> None:
    for number in (0, 1):
        count_and_die(number)
        count_and_die(number, "gauge", "livesum")
        (shared / f"pid_{70 + number}").touch()
    end_worker(shared, 0, 70)
    assert {path.name for path in shared.iterdir()} == {
        *("counter_0.db", "counter_1.db", "gauge_livesum_1.db", "pid_71")
    }
    assert worker_pids(shared) == [71]


@pytest.mark.parametrize(("taken", "free"), [(set(), 0), ({0, 1}, 2), ({0, 2}, 1)])
def test_a_new_worker_takes_the_smallest_free_number(taken: set[int], free: int) -> None:
    assert free_number(taken) == free


def test_an_empty_file_of_a_starting_worker_is_not_read(shared: Path) -> None:
    (shared / "counter_7.db").touch()
    count_and_die(8)
    assert total(shared) == 1


def test_the_usage_of_this_process_is_plausible() -> None:
    taken = read_usage(os.getpid(), [os.getpid()])
    assert taken.workers == 1
    assert taken.memory_bytes > 2**20
    assert taken.cpu_seconds > 0
    assert 0 < taken.open_files < taken.open_files_limit
    assert abs(taken.start_time_seconds - Path(f"/proc/{os.getpid()}").stat().st_ctime) < 60


def test_the_cpu_time_of_an_exited_child_is_included() -> None:
    work = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: sum(range(1000))"]
    before = read_usage(os.getpid(), [os.getpid()]).cpu_seconds
    subprocess.run(work, check=True)
    assert read_usage(os.getpid(), [os.getpid(), 2**22 + 1]).cpu_seconds > before + 0.15
