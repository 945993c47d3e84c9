"""The feed of events: a request that waits for the next one."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support.calls import get, line_pool, post
from tests.support.serving import Service

LABEL = {"project_id": "p", "labels": [{"index": 1, "label": "b"}], "refit": "never"}


def test_waiting_requests_leave_the_only_thread_to_others(serve: Callable[..., Service]) -> None:
    service = serve(AQ_WORKERS="1", AQ_THREADS="1")
    service.post("/fit", {"project_id": "p", "X": line_pool(4), "y": ["a", None, None, None]}, 201)
    replies: list[Any] = []
    path = "/projects/p/events?after=1&wait=30"
    waiting = [Thread(target=lambda: replies.append(service.call("GET", path))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    began = time.monotonic()
    time.sleep(1)
    service.post("/label", LABEL)
    for thread in waiting:
        thread.join(20)
    assert time.monotonic() - began < 20
    assert [[event["version"] for event in reply.json["events"]] for reply in replies] == [[2]] * 3


def test_an_event_that_is_there_or_does_not_come_is_not_waited_for_long(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(4), y=["a", None, None, None])
    began = time.monotonic()
    assert len(get(client, "/projects/p/events?after=0&wait=30")["events"]) == 1
    get(client, "/projects/q/events?wait=30", 404)
    assert time.monotonic() - began < 15
    assert get(client, "/projects/p/events?after=1&wait=1")["events"] == []


@pytest.mark.parametrize("wait", ["-1", "61", "x", "1.5"])
def test_a_wrong_wait_is_refused(client: FlaskClient, wait: str) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(4))
    [error] = get(client, f"/projects/p/events?wait={wait}", 422)["errors"]
    assert error["pointer"] == "/query/wait"
