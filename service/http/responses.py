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
    """Return a JSON response."""
    return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), status, mimetype=JSON)


def empty_response() -> Response:
    """Return a 204 response, which has no media type."""
    response = Response(status=204)
    del response.headers["Content-Type"]
    return response


def json_list(name: str, items: Iterator[Any], **others: Any) -> Iterator[bytes]:
    """Yield the JSON of an object with a list, a thousand items at a time, and other members.

    Items may be frozen dataclasses.
    """
    yield b'{"' + name.encode() + b'":['
    separator = b""
    while batch := list(islice(items, 1000)):
        yield separator + orjson.dumps(batch)[1:-1]
        separator = b","
    yield b"]" + (b"," + orjson.dumps(others)[1:] if others else b"}")


def json_page(name: str, items: Iterable[bytes], following: int | None) -> Iterator[bytes]:
    """Yield the JSON of an object with a list of items, which are JSON already, and the start of the next page."""
    yield b'{"' + name.encode() + b'":['
    separator = b""
    for item in items:
        yield separator + item
        separator = b","
    yield b'],"next":' + orjson.dumps(following) + b"}"


def choose_media_type(request: Request, *offered: str) -> str:
    """Return the offered media type that the client prefers, the first of equals. Raises NotAcceptable."""
    chosen = request.accept_mimetypes.best_match(offered) if request.headers.get("Accept") else offered[0]
    if chosen is None:
        raise NotAcceptable(f"this is available as {' or '.join(offered)}")
    return chosen
