"""Places are given in the order of asking."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.compute import admission
from service.compute.admission import AdmissionLimit
from service.compute.places import Places
from service.compute.waiting import YIELD_SLOT
from service.errors import TooBusy
from tests.support.serving import wait_until


def test_places_are_given_in_the_order_of_asking() -> None:
    places, served = Places(1), []
    assert places.take()

    def ask(number: int) -> None:
        assert places.take(60)
        served.append(number)
        places.give_back()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for nth, thread in enumerate(threads, 1):
        thread.start()
        wait_until(lambda nth=nth: places.n_waiting == nth)
    assert not places.take()
    places.give_back()
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4]
    assert places.take()


def test_who_gave_up_waiting_takes_no_place() -> None:
    places = Places(1)
    assert places.take()
    assert not places.take(0.01)
    places.give_back()
    assert places.take()


def test_waiting_takes_no_cpu() -> None:
    places = Places(0)
    before = time.thread_time()
    assert not places.take(0.3)
    assert time.thread_time() - before < 0.05


def test_a_request_that_yields_its_slot_waits_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ADMISSION_WAIT_SECONDS", 0.01)
    limit, yielded = AdmissionLimit(1), []

    @contextmanager
    def yield_slot(seconds: float) -> Iterator[None]:
        yielded.append(seconds)
        threading.Timer(0.1, first.close).start()
        yield

    first = EnteredLimit(limit)
    with pytest.raises(TooBusy), limit.enter():
        raise AssertionError
    token = YIELD_SLOT.set(yield_slot)
    try:
        with limit.enter():
            assert yielded == [admission.LONGEST_WAIT_SECONDS]
    finally:
        YIELD_SLOT.reset(token)


class EnteredLimit:
    """A request in progress, until it is closed."""

    def __init__(self, limit: AdmissionLimit) -> None:
        self.place = limit.enter()
        self.place.__enter__()

    def close(self) -> None:
        self.place.__exit__(None, None, None)


def test_too_many_waiting_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_WAITING", 0)
    limit = AdmissionLimit(0)
    token = YIELD_SLOT.set(lambda seconds: pytest.fail("nothing is waited for"))
    try:
        with pytest.raises(TooBusy), limit.enter():
            raise AssertionError
    finally:
        YIELD_SLOT.reset(token)
