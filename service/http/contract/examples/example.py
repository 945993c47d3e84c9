"""An example: one request with its reply, and the ids and times of all examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Any


@dataclass(frozen=True, slots=True)
class Example:
    """One request and its reply. `parts` makes it a form of JSON parts; without a `reply` the body is not shown.

    `upload` names the operation whose last reply is the body. `form` are the fields of a form of a page.
    """

    operation: str
    title: str
    status: int
    reply: Json = None
    body: Json = None
    parts: Mapping[str, Json] | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    upload: str | None = None
    form: Mapping[str, str] | None = None


REQUEST_ID = "5e3c1b0e2f7c4a1d9b8a7c6d5e4f3a2b"
QUERY_ID = "0f6d1c52a1f34b1c8a55c1c7f0f1d2e3"
DATE = "2026-01-05"
AT = "2026-01-05T09:00:00.000000Z"
TEN_MINUTES_LATER = "2026-01-05T09:10:00.000000Z"
AN_HOUR_LATER = "2026-01-05T10:00:00.000000Z"


def problem(status: int, title: str, detail: str, pointer: str | None = None) -> Json:
    """Return the problem document of an example."""
    body = {"type": "about:blank", "title": title, "status": status}
    if pointer is None:
        return body | {"detail": detail, "request_id": REQUEST_ID}
    wrong = [{"pointer": pointer, "detail": detail}]
    return body | {"detail": f"{pointer}: {detail}", "errors": wrong, "request_id": REQUEST_ID}
