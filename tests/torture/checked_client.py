"""An HTTP client that checks every reply: the status must be expected and the reply well-formed."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Collection
from typing import Any

from tests.support.serving import HTTPClient, Reply
from tests.torture.outcome import Tally

CONNECTION_ERRORS = (OSError, http.client.HTTPException)
"""Raised when the server is killed; whether it carried out the request is unknown."""

PROBLEM_FIELDS = {"type", "title", "status", "detail", "request_id"}
BUSY = 503


class CheckedClient(HTTPClient):
    """Counts replies and connection errors, and reports unexpected or malformed replies as failures."""

    def __init__(self, port: int, tally: Tally) -> None:
        super().__init__(port)
        self.tally = tally

    def request(
        self, method: str, path: str, body: Any = None, *, allow: Collection[int] = (200,), **more: Any
    ) -> Reply | None:
        """Send a request. Return None if the connection broke. A 503 is always allowed."""
        try:
            reply = self.call(method, path, body, **more)
        except CONNECTION_ERRORS:
            self.tally.count("broken connections")
            time.sleep(0.05)  # gives a new worker time to start
            return None
        self.tally.count("replies")
        self.check_reply(f"{method} {path}", reply, allow)
        return reply

    def fetch(self, method: str, path: str, body: Any = None, *, allow: Collection[int] = (200,), **more: Any) -> Reply:
        """Repeat a request until it gets a reply other than 503."""
        while (reply := self.request(method, path, body, allow=allow, **more)) is None or reply.status == BUSY:
            time.sleep(0.05)
        return reply

    def check_reply(self, what: str, reply: Reply, allow: Collection[int]) -> None:
        """Report a reply that is unexpected or malformed."""
        problem = problem_with(reply, allow)
        if problem:
            self.tally.fail(f"{what}: {problem}: {reply.status} {reply.body[:300]!r}")


def problem_with(reply: Reply, allow: Collection[int]) -> str | None:
    """Describe the first problem of a reply, or return None."""
    if reply.status not in allow and reply.status != BUSY:
        return f"status not in {sorted(allow)}"
    if "X-Request-ID" not in reply.headers:
        return "X-Request-ID is missing"
    if reply.status == BUSY and "Retry-After" not in reply.headers:
        return "Retry-After is missing"
    kind = reply.headers.get_content_type()
    if reply.status >= 400:
        return None if kind == "application/problem+json" and is_problem_document(reply) else "not a problem document"
    if kind == "application/json":
        return None if json_or_none(reply) is not None else "invalid JSON"
    return None


def is_problem_document(reply: Reply) -> bool:
    document = json_or_none(reply)
    return isinstance(document, dict) and document.keys() >= PROBLEM_FIELDS and document["status"] == reply.status


def json_or_none(reply: Reply) -> Any:
    """Return the parsed body, or None if it is not JSON."""
    try:
        return json.loads(reply.body)
    except ValueError:
        return None


def wait_for(holds: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait until a condition holds; return False on timeout."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
