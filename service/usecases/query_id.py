"""The id of a query: a digest of the request and of the state that it is about, ending with a mark of the strategy.

A query is a pure read, so only its id can say later which strategy asked for a label.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads
from service.domain.leases import Holdings
from service.learning.pool import CHUNK_CELLS, SparseRows
from service.strategies import STRATEGIES
from service.usecases.query_request import QueryRequest


def query_id(request: QueryRequest, state: tuple[object, ...]) -> str:
    """Return an id that is the same for the same request about the same state."""
    return query_ids(request, state).own


class QueryIds(NamedTuple):
    """The id of a query, and the id that it has without a seed."""

    own: str
    without_seed: str


def query_ids(request: QueryRequest, state: tuple[object, ...]) -> QueryIds:
    """Return the ids of a request about a state."""
    lists = request.exclude, request.candidates
    before_seed = *state, request.strategy.name, sorted(request.params.items()), request.batch_size
    after_seed = (
        request.share_explored,
        request.purpose,
        request.overlap,
        request.annotator if request.asks_again else None,
        [None if indices is None else len(indices) for indices in lists],
        *([] if request.target is None else [request.target]),
    )
    begin, end, arrays = repr(before_seed)[:-1], repr(after_seed)[1:], digest_of_arrays(request)

    def with_seed(seed: int | None) -> str:
        return hashlib.blake2b(f"{begin}, {seed}, {end}".encode() + arrays, digest_size=16).hexdigest()

    own = with_seed(request.random_state)
    return QueryIds(own, own if request.random_state is None else with_seed(None))


def digest_of_arrays(request: QueryRequest) -> bytes:
    """Return the lists of a request, and a digest of each of its arrays."""
    parts = [indices.tobytes() for indices in (request.exclude, request.candidates) if indices is not None]
    for field, array in arrays_of(request):
        parts += (f"{field} {array.dtype.str} {array.shape}".encode(), digest(array))
    return b"".join(parts)


def with_strategy(query: str, strategy: str) -> str:
    """Return the id of a query with the mark of the strategy that answered it at its end."""
    mark = strategy_mark(strategy)
    return query[: -len(mark)] + mark


@cache
def strategy_mark(strategy: str) -> str:
    """Return the last digits of the ids of a strategy's queries."""
    return hashlib.blake2b(strategy.encode(), digest_size=4).hexdigest()


def count_strategies(queries: NDArray[np.bytes_]) -> dict[str, int]:
    """Return how many of the query ids (n,) are of each strategy; an id from elsewhere is of none."""
    named = {strategy_mark(name): name for name in STRATEGIES}
    counts: Counter[str] = Counter()
    for query, times in zip(*np.unique(queries, return_counts=True), strict=True):
        strategy = named.get(query.decode()[-8:])
        if strategy is not None:
            counts[strategy] += int(times)
    return dict(counts)


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
