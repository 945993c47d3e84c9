"""Write and read zip archives of .npy arrays and text in pieces, without compression or pickles."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

from service.domain.parameters import pointer_token
from service.errors import InvalidRequest
from service.http.body.formats.csr import UNREADABLE, BoundedReads, CsrReader, Member, stage_rows
from service.http.body.formats.npy import MatrixSink
from service.learning.pool import Rows, SparseRows
from service.store.files import COPY_BYTES
from service.store.staging import SPARSE, StagedRows, Staging

MANIFEST = "manifest.json"

Chunks = Iterable[bytes]
Sums = Mapping[str, tuple[int, int]]
"""Size in bytes and CRC-32 of each member."""


class ChunkBuffer:
    """A file whose written bytes can be taken out."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Append bytes."""
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing, as the bytes are in memory."""

    def drain(self) -> bytes:
        """Return and forget the bytes written since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def write_archive(members: Iterable[tuple[str, Chunks]], manifest: Callable[[Sums], bytes]) -> Iterator[bytes]:
    """Yield an archive in pieces, with the manifest, made from the sums of all members, at its end."""
    buffer = ChunkBuffer()
    sums: dict[str, tuple[int, int]] = {}

    def write(name: str, chunks: Chunks) -> Iterator[bytes]:
        member = zipfile.ZipInfo(name)
        with archive.open(member, "w", force_zip64=True) as file:
            for chunk in chunks:
                file.write(chunk)
                yield buffer.drain()
        sums[name] = member.file_size, member.CRC

    # zipfile only needs `write` and `flush`.
    with zipfile.ZipFile(buffer, "w") as archive:  # type: ignore[call-overload]
        for name, chunks in members:
            yield from write(name, chunks)
        yield from write(MANIFEST, [manifest(sums)])
    yield buffer.drain()


def npy_chunks(array: NDArray[Any]) -> Chunks:
    """Yield an array as a .npy file in pieces."""
    head = BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(head, description)
    yield head.getvalue()
    flat, step = array.reshape(-1), COPY_BYTES // array.dtype.itemsize
    for begin in range(0, flat.size, step):
        yield flat[begin : begin + step].tobytes()


def rows_members(name: str, rows: Rows) -> Iterator[tuple[str, Chunks]]:
    """Yield rows as members: one matrix, or the three arrays of CSR."""
    if isinstance(rows, SparseRows):
        yield from ((f"{name}.{part}.npy", npy_chunks(getattr(rows, part))) for part in SPARSE)
    else:
        yield f"{name}.npy", npy_chunks(rows)


class ArchiveFile(BoundedReads):
    """A file with a higher limit, for a list of members that names up to 2,000 segments."""

    most_bytes = 2**21


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """An untrusted archive. Raises InvalidRequest at the wrong member."""

    archive: zipfile.ZipFile

    def sums(self) -> Sums:
        """Return the size and CRC-32 of each member as the archive states them."""
        return {member.filename: (member.file_size, member.CRC) for member in self.archive.infolist()}

    def pieces(self, name: str) -> Iterator[bytes]:
        """Read a member to its end."""
        with self.archive.open(name) as file:
            while piece := file.read(COPY_BYTES):
                yield piece

    def text(self, name: str, limit: int) -> bytes:
        """Return a member of at most `limit` bytes."""
        if self.archive.getinfo(name).file_size > limit:
            raise InvalidRequest.at(member_pointer(name), f"is longer than {limit} bytes")
        return b"".join(self.pieces(name))

    def array(self, name: str, kind: str, most: int, item_bytes: int = 8) -> NDArray[Any]:
        """Return a one-dimensional array of a kind of dtype, with at most `most` items of `item_bytes` each."""
        with errors_at_member(name), self.archive.open(name) as file:
            member = Member(name, file)
            header = member.header
            if header.dtype.kind != kind or len(header.shape) != 1:
                raise ValueError(f"holds {header.dtype} of {len(header.shape)} dimensions; {kind} of one is taken")
            if header.shape[0] > most or header.dtype.itemsize > item_bytes:
                raise ValueError(f"holds {header.shape[0]} of {header.dtype}; at most {most} are allowed")
            array = member.take(member.n_left)
            member.check_end()
            return array

    def rows(self, name: str, shape: tuple[int, int], staging: Staging, max_cells: int, *, sparse: bool) -> StagedRows:
        """Write rows of a known shape to staged files, checked cell by cell."""
        rows = self._sparse(name, shape, staging, max_cells) if sparse else self._dense(name, staging, max_cells)
        if (rows.n_rows, rows.n_columns) != shape:
            problem = f"has {rows.n_rows} x {rows.n_columns} cells, and the manifest says {shape[0]} x {shape[1]}"
            raise InvalidRequest.at(member_pointer(name), problem)
        return rows

    def _dense(self, name: str, staging: Staging, max_cells: int) -> StagedRows:
        sink = MatrixSink(member_pointer(name), staging, max_cells)
        try:
            for piece in self.pieces(f"{name}.npy"):
                sink.write(piece)
            return sink.close()
        finally:
            sink.abandon()

    def _sparse(self, name: str, shape: tuple[int, int], staging: Staging, max_cells: int) -> StagedRows:
        with errors_at_member(name), ExitStack() as files:
            members = {
                part: Member(f"{name}.{part}.npy", files.enter_context(self.archive.open(f"{name}.{part}.npy")))
                for part in SPARSE
            }
            return stage_rows(CsrReader(member_pointer(name), members, shape, max_cells), staging)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an archive of unique, uncompressed members. Raises InvalidRequest."""
    try:
        with ArchiveFile(path) as file, zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
            names = {member.filename for member in listed}
            if len(names) < len(listed):
                raise InvalidRequest.at("", "has two members of the same name")
            for member in listed:
                if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                    raise InvalidRequest.at(
                        member_pointer(member.filename), "is compressed; members are stored as they are"
                    )
            if MANIFEST not in names:
                raise InvalidRequest.at(member_pointer(MANIFEST), "is missing: this is not an exported project")
            yield Archive(archive)
    except UNREADABLE as error:
        raise InvalidRequest.at("", f"is not an archive that can be read: {error}") from None


@contextmanager
def errors_at_member(name: str) -> Iterator[None]:
    """Turn ValueError and ValidationError into InvalidRequest at a member."""
    try:
        yield
    except ValidationError as error:
        raise InvalidRequest.at(member_pointer(name), str(error.messages)) from None
    except ValueError as error:
        raise InvalidRequest.at(member_pointer(name), str(error)) from None


def member_pointer(name: str) -> str:
    """Return the pointer to a member."""
    return f"/{pointer_token(name[:64])}"
