"""Read the bytes of a body in pieces: counted, decoded, and within a limit.

gunicorn passes on a body that is shorter than its Content-Length as if it were complete, so bytes are counted here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from flask import Request
from werkzeug.exceptions import BadRequest, LengthRequired, RequestEntityTooLarge, RequestTimeout

from service.http.body.encodings import content_coding, decode_body
from service.store.files import convert_disk_errors

READ_BYTES = 2**20

BODY_DIGEST_KEY = "active-query.body_digest"
"""Key of the WSGI environment: a hash to update with every byte of the body as it is read."""

MAX_IN_MEMORY_BYTES = 2**20
"""A longer document is buffered in a file until it is complete."""


def body_chunks(request: Request, *limits: int) -> Iterator[bytes]:
    """Read and decode the body in pieces. The smallest limit applies to the bytes sent and to the decoded bytes.

    Raises LengthRequired, RequestEntityTooLarge, UnknownCoding, or BadRequest for an incomplete body.
    """
    limit = min(limits)
    return decode_body(content_coding(request), sent_chunks(request, limit), limit)


def whole_body(chunks: Iterator[bytes], folder: Path | None) -> bytes | bytearray:
    """Return the whole body. Raises StoreFull.

    A long one is buffered in an unnamed file in a folder: hundreds of slow clients may be sending at once.
    """
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > MAX_IN_MEMORY_BYTES:
            break
    else:
        return data
    with convert_disk_errors(), TemporaryFile(dir=folder) as file:
        file.write(data)
        data.clear()
        for chunk in chunks:
            file.write(chunk)
        file.seek(0)
        return file.read()


def sent_chunks(request: Request, limit: int) -> Iterator[bytes]:
    """Read the body in pieces as they are sent."""
    chunked = request.environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower() == "chunked"
    length = None if chunked else request.content_length
    if length is None and not chunked:
        raise LengthRequired("send a Content-Length, or Transfer-Encoding: chunked")
    if length is not None and length > limit:
        raise too_large(limit)
    stream: BinaryIO = request.environ["wsgi.input"]
    digest = request.environ.get(BODY_DIGEST_KEY)
    n_read = 0
    while length is None or n_read < length:
        data = read_some(stream, READ_BYTES if length is None else min(READ_BYTES, length - n_read))
        n_read += len(data)
        if n_read > limit:
            raise too_large(limit)
        if data:
            if digest is not None:
                digest.update(data)
            yield data
        elif length is None:
            return
        else:
            raise BadRequest(f"the body ends after {n_read} of the {length} bytes in its Content-Length")


def too_large(limit: int) -> RequestEntityTooLarge:
    """Return the error for a body that exceeds the limit."""
    return RequestEntityTooLarge(
        f"the body is larger than {limit} bytes; send a large pool as multipart/form-data with .npy parts"
    )


def read_some(stream: BinaryIO, size: int) -> bytes:
    """Read from the server's stream. Raises RequestTimeout, or BadRequest for an incomplete body."""
    try:
        return stream.read(size)
    except TimeoutError as error:
        raise RequestTimeout("the body arrived too slowly; on a slow connection, send less at once") from error
    except OSError as error:
        raise BadRequest("the body could not be read to its end") from error
