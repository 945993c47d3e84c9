"""From bytes to a document: one reader of bodies, for JSON, for forms with arrays and for records.

Nothing is read past a limit, and nothing large is ever held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from flask import Request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from service.domain.parameters import pointer_token
from service.errors import FieldError, InvalidRequest
from service.http.body.formats import csr, ndjson, npy, tables
from service.http.body.formats.spool import FileSink, Sink, SpoolFile
from service.http.body.limits import COLUMNS, MATRICES, Limits
from service.http.body.multipart import PartEnd, PartHead, split_form
from service.http.body.stream import body_chunks, whole_body
from service.http.media_types import ARROW_FILE, ARROW_STREAM, JSON, MULTIPART, NDJSON, NPY, NPZ, PARQUET, ZIP
from service.store.staging import Staging

ALSO_NDJSON = ("application/jsonl", "application/ndjson")

MAGIC = {
    npy.MAGIC: NPY,
    csr.MAGIC: NPZ,
    b"ARROW1": ARROW_FILE,
    b"PAR1": PARQUET,
}
"""How files begin whose sender does not say, or does not know, what they are."""

LONGEST_MAGIC = max(map(len, MAGIC))


@dataclass(frozen=True, slots=True)
class PartTarget:
    """Where a part belongs, and what it may take."""

    name: str
    limits: Limits
    staging: Staging

    @property
    def pointer(self) -> str:
        """The field in the document that the part stands in for."""
        return f"/{self.name}"

    def file_sink(self, read: Callable[[Path], Any], limit: int | None = None) -> FileSink:
        """Return a sink that reads a file of at most `limit` bytes when all of it has come."""
        return FileSink(self.pointer, self.staging.new_path(), read, limit)


def open_json(target: PartTarget) -> Sink:
    """Take JSON."""
    what = f"part {target.name!r}"
    return target.file_sink(lambda path: parse_json(path.read_bytes(), what), target.limits.json_bytes)


def open_npy_matrix(target: PartTarget) -> Sink:
    """Take a matrix as .npy."""
    return npy.MatrixSink(target.pointer, target.staging, target.limits.cells)


def open_npy_members(target: PartTarget) -> Sink:
    """Take a matrix of each member as .npy."""
    return npy.MembersSink(target.pointer, target.staging, target.limits.cells)


def open_npy_column(target: PartTarget) -> Sink:
    """Take a column as .npy."""
    return target.file_sink(npy.read_column)


def open_npz_matrix(target: PartTarget) -> Sink:
    """Take a sparse matrix as scipy's .npz."""
    read = partial(csr.read_csr, pointer=target.pointer, staging=target.staging, max_cells=target.limits.cells)
    return target.file_sink(read)


def open_table_matrix(kind: str, target: PartTarget) -> Sink:
    """Take a matrix as a table of Arrow or Parquet."""
    tables.check_library(target.pointer)
    read = partial(tables.read_matrix, kind=kind, pointer=target.pointer, staging=target.staging)
    return target.file_sink(partial(read, max_cells=target.limits.cells))


def open_table_column(kind: str, target: PartTarget) -> Sink:
    """Take a column as a table of Arrow or Parquet."""
    tables.check_library(target.pointer)
    read = partial(tables.read_column, kind=kind, pointer=target.pointer, max_bytes=target.limits.body_bytes)
    return target.file_sink(read)


def open_line_matrix(target: PartTarget) -> Sink:
    """Take a matrix of which each line is a row."""
    return ndjson.LineMatrix(target.pointer, target.staging, target.limits.cells, target.limits.json_bytes)


def open_line_column(target: PartTarget) -> Sink:
    """Take a column of which each line is a value."""
    return target.file_sink(ndjson.read_values, target.limits.json_bytes)


OpenSink = Callable[[PartTarget], Sink]
TABLES = {ARROW_STREAM: "stream", ARROW_FILE: "file", PARQUET: "parquet"}

