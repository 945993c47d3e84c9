"""Decode compressed bodies (Content-Encoding) a piece at a time."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from flask import Request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 2**18
"""Decoded bytes of a piece: 4 kB of zstd or 125 kB of gzip can decode to 128 MB."""

ZSTD_WINDOW_LOG = 23
"""Largest window, 8 MB as RFC 9659 recommends: the decoder holds it in memory."""

GZIP_WBITS = 16 + zlib.MAX_WBITS

MAX_MEMBERS = 2**16
"""Largest number of members or frames: an empty one is free to send, but starts a decoder."""


class Decoder(Protocol):
    """Decodes one gzip member or zstd frame, like the decompressors of the standard library."""

    @property
    def eof(self) -> bool:
        """Whether the member is complete, with its checksum."""

    @property
    def needs_input(self) -> bool:
        """Whether more data is needed."""

    @property
    def unused_data(self) -> bytes:
        """Bytes after the end of the member."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Add `data`, and return at most `max_length` decoded bytes."""


class GzipDecoder:
    """Decodes a gzip member; zlib itself leaves input that it has not used to its caller."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(GZIP_WBITS)

    @property
    def eof(self) -> bool:
        """Whether the member is complete, with its checksum."""
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        """Whether more data is needed."""
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        """Bytes after the end of the member."""
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Add `data`, empty unless input is needed, and return at most `max_length` decoded bytes."""
        return self._decoder.decompress(data or self._decoder.unconsumed_tail, max_length)


def zstd_decoder() -> Decoder:
    """Return a decoder for a zstd frame."""
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})


DECODERS: dict[str, Callable[[], Decoder]] = {"gzip": GzipDecoder, "x-gzip": GzipDecoder, "zstd": zstd_decoder}
IDENTITY = ("", "identity")


class UnknownCoding(UnsupportedMediaType):
    """Unknown Content-Encoding; the response lists those supported (RFC 9110, 12.5.3)."""

    def get_headers(self, *args: Any, **keywords: Any) -> list[tuple[str, str]]:
        """Return the headers of the response."""
        return [*super().get_headers(*args, **keywords), ("Accept-Encoding", "gzip, zstd")]


def content_coding(request: Request) -> str:
    """Return the Content-Encoding, empty if there is none. Raises UnknownCoding."""
    coding: str = request.environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if coding in IDENTITY:
        return ""
    if coding not in DECODERS:
        raise UnknownCoding(f"the Content-Encoding {coding[:100]!r} is not supported; send gzip or zstd, or none")
    return coding


def decode_body(coding: str, chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """Decode a body piece by piece.

    Raises RequestEntityTooLarge for more than `limit` decoded bytes, BadRequest for a broken or incomplete body.
    """
    if not coding:
        yield from chunks
        return
    n_bytes = 0
    try:
        for piece in decode_members(DECODERS[coding], chunks):
            n_bytes += len(piece)
            if n_bytes > limit:
                raise RequestEntityTooLarge(f"the body is larger than {limit} bytes when it is decoded")
            yield piece
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise BadRequest(f"the body is not what its Content-Encoding {coding!r} says: {error}") from None


def decode_members(start: Callable[[], Decoder], chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decode consecutive members or frames. Raises EOFError if the last one is incomplete."""
    decoder, n_members = start(), 1
    for chunk in chunks:
        rest = chunk
        while rest or not (decoder.needs_input or decoder.eof):
            if decoder.eof:
                decoder, n_members = start(), n_members + 1
            if n_members > MAX_MEMBERS:
                raise EOFError(f"it has more than {MAX_MEMBERS} members or frames")
            if piece := decoder.decompress(rest, PIECE_BYTES):
                yield piece
            rest = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise EOFError("it is incomplete")
