"""From bytes to a document: one reader of bodies, for JSON and for multipart with arrays; and JSON back.

gunicorn hands a body that is shorter than announced to the application as if it were complete, so every byte is
counted here. Nothing is read past a limit, and nothing large is ever held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from flask import Request, Response
from gunicorn.http.errors import ParseException
from werkzeug.datastructures import Headers
from werkzeug.exceptions import (
    BadRequest,
    LengthRequired,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from service.errors import FieldError, InvalidRequest
from service.http.npy import MAGIC, MatrixSink, read_column
from service.parameters import pointer_token
from service.store.files import disk
from service.store.staging import Staging

JSON = "application/json"
NPY = "application/x-npy"
MULTIPART = "multipart/form-data"

READ_BYTES = 2**18
MAX_PARTS = 16
MAX_PART_HEADER_BYTES = 2**14

MATRICES = ("X", "X_test")
COLUMNS = ("y", "ids", "y_test")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of what is read: bytes of a body, bytes of a JSON document, cells of a matrix."""

    body_bytes: int
    json_bytes: int
    cells: int


@dataclass(frozen=True, slots=True)
class StagedMatrix:
    """A matrix that has been checked and lies in a staged file."""

    path: Path


def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """Read a JSON object from the body. Raises the 4xx of werkzeug that fits."""
    refuse_media_type(request, JSON)
    return json_object(b"".join(body_chunks(request, limits.body_bytes, limits.json_bytes)))


def read_document(request: Request, limits: Limits, staging: Staging) -> dict[str, Any]:
    """Read a JSON object, or a multipart form whose arrays stand in for the fields of their names."""
    refuse_media_type(request, JSON, MULTIPART)
    return read_form(request, limits, staging) if request.mimetype == MULTIPART else read_json(request, limits)


def refuse_media_type(request: Request, *accepted: str) -> None:
    """Raise UnsupportedMediaType unless the body is of a type that is understood, and not encoded."""
    if request.mimetype not in accepted:
        given = f"not {request.mimetype[:100]!r}" if request.mimetype else "and none was given"
        raise UnsupportedMediaType(f"the Content-Type must be {' or '.join(accepted)}, {given}")
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType(f"send the body without Content-Encoding; {encoding[:100]!r} is not understood")


def body_chunks(request: Request, *limits: int) -> Iterator[bytes]:
    """Read the body in pieces, counting them.

    Raises LengthRequired, RequestEntityTooLarge past the smallest limit, and BadRequest where the body ends before
    its Content-Length.
    """
    limit = min(limits)
    chunked = request.environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower() == "chunked"
    length = None if chunked else request.content_length
    if length is None and not chunked:
        raise LengthRequired("send a Content-Length, or Transfer-Encoding: chunked")
    too_large = RequestEntityTooLarge(
        f"the body is larger than {limit} bytes; a large pool comes as {MULTIPART} with .npy parts"
    )
    if length is not None and length > limit:
        raise too_large
    stream: BinaryIO = request.environ["wsgi.input"]
    n_read = 0
    while length is None or n_read < length:
        data = read_some(stream, READ_BYTES if length is None else min(READ_BYTES, length - n_read))
        n_read += len(data)
        if n_read > limit:
            raise too_large
        if data:
            yield data
        elif length is None:
            return
        else:
            raise BadRequest(f"the body ends after {n_read} of the {length} bytes that its Content-Length announces")


def read_some(stream: BinaryIO, size: int) -> bytes:
    """Read from the server's stream; a client that breaks off or sends a broken chunk is at fault, not the service."""
    try:
        return stream.read(size)
    except (OSError, ParseException) as error:
        raise BadRequest("the body could not be read to its end") from error


def json_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object, or raise BadRequest."""
    document = parse_json(data)
    if not isinstance(document, dict):
        raise InvalidRequest.at("", "the body must be a JSON object")
    return document


def parse_json(data: bytes, what: str = "the body") -> Any:
    """Parse a JSON document, or raise BadRequest saying where it breaks off."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{what} is not JSON: {error}") from None


