"""What all ways to ask have in common: the request, the draw of what is explored, and a name for the question."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads
from service.domain.labels import EncodedLabels
from service.domain.parameters import Parameters
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.learning.external_predictions import ExternalPredictions
from service.learning.pool import CHUNK_CELLS, Rows, SparseRows
from service.strategies import (
    AUTO_FROM,
    AUTO_SHARE,
    STRATEGIES,
    Need,
    Question,
    Selection,
    Strategy,
    next_in_random_order,
    select,
)

HEAVY_SAMPLES = 10_000
"""From so many samples on a selection may take long."""


@dataclass(frozen=True, slots=True, eq=False)
class QueryRequest:
    """What POST /query was asked. `exclude` and `candidates` hold indices into the pool, None where not sent.

    `given` replaces the project's model. Without a project, `X` and `y` are the pool and its labels. What is explained
    is the same question: `explain` has no part in its name. A sample needs labels of `overlap` people, and `annotator`
    is given none twice. With `lease_seconds` above 0 what is chosen is held for `annotator` so long.
    """

    project_id: str | None
    strategy: Strategy
    params: Parameters
    batch_size: int = 1
    exclude: NDArray[np.int64] | None = None
    candidates: NDArray[np.int64] | None = None
    random_state: int | None = None
    explore: float | None = None
    given: ExternalPredictions | None = None
    X: Rows | None = None
    y: EncodedLabels | None = None
    explain: bool = False
    annotator: str | None = None
    overlap: int = 1
    lease_seconds: int = 0

    @property
    def asks_again(self) -> bool:
        """Whether samples that have a label may be among those asked about."""
        return self.overlap > 1 or Need.VOTES in self.strategy.needs

    @property
    def share_explored(self) -> float:
        """Which share of the batch is to be drawn and not chosen: what was asked, or the default of the strategy."""
        if self.explore is not None:
            return self.explore
        return AUTO_SHARE if self.strategy.name == "auto" and self.batch_size >= AUTO_FROM else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What was chosen: first `n_held` samples that the annotator holds, then `n_begun` with too few labels; last
    `n_drawn` that were drawn for exploration.
    """

    selection: Selection
    n_held: int
    n_begun: int
    n_drawn: int


def enter_if_heavy(
    request: QueryRequest, n_samples: int, enter: Callable[[], AbstractContextManager[None]]
) -> AbstractContextManager[None]:
    """Return a place for heavy work where the answer may take long: of many samples, or if votes must be weighed."""
    is_heavy = n_samples >= HEAVY_SAMPLES or Need.VOTES in request.strategy.needs
    return enter() if is_heavy else nullcontext()


def choose(question: Question, request: QueryRequest, seed: Sequence[int], order: int) -> Batch:
    """Take what is held and what was begun, draw the share that is explored, and choose the others.

    What is drawn comes in the random order that belongs to the seed `order`.
    """
    held = question.leased[: request.batch_size]
    begun = question.partly_labeled[: request.batch_size - len(held)]
    n_wanted = min(request.batch_size - len(held) - len(begun), question.n_open)
    is_new = question.is_open
    if question.relabel_candidates is not None:
        is_new = is_new.copy()
        is_new[question.relabel_candidates.rows] = False
    drawn = next_in_random_order(is_new, int(request.share_explored * n_wanted + 0.5), order)
    n_drawn = len(drawn)
    rng = np.random.default_rng(seed)
    is_left = question.is_open.copy()
    is_left[drawn] = False
    chosen = select(request.strategy, request.params, replace(question, is_open=is_left), n_wanted - n_drawn, rng)
    if len(held) + len(begun) + n_drawn == 0:
        return Batch(chosen, 0, 0, 0)
    notes = [
        f"{len(held)} of the batch, its first, were held for this annotator already" if len(held) else None,
        f"{len(begun)} of the batch, {'which follow' if len(held) else 'its first'}, have a label and need more"
        if len(begun)
        else None,
        chosen.fallback_reason,
        f"{n_drawn} of the batch, its last, were drawn for exploration" if n_drawn else None,
    ]
    unscored = [np.full(n_rows, np.nan) for n_rows in (len(held) + len(begun), n_drawn)]
    whole = replace(
        chosen,
        indices=np.concatenate([held, begun, chosen.indices, drawn]),
        scores=None if chosen.scores is None else np.concatenate([unscored[0], chosen.scores, unscored[1]]),
        fallback_reason="; ".join(note for note in notes if note),
    )
    return Batch(whole, len(held), len(begun), n_drawn)


