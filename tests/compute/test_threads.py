"""Work in threads: every item runs, errors are raised, and little work does not wait for much."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import pytest

from service.compute import threads
from service.compute.threads import n_cores, run_in_threads, threads_for_fit


@pytest.mark.parametrize("n_items", [0, 1, 2, 3, 1000])
def test_every_item_is_worked_on_once(n_items):
    seen: list[int] = []
    run_in_threads(seen.append, range(n_items))
    assert sorted(seen) == list(range(n_items))


def test_an_error_ends_the_work_and_is_raised():
    seen: list[int] = []

    def work(item):
        seen.append(item)
        time.sleep(0.001)
        if item == 3:
            raise ValueError("item 3")

    with pytest.raises(ValueError, match="item 3"):
        run_in_threads(work, range(10_000))
    assert len(seen) < 100


def test_little_work_does_not_wait_behind_much():
    release, begun = threading.Event(), threading.Semaphore(0)

    def long(_):
        begun.release()
        assert release.wait(30)

    with ThreadPoolExecutor(n_cores() + 1) as callers:
        others = [callers.submit(run_in_threads, long, range(50)) for _ in range(n_cores())]
        for _ in others:
            begun.acquire()
        done: list[int] = []
        run_in_threads(done.append, range(5))
        assert sorted(done) == list(range(5))
        release.set()
        for other in others:
            other.result()


def test_only_one_fit_at_a_time_uses_all_cores(monkeypatch):
    monkeypatch.setattr(threads, "n_cores", lambda: 3)
    seen = []

    def fit_meanwhile():
        with threads_for_fit():
            seen.append(joblib.effective_n_jobs(None))

    with threads_for_fit():
        seen.append(joblib.effective_n_jobs(None))
        other = threading.Thread(target=fit_meanwhile)
        other.start()
        other.join()
    fit_meanwhile()
    assert seen == [3, 1, 3]
    assert joblib.effective_n_jobs(None) == 1


def test_a_fit_computes_in_threads_on_the_cores_that_it_has_taken(monkeypatch):
    monkeypatch.setattr(threads, "n_cores", lambda: 2)
    both = threading.Barrier(2)
    with threads_for_fit():
        run_in_threads(lambda _: both.wait(30), range(2))
    assert not both.broken


def test_work_in_threads_uses_no_core_of_another(monkeypatch):
    """Two callers on three cores: the second finds one core less than the first left."""
    monkeypatch.setattr(threads, "n_cores", lambda: 3)
    seen = []

    def work(_):
        seen.append(threading.current_thread().name)
        time.sleep(0.01)

    with threads.count_thread(), threads.idle_cores(2) as n_idle:
        other = threading.Thread(target=run_in_threads, args=(work, range(20)), name="caller")
        other.start()
        other.join()
    assert n_idle == 2
    assert set(seen) == {"caller"}
    with threads.idle_cores(5) as n_idle:
        assert n_idle == 3
