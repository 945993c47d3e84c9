"""Content-Encoding: bodies that come compressed, decoded a piece at a time."""

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
"""How much is decoded at a time: 4 kB of zstd or 125 kB of gzip may stand for 128 MB."""

ZSTD_WINDOW_LOG = 23
"""A frame may look back 8 MB, which is what RFC 9659 asks of a decoder: the window is held in memory."""

GZIP_WBITS = 16 + zlib.MAX_WBITS

MAX_MEMBERS = 2**16
"""How many members or frames may follow one another: an empty one costs its sender nothing, and the decoder a start."""


class Decoder(Protocol):
    """Decodes one gzip member or zstd frame, as the decompressors of Python's own library do."""

    @property
    def eof(self) -> bool:
        """Whether the member has come to its end, its checksum included."""

    @property
    def needs_input(self) -> bool:
        """Whether it takes more data to go on."""

    @property
    def unused_data(self) -> bytes:
        """What came behind its end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take all of `data`, and return at most `max_length` bytes of what it stands for."""


class GzipDecoder:
    """Gives zlib, which leaves what it has not looked at to its caller, the manners of the others."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(GZIP_WBITS)

    @property
    def eof(self) -> bool:
        """Whether the member has come to its end, its checksum included."""
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        """Whether it takes more data to go on."""
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        """What came behind its end."""
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take `data`, which must be empty unless input is needed, and return at most `max_length` bytes."""
        return self._decoder.decompress(data or self._decoder.unconsumed_tail, max_length)


def zstd_decoder() -> Decoder:
    """Return a decoder of one zstd frame."""
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})


DECODERS: dict[str, Callable[[], Decoder]] = {"gzip": GzipDecoder, "x-gzip": GzipDecoder, "zstd": zstd_decoder}
IDENTITY = ("", "identity")


class UnknownCoding(UnsupportedMediaType):
    """The body is encoded in a way that is not understood; the reply names those that are (RFC 9110, 12.5.3)."""

    def get_headers(self, *args: Any, **keywords: Any) -> list[tuple[str, str]]:
        """Return the headers of the reply."""
        return [*super().get_headers(*args, **keywords), ("Accept-Encoding", "gzip, zstd")]


def content_coding(request: Request) -> str:
    """Return the name of the body's encoding, empty for none. Raises UnknownCoding."""
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding in IDENTITY:
        return ""
    if coding not in DECODERS:
        raise UnknownCoding(f"the Content-Encoding {coding[:100]!r} is not understood; send gzip or zstd, or none")
    return coding


def decode_body(coding: str, chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """Decode a body piece by piece, counting what comes out.

    Raises RequestEntityTooLarge past `limit` bytes, and BadRequest where the body breaks off or is no such thing.
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
    """Decode members or frames that follow one another; EOFError where the last one breaks off."""
    decoder, n_members = start(), 1
    for chunk in chunks:
        rest = chunk
        while rest or not (decoder.needs_input or decoder.eof):
            if decoder.eof:
                decoder, n_members = start(), n_members + 1
            if n_members > MAX_MEMBERS:
                raise EOFError(f"more than {MAX_MEMBERS} parts follow one another")
            if piece := decoder.decompress(rest, PIECE_BYTES):
                yield piece
            rest = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise EOFError("it ends too soon")