def open_samples(request: QueryRequest, n_samples: int, settled: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which samples (n,) may be asked about: none of the settled, and as the request narrows them.

    Raises InvalidRequest for an index that there is not.
    """
    check_indices(request, n_samples)
    asked = np.ones(n_samples, bool)
    if request.candidates is not None:
        asked[:] = False
        asked[request.candidates] = True
    if request.exclude is not None:
        asked[request.exclude] = False
    asked[settled] = False
    return asked


def check_indices(request: QueryRequest, n_samples: int) -> None:
    """Raise InvalidRequest for each index that the pool does not have; of millions, the first few will do."""
    errors = [
        FieldError(f"/{field}/{position}", f"must be from 0 to {n_samples - 1}")
        for field, indices in (("exclude", request.exclude), ("candidates", request.candidates))
        if indices is not None
        for position in np.flatnonzero(indices >= n_samples)[: MAX_ERRORS + 1].tolist()
    ]
    if errors:
        raise InvalidRequest(errors)


FIELDS = {
    Need.PROBABILITIES: "probabilities",
    Need.MEMBERS: "member_probabilities",
    Need.FEATURES: "X",
    Need.LABELS: "y",
}
"""The field that brings what a strategy needs, where no project has it."""


def refuse_missing(request: QueryRequest, known: frozenset[Need]) -> None:
    """Raise InvalidRequest when a strategy needs what was not sent, and name those that can do without."""
    missing = request.strategy.needs - known
    if not missing:
        return
    others = ", ".join(sorted(name for name, strategy in STRATEGIES.items() if strategy.needs <= known))
    name, otherwise = request.strategy.name, f"with what was sent there are {others}"
    if Need.MODEL in missing:
        what = "weigh who said what" if Need.VOTES in missing else "ask the model anew, or train it"
        problem = f"{name!r} has to {what}: it needs a project, and the project's own model"
        raise InvalidRequest.at("/strategy", f"{problem}; {otherwise}")
    raise InvalidRequest(
        FieldError(f"/{FIELDS[need]}", f"is required for strategy {name!r}; {otherwise}") for need in sorted(missing)
    )


def needs_met_by(given: ExternalPredictions | None) -> frozenset[Need]:
    """Return what a caller's own model meets."""
    if given is None:
        return frozenset()
    return frozenset({Need.PROBABILITIES} | ({Need.MEMBERS} if given.members is not None else set()))


def query_id(request: QueryRequest, state: tuple[object, ...]) -> str:
    """Name a question by what it asked of which state, so that asking it again gives the same name."""
    lists = request.exclude, request.candidates
    asked = (
        *state,
        request.strategy.name,
        sorted(request.params.items()),
        request.batch_size,
        request.random_state,
        request.share_explored,
        request.overlap,
        request.annotator if request.asks_again else None,
        [None if indices is None else len(indices) for indices in lists],
    )
    name = hashlib.blake2b(repr(asked).encode(), digest_size=16)
    for indices in lists:
        name.update(b"" if indices is None else indices.data)
    for field, array in arrays_of(request):
        name.update(f"{field} {array.dtype.str} {array.shape}".encode())
        name.update(digest(array))
    return name.hexdigest()


def arrays_of(request: QueryRequest) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield what was sent of samples, by name."""
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
    """Return what tells an array from others of its type and shape, whatever the order that its axes lie in.

    Members are told from one another by their places, and each is read some rows at a time.
    """
    parts = array if array.ndim == 3 else [array]
    step = max(1, CHUNK_CELLS // (array.shape[-1] if array.ndim > 1 else 1))
    blocks = [part[start : start + step] for part in parts for start in range(0, len(part), step)]
    digests = [b""] * len(blocks)

    def work(number: int) -> None:
        block = np.ascontiguousarray(blocks[number]).reshape(-1)
        digests[number] = hashlib.blake2b(block.view(np.uint8).data, digest_size=16).digest()

    run_in_threads(work, range(len(blocks)))
    return b"".join(digests)
