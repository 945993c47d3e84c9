"""Read request bodies into documents: JSON, forms with arrays, and NDJSON.

No limit is exceeded, and no large array is held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import orjson
from flask import Request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from service.domain.parameters import pointer_token, unknown_name
from service.errors import FieldError, InvalidRequest
from service.http.body.formats import csr, ndjson, npy, records, tables
from service.http.body.formats.spool import FileSink, Sink
from service.http.body.limits import COLUMNS, LABELS, MATRICES, Limits
from service.http.body.multipart import PartEnd, PartHead, split_form
from service.http.body.stream import body_chunks, whole_body
from service.http.media_types import (
    ARROW_FILE,
    ARROW_STREAM,
    CSV,
    JSON,
    MULTIPART,
    NDJSON,
    NPY,
    NPZ,
    OCTET_STREAM,
    PARQUET,
    ZIP,
)
from service.store.spool import SpoolFile
from service.store.staging import Staging

ALSO_NDJSON = ("application/jsonl", "application/ndjson")

MAGIC = {
    npy.MAGIC: NPY,
    csr.MAGIC: NPZ,
    b"ARROW1": ARROW_FILE,
    b"PAR1": PARQUET,
}
"""First bytes of the binary formats, for parts without a media type or with a general one."""

LONGEST_MAGIC = max(map(len, MAGIC))


@dataclass(frozen=True, slots=True)
class PartTarget:
    """Where a part is written, and its limits."""

    name: str
    limits: Limits
    staging: Staging

    @property
    def pointer(self) -> str:
        """Pointer to the field that the part is the value of."""
        return f"/{self.name}"

    def file_sink(self, read: Callable[[Path], Any], limit: int | None = None) -> FileSink:
        """Return a sink that writes at most `limit` bytes to a file and reads it once it is complete."""
        return FileSink(self.pointer, self.staging.new_path(), read, limit)


def open_json(target: PartTarget) -> Sink:
    """Return a sink for JSON."""
    what = f"part {target.name!r}"
    return target.file_sink(lambda path: parse_json(path.read_bytes(), what), target.limits.json_bytes)


def open_npy_matrix(target: PartTarget) -> Sink:
    """Return a sink for a matrix as .npy."""
    return npy.MatrixSink(target.pointer, target.staging, target.limits.cells)


def open_npy_samples(target: PartTarget) -> Sink:
    """Return a sink for samples as .npy: a matrix of numbers, or a column of texts."""
    return npy.SamplesSink(open_npy_matrix(target), open_npy_column(target))


def open_npy_members(target: PartTarget) -> Sink:
    """Return a sink for one matrix per committee member as .npy."""
    return npy.MembersSink(target.pointer, target.staging, target.limits.cells)


def open_npy_column(target: PartTarget) -> Sink:
    """Return a sink for a column as .npy; labels may be an indicator matrix."""
    return target.file_sink(partial(npy.read_column, may_be_matrix=target.name in LABELS))


def open_npz_matrix(target: PartTarget) -> Sink:
    """Return a sink for a sparse matrix as scipy's .npz."""
    read = partial(csr.read_csr, pointer=target.pointer, staging=target.staging, max_cells=target.limits.cells)
    return target.file_sink(read)


def open_table(kind: str, target: PartTarget) -> Sink:
    """Return a sink for a table of Arrow, Parquet or CSV, which is read later."""
    tables.check_library(target.pointer)
    path = target.staging.new_path()
    return tables.TableSink(path, tables.TableFile(target.name, kind, path, target.limits, target.staging))


def open_record_lines(target: PartTarget) -> Sink:
    """Return a sink for a table with an object per line, which is read later."""
    path, max_line_bytes = target.staging.new_path(), target.limits.json_bytes
    lines = partial(records.read_lines, path, max_line_bytes)
    return tables.TableSink(path, records.RecordTable(target.name, lines, target.limits, target.staging))


