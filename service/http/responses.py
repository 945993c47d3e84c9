"""Build responses: JSON in one piece or in many, and the media type that the client prefers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import orjson
from flask import Request, Response
from werkzeug.exceptions import NotAcceptable

from service.http.media_types import JSON


def json_response(document: Any, status: int = 200) -> Response:
    """Build a reply of JSON."""
    return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), status, mimetype=JSON)


def empty_response() -> Response:
    """Build a reply that says nothing, of no media type."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def json_list(name: str, items: Iterator[Any]) -> Iterator[bytes]:
    """Write an object with one list, of frozen dataclasses say, a thousand items at a time."""
    yield b'{"' + name.encode() + b'":['
    separator = b""
    while batch := list(islice(items, 1000)):
        yield separator + orjson.dumps(batch)[1:-1]
        separator = b","
    yield b"]}"


def json_page(name: str, items: Iterable[bytes], following: int | None) -> Iterator[bytes]:
    """Write an object with a list of what is JSON already, one by one, and where the next page starts."""
    yield b'{"' + name.encode() + b'":['
    separator = b""
    for item in items:
        yield separator + item
        separator = b","
    yield b'],"next":' + orjson.dumps(following) + b"}"


def choose_media_type(request: Request, *offered: str) -> str:
    """Return the offered media type that the caller likes best, the first where there is no difference."""
    chosen = request.accept_mimetypes.best_match(offered) if request.headers.get("Accept") else offered[0]
    if chosen is None:
        raise NotAcceptable(f"this is to be had as {' or '.join(offered)}")
    return chosen
