"""Split multipart/form-data (RFC 7578) as it arrives into the heads of parts and their bytes, with few copies.

A general decoder appends every piece of a body to a buffer and searches that twice. Here, most bytes are read once, by
a search for the delimiter.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.http import parse_options_header

MAX_PARTS = 16
MAX_HEAD_BYTES = 2**14
MAX_PREAMBLE_BYTES = 2**14

# RFC 2046 allows 70 characters; werkzeug, for one, sends 71 now and then.
BOUNDARY = re.compile(r"[\x20-\x7e]{0,99}[\x21-\x7e]")
BLANK_LINE = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class PartHead:
    """Name (None if missing) and media type (empty if missing) of a part."""

    name: str | None
    media_type: str


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The end of a part."""


class Source:
    """Chunks of a body; `rest` holds bytes that were read but not used yet."""

    def __init__(self, first: bytes, chunks: Iterator[bytes]) -> None:
        self.rest = first
        self._chunks = chunks

    def next(self) -> bytes:
        """Return the rest and the next chunk. Raises BadRequest at the end of the body."""
        chunk = next(self._chunks, None)
        if chunk is None:
            raise BadRequest("the form cannot be read: its last boundary is missing")
        data = self.rest + chunk if self.rest else chunk
        self.rest = b""
        return data

    def until(self, mark: bytes, limit: int, what: str) -> bytes:
        """Return the bytes before `mark`, and skip it. Raises RequestEntityTooLarge for more than `limit` bytes."""
        data = self.rest
        while (at := data.find(mark, 0, limit + len(mark))) < 0:
            if len(data) >= limit + len(mark):
                raise RequestEntityTooLarge(f"{what} has more than {limit} bytes")
            self.rest = data
            data = self.next()
        self.rest = data[at + len(mark) :]
        return data[:at]

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        while len(self.rest) < size:
            self.rest = self.next()
        data, self.rest = self.rest[:size], self.rest[size:]
        return data


def split_form(boundary: str, chunks: Iterator[bytes]) -> Generator[PartHead | bytes | PartEnd]:
    """Yield the head of each part, its bytes in pieces, and its end.

    Raises BadRequest if the body is not a form, RequestEntityTooLarge for too many parts.
    """
    if not BOUNDARY.fullmatch(boundary):
        raise BadRequest("the Content-Type has no valid boundary")
    delimiter = b"\r\n--" + boundary.encode()
    # The body may begin with the first delimiter, without a line break.
    source = Source(b"\r\n", chunks)
    source.until(delimiter, MAX_PREAMBLE_BYTES, "the preamble of the form")
    n_parts = 0
    while not is_last(source):
        n_parts += 1
        if n_parts > MAX_PARTS:
            raise RequestEntityTooLarge(f"the form has more than {MAX_PARTS} parts")
        yield read_part_head(source.until(BLANK_LINE, MAX_HEAD_BYTES, "the head of a part"))
        yield from part_data(source, delimiter)
        yield PartEnd()
    deque(chunks, maxlen=0)  # the last chunk is checked against the Content-Length


def is_last(source: Source) -> bool:
    """Read the rest of a delimiter's line, and return whether it ends the form."""
    mark = source.take(2)
    if mark == b"--":
        return True
    # Keep the line break: a part without headers begins with a blank line.
    source.rest = mark + source.rest
    padding = source.until(b"\r\n", MAX_HEAD_BYTES, "the line of a boundary")
    if padding.strip(b" \t"):
        raise BadRequest("the form cannot be read: text follows a boundary on its line")
    source.rest = b"\r\n" + source.rest
    return False


def part_data(source: Source, delimiter: bytes) -> Iterator[bytes]:
    """Yield the bytes of a part up to the next delimiter, and skip that."""
    data = source.rest or source.next()
    # Python searches three times as fast from the right.
    while (at := data.rfind(delimiter)) < 0:
        kept = partial_delimiter_at(data, delimiter)
        if kept:
            yield data[:kept]
        source.rest = data[kept:]
        data = source.next()
    at = data.find(delimiter, 0, at + len(delimiter))
    source.rest = data[at + len(delimiter) :]
    if at:
        yield data[:at]


def partial_delimiter_at(data: bytes, delimiter: bytes) -> int:
    """Return where a delimiter may begin at the end of `data`; the length of `data` if none does."""
    # A delimiter has one \r, at its beginning.
    at = data.rfind(b"\r", max(0, len(data) - len(delimiter) + 1))
    return at if at >= 0 and delimiter.startswith(data[at:]) else len(data)


def read_part_head(head: bytes) -> PartHead:
    """Read the headers of a part. Raises BadRequest."""
    headers: dict[str, str] = {}
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the form cannot be read: {error}") from None
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    disposition, options = parse_options_header(headers.get("content-disposition"))
    if disposition.lower() != "form-data":
        raise BadRequest("the form cannot be read: a part has no 'Content-Disposition: form-data'")
    return PartHead(options.get("name"), parse_options_header(headers.get("content-type"))[0].lower())
