"""A caller who looks at every reply: is it one that the contract knows, and well-formed?"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Collection
from typing import Any

from tests.support.serving import HTTPClient, Reply
from tests.torture.outcome import Tally

BROKEN = (OSError, http.client.HTTPException)
"""What a caller sees of a server that is killed: whether it did what was asked is not known."""

PROBLEM = {"type", "title", "status", "detail", "request_id"}
BUSY = 503


class Asker(HTTPClient):
    """Somebody who expects statuses, and None where the connection broke."""

    def __init__(self, port: int, tally: Tally) -> None:
        super().__init__(port)
        self.tally = tally

    def ask(
        self, method: str, path: str, body: Any = None, *, allow: Collection[int] = (200,), **more: Any
    ) -> Reply | None:
        """Send a request; None where it is not known what became of it. Busy is always a reply."""
        try:
            reply = self.call(method, path, body, **more)
        except BROKEN:
            self.tally.count("broken connections")
            time.sleep(0.05)  # until there is somebody again to answer
            return None
        self.tally.count("replies")
        self.look_at(f"{method} {path}", reply, allow)
        return reply

    def must(self, method: str, path: str, body: Any = None, *, allow: Collection[int] = (200,), **more: Any) -> Reply:
        """Ask until there is an answer, and not that somebody is busy."""
        while (reply := self.ask(method, path, body, allow=allow, **more)) is None or reply.status == BUSY:
            time.sleep(0.05)
        return reply

    def look_at(self, what: str, reply: Reply, allow: Collection[int]) -> None:
        """Keep what is wrong with a reply."""
        wrong = wrong_with(reply, allow)
        if wrong:
            self.tally.lose(f"{what}: {wrong}: {reply.status} {reply.body[:300]!r}")


def wrong_with(reply: Reply, allow: Collection[int]) -> str | None:
    """Say what is wrong with a reply, None when nothing is."""
    if reply.status not in allow and reply.status != BUSY:
        return f"another status than {sorted(allow)}"
    if "X-Request-ID" not in reply.headers:
        return "no request id"
    if reply.status == BUSY and "Retry-After" not in reply.headers:
        return "no Retry-After"
    kind = reply.headers.get_content_type()
    if reply.status >= 400:
        return None if kind == "application/problem+json" and is_problem(reply) else "no problem document"
    if kind == "application/json":
        return None if parsed(reply) is not None else "no JSON"
    return None


def is_problem(reply: Reply) -> bool:
    document = parsed(reply)
    return isinstance(document, dict) and document.keys() >= PROBLEM and document["status"] == reply.status


def parsed(reply: Reply) -> Any:
    """The JSON of a reply, None when it has none."""
    try:
        return json.loads(reply.body)
    except ValueError:
        return None


def until(holds: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait for something; whether it came."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
