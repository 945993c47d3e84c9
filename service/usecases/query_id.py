"""The id of a query: a digest of the request and of the state that it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads
from service.domain.leases import Holdings
from service.learning.pool import CHUNK_CELLS, SparseRows
from service.usecases.query_request import QueryRequest


def query_id(request: QueryRequest, state: tuple[object, ...]) -> str:
    """Return an id that is the same for the same request about the same state."""
    lists = request.exclude, request.candidates
    asked = (
        *state,
        request.strategy.name,
        sorted(request.params.items()),
        request.batch_size,
        request.random_state,
        request.share_explored,
        request.purpose,
        request.overlap,
        request.annotator if request.asks_again else None,
        [None if indices is None else len(indices) for indices in lists],
    )
    total = hashlib.blake2b(repr(asked).encode(), digest_size=16)
    for indices in lists:
        total.update(b"" if indices is None else indices.data)
    for field, array in arrays_of(request):
        total.update(f"{field} {array.dtype.str} {array.shape}".encode())
        total.update(digest(array))
    return total.hexdigest()


def arrays_of(request: QueryRequest) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays of the request, by name."""
    if request.given is not None:
        yield from request.given.arrays.items()
    if isinstance(request.X, SparseRows):
        yield from (("data", request.X.data), ("indices", request.X.indices), ("indptr", request.X.indptr))
    elif request.X is not None:
        yield "X", request.X
    if request.y is not None:
        yield "y", request.y.codes
        yield "values", np.frombuffer(repr(request.y.values).encode(), np.uint8)


def digest(array: NDArray[Any]) -> bytes:
    """Return a digest of an array's values, whatever their order in memory; each block of rows has its own part."""
    parts = array if array.ndim == 3 else [array]
    step = max(1, CHUNK_CELLS // (array.shape[-1] if array.ndim > 1 else 1))
    blocks = [part[start : start + step] for part in parts for start in range(0, len(part), step)]
    digests = [b""] * len(blocks)

    def work(number: int) -> None:
        block = np.ascontiguousarray(blocks[number]).reshape(-1)
        digests[number] = hashlib.blake2b(block.view(np.uint8).data, digest_size=16).digest()

    run_in_threads(work, range(len(blocks)))
    return b"".join(digests)


def holdings_digest(holdings: Holdings) -> tuple[str, ...]:
    """Return a digest of what is leased, empty without any leases, so that other leases give another query id."""
    if not holdings:
        return ()
    digest = hashlib.blake2b(holdings.own.data, digest_size=16)
    digest.update(b" ")
    digest.update(holdings.others.data)
    return (digest.hexdigest(),)


def skips_digest(skipped: NDArray[np.int64]) -> tuple[str, ...]:
    """Return a digest of the samples that only this annotator is not asked about, empty without any."""
    return (hashlib.blake2b(skipped.data, digest_size=16).hexdigest(),) if len(skipped) else ()