class Spool:
    """Takes the bytes of a part that is small, or that has to be seen whole, into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb")

    def write(self, data: bytes) -> None:
        """Append the next bytes."""
        with disk():
            self._file.write(data)

    def close(self) -> Path:
        """Return the file, now that all bytes have come."""
        with disk():
            self._file.close()
        return self.path

    def abandon(self) -> None:
        """Close the file of a part that will not be finished; nobody misses what it lacks."""
        with suppress(OSError):
            self._file.close()


class Part:
    """One part of a form: looks at how it begins, and sends its bytes where they belong."""

    def __init__(self, name: str, headers: Headers, limits: Limits, staging: Staging) -> None:
        self.name = name
        self.limits = limits
        self.staging = staging
        self.media_type = parse_options_header(headers.get("Content-Type"))[0].lower()
        self._head = b""
        self._sink: MatrixSink | Spool | None = None
        self._is_npy = False

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._sink is None:
            self._head += data
            if len(self._head) < len(MAGIC):
                return
            data, self._head = self._head, b""
            self._sink = self._open(data)
        self._sink.write(data)

    def close(self) -> Any:
        """Return the field's value: parsed JSON, a column, or a matrix in its staged file."""
        if self._sink is None:
            self._sink = self._open(self._head)
            self._sink.write(self._head)
        path = self._sink.close()
        if isinstance(self._sink, MatrixSink):
            return StagedMatrix(path)
        if self._is_npy:
            try:
                return read_column(path)
            except ValueError as error:
                raise InvalidRequest.at(f"/{self.name}", str(error)) from None
        if path.stat().st_size > self.limits.json_bytes:
            problem = f"is more than {self.limits.json_bytes} bytes of JSON; send it as {NPY}"
            raise RequestEntityTooLarge(f"part {self.name!r} {problem}")
        return parse_json(path.read_bytes(), f"part {self.name!r}")

    def abandon(self) -> None:
        """Close what is open, when an error ends the form within or behind this part."""
        if self._sink is not None:
            self._sink.abandon()

    def _open(self, head: bytes) -> MatrixSink | Spool:
        self._is_npy = self.name != "config" and (self.media_type == NPY or head.startswith(MAGIC))
        if not self._is_npy and self.media_type not in (JSON, "", "text/plain"):
            accepted = JSON if self.name == "config" else f"{NPY} or {JSON}"
            problem = f"comes as {self.media_type[:100]!r}, which is not understood here; send {accepted}"
            raise InvalidRequest.at(f"/{self.name}", problem)
        if self._is_npy and self.name in MATRICES:
            return MatrixSink(f"/{self.name}", self.staging, self.limits.cells)
        return Spool(self.staging.new_path())


def read_form(request: Request, limits: Limits, staging: Staging) -> dict[str, Any]:
    """Read a form: the part `config` and the arrays. Raises BadRequest or InvalidRequest."""
    parts: dict[str, Any] = {}
    with closing(form_parts(request, limits, staging)) as complete:
        for part in complete:
            if part.name in parts:
                raise InvalidRequest.at(f"/{part.name}", "came as two parts; send one")
            parts[part.name] = part.close()
    config = parts.pop("config", None)
    if not isinstance(config, dict):
        raise InvalidRequest.at("/config", f"the part 'config' is required: a JSON object, of type {JSON}")
    twice = [
        FieldError(f"/{name}", "came in the part 'config' and as a part of its own") for name in parts.keys() & config
    ]
    if twice:
        raise InvalidRequest(twice)
    return config | parts


def form_parts(request: Request, limits: Limits, staging: Staging) -> Generator[Part]:
    """Decode a form, yielding each part when all its bytes have been written to where they belong."""
    boundary = request.mimetype_params.get("boundary", "")
    if not re.fullmatch(r"[\x20-\x7e]{0,69}[\x21-\x7e]", boundary):
        raise BadRequest("the Content-Type names no usable boundary")
    decoder = MultipartDecoder(
        boundary.encode(), max_form_memory_size=READ_BYTES + MAX_PART_HEADER_BYTES, max_parts=MAX_PARTS
    )
    with ExitStack() as files:
        for event in form_events(decoder, body_chunks(request, limits.body_bytes)):
            if isinstance(event, Field | File):
                part = new_part(event, limits, staging)
                files.callback(part.abandon)
            elif isinstance(event, Data):
                part.write(event.data)
                if not event.more_data:
                    yield part


def form_events(decoder: MultipartDecoder, chunks: Iterator[bytes]) -> Iterator[object]:
    """Feed the decoder and yield what it finds, or raise BadRequest."""
    for chunk in with_end(chunks):
        try:
            decoder.receive_data(chunk)
            event = decoder.next_event()
            while not isinstance(event, NeedData):
                yield event
                if isinstance(event, Epilogue):
                    return
                event = decoder.next_event()
        except RequestEntityTooLarge:
            problem = f"more than {MAX_PARTS} parts, or too many bytes outside of them"
            raise RequestEntityTooLarge(f"the form has {problem}") from None
        except ValueError as error:
            raise BadRequest(f"the form cannot be read: {error}") from None


def with_end(chunks: Iterator[bytes]) -> Iterator[bytes | None]:
    """Yield the chunks, then the None that tells the decoder that they are all."""
    yield from chunks
    yield None


def new_part(event: Field | File, limits: Limits, staging: Staging) -> Part:
    """Return the part that an event announces, or raise InvalidRequest for a name that is not a field."""
    names = ("config", *MATRICES, *COLUMNS)
    if event.name not in names:
        pointer, problem = (
            (f"/{pointer_token(event.name)}", "is not a part") if event.name else ("", "a part has no name")
        )
        raise InvalidRequest.at(pointer, f"{problem}; there are {', '.join(names)}")
    return Part(event.name, event.headers, limits, staging)


def json_response(document: Any, status: int = 200) -> Response:
    """Build a reply of JSON."""
    return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), status, mimetype=JSON)


def json_list(name: str, items: Iterator[Any]) -> Iterator[bytes]:
    """Write an object with one list, of frozen dataclasses say, a thousand items at a time."""
    yield b'{"' + name.encode() + b'":['
    separator = b""
    while batch := list(islice(items, 1000)):
        yield separator + orjson.dumps(batch)[1:-1]
        separator = b","
    yield b"]}"


def choose_media_type(request: Request, *offered: str) -> str:
    """Return the offered media type that the caller likes best, the first where there is no difference."""
    chosen = request.accept_mimetypes.best_match(offered) if request.headers.get("Accept") else offered[0]
    if chosen is None:
        raise NotAcceptable(f"this is to be had as {' or '.join(offered)}")
    return chosen
