"""The request of POST /query, and the checks that queries with and without a project share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import EncodedLabels
from service.domain.parameters import Parameters
from service.domain.project import TargetName
from service.domain.sample_ids import PoolIds, SampleId
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.learning.external_predictions import ExternalNumbers, ExternalPredictions
from service.learning.pool import Rows
from service.strategies import AUTO_FROM, AUTO_SHARE, STRATEGIES, Need, Strategy
from service.usecases.texts import TextUpload

Included = Literal["text", "url", "features"]
"""What a query can return of each sample besides its index, id and score."""

MAX_INCLUDED_CELLS = 1_000_000
"""Maximum number of features in a reply."""

HEAVY_SAMPLES = 10_000
"""Pools of at least this size count as heavy requests."""


@dataclass(frozen=True, slots=True, eq=False)
class QueryRequest:
    """The request of POST /query. `exclude` and `candidates` hold indices into the pool, `exclude_ids` and
    `candidate_ids` ids of it, None where not sent.

    `given` replaces the project's model. Without a project, `X` and `y` are the pool and its labels, and `target` says
    what these are if they do not. A sample needs labels of `overlap` annotators, and no annotator is asked about it
    twice. With `lease_seconds` above 0, the samples are leased to `annotator` for so long. `texts` replace `X`: their
    features are made with the parameters `text`. `include` says what else to return of each sample. It and `explain` do
    not change which samples are chosen, nor the query id.
    """

    project_id: str | None
    strategy: Strategy
    params: Parameters
    batch_size: int = 1
    exclude: NDArray[np.int64] | None = None
    candidates: NDArray[np.int64] | None = None
    exclude_ids: Sequence[SampleId] | None = None
    candidate_ids: Sequence[SampleId] | None = None
    random_state: int | None = None
    explore: float | None = None
    purpose: Literal["training", "evaluation"] = "training"
    given: ExternalPredictions | ExternalNumbers | None = None
    X: Rows | None = None
    texts: TextUpload | None = None
    text: Parameters | None = None
    include: Sequence[Included] = ()
    y: EncodedLabels | None = None
    target: TargetName | None = None
    explain: bool = False
    annotator: str | None = None
    overlap: int = 1
    lease_seconds: int = 0

    @property
    def asks_again(self) -> bool:
        """Whether samples that have a label may be asked about again."""
        return self.overlap > 1 or Need.VOTES in self.strategy.needs

    @property
    def share_explored(self) -> float:
        """Share of the batch that is drawn at random: the one requested, or the default of the strategy."""
        if self.purpose == "evaluation":
            return 1.0
        if self.explore is not None:
            return self.explore
        return AUTO_SHARE if self.strategy.name == "auto" and self.batch_size >= AUTO_FROM else 0.0


def is_heavy(request: QueryRequest, n_samples: int) -> bool:
    """Return whether a query may take long: over a large pool, or one that weighs votes."""
    return n_samples >= HEAVY_SAMPLES or Need.VOTES in request.strategy.needs


def enter_if_heavy(
    request: QueryRequest, n_samples: int, enter: Callable[[], AbstractContextManager[None]]
) -> AbstractContextManager[None]:
    """Return `enter()` for a query that may take long."""
    return enter() if is_heavy(request, n_samples) else nullcontext()


def open_samples(request: QueryRequest, n_samples: int, labeled: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask (n,) of the samples that may be asked about: those the request allows, without the labelled ones.

    Raises InvalidRequest for an index beyond the pool.
    """
    check_indices(request, n_samples)
    asked = np.ones(n_samples, bool)
    if request.candidates is not None:
        asked[:] = False
        asked[request.candidates] = True
    if request.exclude is not None:
        asked[request.exclude] = False
    asked[labeled] = False
    return asked


def check_indices(request: QueryRequest, n_samples: int) -> None:
    """Raise InvalidRequest for the first indices beyond the pool."""
    errors = [
        FieldError(f"/{field}/{position}", f"must be from 0 to {n_samples - 1}")
        for field, indices in (("exclude", request.exclude), ("candidates", request.candidates))
        if indices is not None
        for position in np.flatnonzero(indices >= n_samples)[: MAX_ERRORS + 1].tolist()
    ]
    if errors:
        raise InvalidRequest(errors)


def with_indices(request: QueryRequest, ids: PoolIds | None) -> QueryRequest:
    """Return a request with the indices of its ids, beside those that it has. Raises InvalidRequest for unknown ids."""
    if request.exclude_ids is None and request.candidate_ids is None:
        return request
    return replace(
        request,
        exclude=union_of(request.exclude, "exclude_ids", request.exclude_ids, ids),
        candidates=union_of(request.candidates, "candidate_ids", request.candidate_ids, ids),
        exclude_ids=None,
        candidate_ids=None,
    )


def union_of(
    indices: NDArray[np.int64] | None, field: str, names: Sequence[SampleId] | None, ids: PoolIds | None
) -> NDArray[np.int64] | None:
    """Return indices and those of some ids, None if neither was sent. Raises InvalidRequest for unknown ids."""
    if names is None:
        return indices
    if ids is None:
        raise InvalidRequest.at(f"/{field}", "must be left out: this project has no ids")
    found = [ids.find(name) for name in names]
    unknown = (
        FieldError(f"/{field}/{position}", ids.why_unknown(names[position]))
        for position, index in enumerate(found)
        if index is None
    )
    if errors := list(islice(unknown, MAX_ERRORS + 1)):
        raise InvalidRequest(errors)
    of_ids = np.array(found, np.int64)
    return of_ids if indices is None else np.concatenate([indices, of_ids])


FIELDS = {
    Need.PROBABILITIES: "probabilities",
    Need.PREDICTIONS: "member_predictions",
    Need.MEMBERS: "member_probabilities",
    Need.FEATURES: "X",
    Need.LABELS: "y",
}
"""The request field that provides each need of a strategy when there is no project."""


def check_needs(request: QueryRequest, met: frozenset[Need], target: TargetName) -> None:
    """Raise InvalidRequest if the strategy needs more than is `met`, naming the strategies of a target that do not."""
    missing = request.strategy.needs - met
    if not missing:
        return
    able = (name for name, each in STRATEGIES.items() if each.needs <= met and target in each.targets)
    others = ", ".join(sorted(able))
    name, alternatives = request.strategy.name, f"strategies that work with what was sent: {others}"
    if Need.MODEL in missing:
        work = "weighs the annotators' labels" if Need.VOTES in missing else "runs or retrains the model"
        problem = f"{name!r} {work}: it needs a project with its own model"
        raise InvalidRequest.at("/strategy", f"{problem}; {alternatives}")
    fields = {**FIELDS, Need.MEMBERS: FIELDS[Need.PREDICTIONS]} if target == "number" else FIELDS
    raise InvalidRequest(
        FieldError(f"/{fields[need]}", f"is required for strategy {name!r}; {alternatives}") for need in sorted(missing)
    )


def needs_met_by(given: ExternalPredictions | ExternalNumbers | None) -> frozenset[Need]:
    """Return the needs that the predictions of a caller's own model meet."""
    if given is None:
        return frozenset()
    if isinstance(given, ExternalNumbers):
        return frozenset({Need.PREDICTIONS, Need.MEMBERS})
    return frozenset({Need.PROBABILITIES} | ({Need.MEMBERS} if given.members is not None else set()))