MATRIX_FORMATS: Mapping[str, OpenSink] = {
    NPY: open_npy_matrix,
    JSON: open_json,
    NPZ: open_npz_matrix,
    NDJSON: open_line_matrix,
    **{media_type: partial(open_table_matrix, kind) for media_type, kind in TABLES.items()},
}
COLUMN_FORMATS: Mapping[str, OpenSink] = {
    NPY: open_npy_column,
    JSON: open_json,
    NDJSON: open_line_column,
    **{media_type: partial(open_table_column, kind) for media_type, kind in TABLES.items()},
}
FORMATS: Mapping[str, Mapping[str, OpenSink]] = {
    "config": {JSON: open_json},
    **dict.fromkeys(MATRICES, MATRIX_FORMATS),
    **dict.fromkeys(COLUMNS, COLUMN_FORMATS),
    "probabilities": {media_type: read for media_type, read in MATRIX_FORMATS.items() if media_type != NPZ},
    "member_probabilities": {NPY: open_npy_members, JSON: open_json},
}
"""How each part of a form may come, the formats that are told of first in front."""


def has_body(request: Request) -> bool:
    """Tell whether anything was sent behind the headers."""
    return bool(request.content_length) or "Transfer-Encoding" in request.headers


def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """Read a JSON object from the body. Raises the 4xx of werkzeug that fits."""
    refuse_media_type(request, JSON)
    chunks = body_chunks(request, limits.body_bytes, limits.json_bytes)
    return json_object(whole_body(chunks, limits.folder))


def read_document(request: Request, limits: Limits, staging: Staging | None = None) -> dict[str, Any]:
    """Read a JSON object, or a form, which needs a target to stage the arrays that stand in for fields."""
    refuse_media_type(request, JSON, MULTIPART)
    if request.mimetype == MULTIPART and staging is not None:
        return read_form(request, limits, staging)
    return read_json(request, limits)


def read_samples(request: Request, limits: Limits, staging: Staging) -> dict[str, Any]:
    """Read samples: a JSON object, a form, which needs no part `config` here, or NDJSON with a sample on each line."""
    refuse_media_type(request, JSON, MULTIPART, NDJSON, *ALSO_NDJSON)
    if request.mimetype == JSON:
        return read_json(request, limits)
    if request.mimetype == MULTIPART:
        return read_form(request, limits, staging, needs_config=False)
    records = ndjson.Records(staging, limits.cells, limits.json_bytes, limits.json_bytes)
    try:
        for chunk in chunks_to_stage(request, limits, staging):
            records.write(chunk)
        return records.close()
    finally:
        records.abandon()


def chunks_to_stage(request: Request, limits: Limits, staging: Staging) -> Iterator[bytes]:
    """Read the body in pieces that go to disk. Raises StoreFull before it comes where it would not fit."""
    length = request.content_length
    if length is not None and length <= limits.body_bytes:
        staging.check_room(length)
    return body_chunks(request, limits.body_bytes)


def spool_archive(request: Request, limits: Limits, staging: Staging) -> Path:
    """Write a body that is a zip archive to a file, as it comes."""
    refuse_media_type(request, ZIP)
    spool = SpoolFile(staging.new_path())
    try:
        for chunk in chunks_to_stage(request, limits, staging):
            spool.write(chunk)
        return spool.close()
    finally:
        spool.abandon()


def refuse_media_type(request: Request, *accepted: str) -> None:
    """Raise UnsupportedMediaType unless the body is of a type that is understood."""
    if request.mimetype not in accepted:
        given = f"not {request.mimetype[:100]!r}" if request.mimetype else "and none was given"
        raise UnsupportedMediaType(f"the Content-Type must be {' or '.join(accepted)}, {given}")


def json_object(data: bytes | bytearray) -> dict[str, Any]:
    """Parse a JSON object, or raise BadRequest."""
    document = parse_json(data)
    if not isinstance(document, dict):
        raise InvalidRequest.at("", "the body must be a JSON object")
    return document