def open_line_matrix(target: PartTarget) -> Sink:
    """Return a sink for a matrix with a row, or a table with an object, per line."""

    def choose(first: Any) -> Sink:
        if isinstance(first, dict):
            return open_record_lines(target)
        return ndjson.LineMatrix(target.pointer, target.staging, target.limits.cells, target.limits.json_bytes)

    return LineSink(choose, target.limits.json_bytes)


def open_line_samples(target: PartTarget) -> Sink:
    """Return a sink for samples, one per line: a matrix or a table as above, or texts."""

    def choose(first: Any) -> Sink:
        return open_line_column(target) if isinstance(first, str) else open_line_matrix(target)

    return LineSink(choose, target.limits.json_bytes)


def open_line_column(target: PartTarget) -> Sink:
    """Return a sink for a column with a value, or an object with one, per line."""

    def choose(first: Any) -> Sink:
        if isinstance(first, dict):
            return open_record_lines(target)
        return target.file_sink(ndjson.read_values, target.limits.json_bytes)

    return LineSink(choose, target.limits.json_bytes)


class LineSink:
    """A sink for JSON lines, of which the first one chooses the sink that takes them all."""

    def __init__(self, choose: Callable[[Any], Sink], max_line_bytes: int) -> None:
        self._choose = choose
        self._lines = ndjson.Lines(max_line_bytes)
        self._head: list[bytes] = []
        self._sink: Sink | None = None

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        if self._sink is not None:
            self._sink.write(data)
            return
        self._head.append(data)
        line, line_break, _ = data.partition(b"\n")
        if line_break:
            self._open(self._lines.feed(line + line_break))
        else:
            self._lines.feed(data)

    def close(self) -> Any:
        """Return the value of the field, after the last bytes."""
        if self._sink is None:
            self._open(self._lines.end())
        return cast(Sink, self._sink).close()

    @property
    def n_bytes_of_text(self) -> int:
        """Bytes that are parsed as a whole."""
        return self._sink.n_bytes_of_text if isinstance(self._sink, FileSink | LineSink) else 0

    def abandon(self) -> None:
        """Close the files of an unfinished part."""
        if self._sink is not None:
            self._sink.abandon()

    def _open(self, values: list[Any]) -> None:
        self._sink = self._choose(values[0] if values else None)
        self._sink.write(b"".join(self._head))
        self._head.clear()


OpenSink = Callable[[PartTarget], Sink]
TABLE_KINDS = {ARROW_STREAM: "stream", ARROW_FILE: "file", PARQUET: "parquet", CSV: "csv"}
TABLE_FORMATS: Mapping[str, OpenSink] = {
    media_type: partial(open_table, kind) for media_type, kind in TABLE_KINDS.items()
}

MATRIX_FORMATS: Mapping[str, OpenSink] = {
    NPY: open_npy_matrix,
    JSON: open_json,
    NPZ: open_npz_matrix,
    NDJSON: open_line_matrix,
    **TABLE_FORMATS,
}
COLUMN_FORMATS: Mapping[str, OpenSink] = {
    NPY: open_npy_column,
    JSON: open_json,
    NDJSON: open_line_column,
    **TABLE_FORMATS,
}
LABEL_FORMATS: Mapping[str, OpenSink] = {**COLUMN_FORMATS, NPZ: open_npz_matrix}
FORMATS: Mapping[str, Mapping[str, OpenSink]] = {
    "config": {JSON: open_json},
    **dict.fromkeys(MATRICES, MATRIX_FORMATS),
    "X_test": {**MATRIX_FORMATS, NPY: open_npy_samples, NDJSON: open_line_samples},
    **dict.fromkeys(COLUMNS, COLUMN_FORMATS),
    **dict.fromkeys(LABELS, LABEL_FORMATS),
    "probabilities": {media_type: read for media_type, read in MATRIX_FORMATS.items() if media_type != NPZ},
    "member_predictions": {media_type: read for media_type, read in MATRIX_FORMATS.items() if media_type != NPZ},
    "member_probabilities": {NPY: open_npy_members, JSON: open_json},
}
"""Media types of each part, in the order in which errors and the contract list them."""


def has_body(request: Request) -> bool:
    """Return whether the request has a body."""
    return bool(request.content_length) or "Transfer-Encoding" in request.headers


def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """Read a JSON object from the body. Raises HTTPException (4xx) or InvalidRequest."""
    refuse_media_type(request, JSON)
    chunks = body_chunks(request, limits.body_bytes, limits.json_bytes)
    return json_object(whole_body(chunks, limits.folder))


def read_document(request: Request, limits: Limits, staging: Staging | None = None) -> dict[str, Any]:
    """Read a JSON object or, given a staging directory for its arrays, a form."""
    refuse_media_type(request, JSON, MULTIPART)
    if request.mimetype == MULTIPART and staging is not None:
        return read_form(request, limits, staging)
    return read_json(request, limits)


def read_samples(
    request: Request,
    limits: Limits,
    staging: Staging,
    config: Mapping[str, Any],
    *,
    needs_config: bool = False,
    has_columns: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Read samples: a JSON object, a form, CSV, or JSON lines with a sample on each.

    `config` has the other fields of a request whose body is CSV or lines. `has_columns` says whether the project knows
    what the columns of its tables are.
    """
    refuse_media_type(request, JSON, MULTIPART, CSV, NDJSON, *ALSO_NDJSON)
    if request.mimetype == JSON:
        return read_json(request, limits)
    if request.mimetype == MULTIPART:
        return read_form(request, limits, staging, needs_config=needs_config)
    target = PartTarget("X", limits, staging)

    def choose(first: Any) -> Sink:
        if "columns" not in config and is_sample(first, has_columns):
            return ndjson.Records(staging, limits.cells, limits.json_bytes, limits.json_bytes)
        return open_record_lines(target)

    sink = open_table("csv", target) if request.mimetype == CSV else LineSink(choose, limits.json_bytes)
    try:
        for chunk in chunks_to_stage(request, limits, staging):
            sink.write(chunk)
        found = sink.close()
    finally:
        sink.abandon()
    return joined(config, found if isinstance(found, dict) else {"X": found}, "the query parameter 'config'")


def is_sample(first: Any, has_columns: Callable[[], bool]) -> bool:
    """Return whether the first line is a sample with features `x`, and not a row of a table."""
    if not isinstance(first, dict):
        return True
    has_features = isinstance(first.get("x"), list) or isinstance(first.get("text"), str)
    signs = [has_features, first.keys() <= set(ndjson.RECORD_FIELDS)]
    return all(signs) or (any(signs) and not has_columns())


def chunks_to_stage(request: Request, limits: Limits, staging: Staging) -> Iterator[bytes]:
    """Read the body in pieces that go to disk. Raises StoreFull at once if its announced length does not fit."""
    length = request.content_length
    if length is not None and length <= limits.body_bytes:
        staging.check_room(length)
    return body_chunks(request, limits.body_bytes)


def spool_archive(request: Request, limits: Limits, staging: Staging) -> Path:
    """Write a zip archive in the body to a file, and return its path."""
    refuse_media_type(request, ZIP, OCTET_STREAM)
    spool = SpoolFile(staging.new_path())
    try:
        for chunk in chunks_to_stage(request, limits, staging):
            spool.write(chunk)
        return spool.close()
    finally:
        spool.abandon()


def refuse_media_type(request: Request, *accepted: str) -> None:
    """Raise UnsupportedMediaType unless the media type of the body is one of those accepted."""
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
    """Parse a JSON document, or raise BadRequest with the position of the error."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{what} is not JSON: {error}") from None