def parse_json(data: bytes | bytearray, what: str = "the body") -> Any:
    """Parse a JSON document, or raise BadRequest saying where it breaks off."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{what} is not JSON: {error}") from None


class Part:
    """One part of a form: looks at how it begins, and sends its bytes where they belong."""

    def __init__(self, name: str, media_type: str, limits: Limits, staging: Staging) -> None:
        self.name = name
        self.target = PartTarget(name, limits, staging)
        self.media_type = NDJSON if media_type in ALSO_NDJSON else media_type
        self._head = b""
        self._sink: Sink | None = None

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._sink is None:
            self._head += data
            if len(self._head) < LONGEST_MAGIC:
                return
            data, self._head = self._head, b""
            self._sink = self._open(data)
        self._sink.write(data)

    def close(self) -> Any:
        """Return the field's value: parsed JSON, a column, or a matrix in its staged files."""
        if self._sink is None:
            self._sink = self._open(self._head)
            self._sink.write(self._head)
        return self._sink.close()

    @property
    def n_bytes_of_text(self) -> int:
        """How much of the form's text this part is."""
        return self._sink.n_bytes_of_text if isinstance(self._sink, FileSink) else 0

    def abandon(self) -> None:
        """Close what is open, when an error ends the form within or behind this part."""
        if self._sink is not None:
            self._sink.abandon()

    def _open(self, head: bytes) -> Sink:
        formats = FORMATS[self.name]
        media_type = self._detect_media_type(head)
        if media_type not in formats:
            problem = f"comes as {media_type[:100]!r}, which is not understood here; send {' or '.join(formats)}"
            raise InvalidRequest.at(f"/{self.name}", problem)
        return formats[media_type](self.target)

    def _detect_media_type(self, head: bytes) -> str:
        """Return the media type of the part: as it is told, where it is one of a binary format, or as it looks."""
        if self.media_type in MAGIC.values() or self.media_type == ARROW_STREAM:
            return self.media_type
        looks = next((found for magic, found in MAGIC.items() if head.startswith(magic)), self.media_type)
        return JSON if looks in ("", "text/plain") else looks


def read_form(request: Request, limits: Limits, staging: Staging, *, needs_config: bool = True) -> dict[str, Any]:
    """Read a form: the part `config` and the arrays. Raises BadRequest or InvalidRequest."""
    parts: dict[str, Any] = {}
    with closing(read_parts(request, limits, staging)) as complete:
        for part in complete:
            if part.name in parts:
                raise InvalidRequest.at(f"/{part.name}", "came as two parts; send one")
            parts[part.name] = part.close()
    config = parts.pop("config", None if needs_config else {})
    if not isinstance(config, dict):
        need = "is required: a JSON object" if needs_config else "must be a JSON object"
        raise InvalidRequest.at("/config", f"the part 'config' {need}, of type {JSON}")
    twice = [
        FieldError(f"/{name}", "came in the part 'config' and as a part of its own") for name in parts.keys() & config
    ]
    if twice:
        raise InvalidRequest(twice)
    return config | parts


def read_parts(request: Request, limits: Limits, staging: Staging) -> Generator[Part]:
    """Decode a form, yielding each part when all its bytes have been written to where they belong."""
    boundary = request.mimetype_params.get("boundary", "")
    with ExitStack() as files:
        part: Part | None = None
        for event in split_form(boundary, chunks_to_stage(request, limits, staging)):
            if isinstance(event, PartHead):
                part = open_part(event, limits, staging)
                files.callback(part.abandon)
            elif part and isinstance(event, PartEnd):
                yield part
                # Parsed text takes ten times as much memory, in one part or in many.
                limits = replace(limits, json_bytes=limits.json_bytes - part.n_bytes_of_text)
            elif part and isinstance(event, bytes):
                part.write(event)


def open_part(head: PartHead, limits: Limits, staging: Staging) -> Part:
    """Return the part that a head announces, or raise InvalidRequest for a name that is not a field."""
    there = f"there are {', '.join(FORMATS)}"
    if not head.name:
        raise InvalidRequest.at("", f"a part has no name; {there}")
    if head.name not in FORMATS:
        raise InvalidRequest.at(f"/{pointer_token(head.name)}", f"is not a part; {there}")
    return Part(head.name, head.media_type, limits, staging)