class Part:
    """A part of a form: finds its format, and passes its bytes to the sink for it."""

    def __init__(self, name: str, media_type: str, limits: Limits, staging: Staging) -> None:
        self.name = name
        self.target = PartTarget(name, limits, staging)
        self.media_type = NDJSON if media_type in ALSO_NDJSON else media_type
        self._head = b""
        self._sink: Sink | None = None

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        if self._sink is None:
            self._head += data
            if len(self._head) < LONGEST_MAGIC:
                return
            data, self._head = self._head, b""
            self._sink = self._open(data)
        self._sink.write(data)

    def close(self) -> Any:
        """Return the value of the part: parsed JSON, a column, staged arrays, or a table to be read."""
        if self._sink is None:
            self._sink = self._open(self._head)
            self._sink.write(self._head)
        return self._sink.close()

    @property
    def n_bytes_of_text(self) -> int:
        """Bytes of the part that are parsed as a whole."""
        return self._sink.n_bytes_of_text if isinstance(self._sink, FileSink | LineSink) else 0

    def abandon(self) -> None:
        """Close the files of the part after an error."""
        if self._sink is not None:
            self._sink.abandon()

    def _open(self, head: bytes) -> Sink:
        formats = FORMATS[self.name]
        media_type = self._detect_media_type(head)
        if media_type not in formats:
            problem = f"has the media type {media_type[:100]!r}; send {' or '.join(formats)}"
            raise InvalidRequest.at(f"/{self.name}", problem)
        return formats[media_type](self.target)

    def _detect_media_type(self, head: bytes) -> str:
        """Return the declared media type if it is a binary format, otherwise the one that the first bytes show."""
        if self.media_type in MAGIC.values() or self.media_type == ARROW_STREAM:
            return self.media_type
        detected = next((found for magic, found in MAGIC.items() if head.startswith(magic)), self.media_type)
        return JSON if detected in ("", "text/plain") else detected


def read_form(request: Request, limits: Limits, staging: Staging, *, needs_config: bool = True) -> dict[str, Any]:
    """Read a form: the part `config`, and arrays. Raises BadRequest or InvalidRequest."""
    parts: dict[str, Any] = {}
    with closing(read_parts(request, limits, staging)) as complete_parts:
        for part in complete_parts:
            if part.name in parts:
                raise InvalidRequest.at(f"/{part.name}", "was sent as two parts; send one")
            parts[part.name] = part.close()
    config = parts.pop("config", None if needs_config else {})
    if not isinstance(config, dict):
        need = "is required: a JSON object" if needs_config else "must be a JSON object"
        raise InvalidRequest.at("/config", f"the part 'config' {need}, of type {JSON}")
    return joined(config, parts, "the part 'config'")


def joined(config: Mapping[str, Any], parts: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the fields of a config and the arrays beside it. Raises InvalidRequest for a field in both."""
    repeated = [FieldError(f"/{name}", f"was sent in {source}, too") for name in parts.keys() & config.keys()]
    if repeated:
        raise InvalidRequest(repeated)
    return {**config, **parts}


def read_parts(request: Request, limits: Limits, staging: Staging) -> Generator[Part]:
    """Yield each part of a form when all its bytes have been written."""
    boundary = request.mimetype_params.get("boundary", "")
    with ExitStack() as files:
        part: Part | None = None
        for event in split_form(boundary, chunks_to_stage(request, limits, staging)):
            if isinstance(event, PartHead):
                part = open_part(event, limits, staging)
                files.callback(part.abandon)
            elif part and isinstance(event, PartEnd):
                yield part
                # Parsed text takes ten times the memory: all parts together have one limit.
                limits = replace(limits, json_bytes=limits.json_bytes - part.n_bytes_of_text)
            elif part and isinstance(event, bytes):
                part.write(event)


def open_part(head: PartHead, limits: Limits, staging: Staging) -> Part:
    """Return the part that a head announces. Raises InvalidRequest for an unknown name."""
    if not head.name:
        raise InvalidRequest.at("", f"a part has no name; parts are {', '.join(FORMATS)}")
    if head.name not in FORMATS:
        raise InvalidRequest.at(f"/{pointer_token(head.name)}", unknown_name("part", head.name, FORMATS))
    return Part(head.name, head.media_type, limits, staging)
