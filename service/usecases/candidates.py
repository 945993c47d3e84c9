"""The samples that a query may ask about: those without a label, and those whose label is incomplete or in doubt."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.domain.consensus import Consensus
from service.domain.leases import NO_HOLDINGS, Holdings
from service.domain.project import Project
from service.domain.sorted_columns import contains, look_up, run_starts
from service.domain.votes import SKIP
from service.learning.weigh_votes import estimate_consensus
from service.store import Snapshot
from service.store.cache import Cache
from service.store.layout import model_file
from service.strategies import Need
from service.strategies.engine.question import NO_ROWS, Positions, RelabelCandidates
from service.usecases.query_request import QueryRequest, open_samples


@dataclass(frozen=True, slots=True, eq=False)
class OpenRows:
    """The samples a query may ask about; no sample is in two of these.

    `is_open` (n,) are those without label or skip, `partly_labeled` those with fewer labels than `overlap`, in the
    order of asking, `labeled` other labelled ones that the annotator has not seen, and `leased` the annotator's own.
    `is_candidate` (k,) says which samples leased to others could be asked about, and `pending` are all leased ones.
    """

    is_open: NDArray[np.bool_]
    partly_labeled: Positions
    labeled: Positions
    leased: Positions = field(default_factory=lambda: NO_ROWS)
    is_candidate: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    pending: Positions = field(default_factory=lambda: NO_ROWS)


def open_rows(project: Project, request: QueryRequest, holdings: Holdings = NO_HOLDINGS) -> OpenRows:
    """Return the samples that a request may ask about. Raises InvalidRequest for an index beyond the pool.

    Of the partly labelled ones, those that lack the fewest labels come first, then those labelled first.
    """
    is_allowed = open_samples(request, project.n_samples, NO_ROWS)
    votes, labeled, partly_labeled = project.votes, NO_ROWS, NO_ROWS
    if request.asks_again:
        labeled = unseen_by_annotator(project, request, votes.majority.labeled)
        labeled = labeled[is_allowed[labeled]]
        positions = look_up(votes.majority.labeled, labeled)[0]
        n_labels = votes.n_labels[positions]
        order = np.lexsort((first_label_times(project)[positions], -n_labels))
        needs_more = n_labels < request.overlap
        partly_labeled, labeled = labeled[order[needs_more[order]]], labeled[~needs_more]
    is_open = is_allowed.copy() if holdings else is_allowed
    is_open[project.labels.labeled] = is_open[project.labels.skipped] = False
    is_open[skipped_by_annotator(project, request)] = False
    rows = OpenRows(is_open, partly_labeled, labeled)
    return without_leased(rows, holdings, is_allowed) if holdings else rows


def without_leased(rows: OpenRows, holdings: Holdings, is_allowed: NDArray[np.bool_]) -> OpenRows:
    """Return the rows without leased samples, and the allowed (n,) ones of the annotator's own leases."""
    own, others = holdings.own, holdings.others
    is_candidate = rows.is_open[others] | np.isin(others, rows.partly_labeled) | np.isin(others, rows.labeled)
    is_free = np.ones(len(is_allowed), bool)
    is_free[own] = is_free[others] = False
    return OpenRows(
        is_open=rows.is_open & is_free,
        partly_labeled=rows.partly_labeled[is_free[rows.partly_labeled]],
        labeled=rows.labeled[is_free[rows.labeled]],
        leased=own[is_allowed[own]],
        is_candidate=is_candidate,
        pending=np.concatenate([own, others]),
    )


def why_exhausted(
    request: QueryRequest,
    n_samples: int,
    *,
    labeled: Positions,
    leased_to_others: Positions = NO_ROWS,
    removed: Positions = NO_ROWS,
) -> str:
    """Return why none of `n_samples` samples can be asked about:

    how many are labelled, skipped, removed, leased or left out.
    """
    is_rest = open_samples(request, n_samples, NO_ROWS)
    counts = {"left out by the request": n_samples - int(np.count_nonzero(is_rest))}
    for what, rows in (("leased to others", leased_to_others), ("labelled", labeled), ("removed", removed)):
        counts[what] = int(np.count_nonzero(is_rest[rows]))
        is_rest[rows] = False
    counts["skipped"] = int(np.count_nonzero(is_rest))
    return "nothing is left to ask: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def few_left(n_selected: int) -> str:
    """Return why a batch has only `n_selected` samples."""
    return f"only {n_selected} {'is' if n_selected == 1 else 'are'} left to ask"


def unseen_by_annotator(project: Project, request: QueryRequest, index: Positions) -> Positions:
    """Return the samples that the annotator of a request has neither labelled nor skipped."""
    return index[~contains(project.votes.index[is_by_annotator(project, request)], index)]


def skipped_by_annotator(project: Project, request: QueryRequest) -> Positions:
    """Return the samples that the annotator of a request has skipped, where others may still be asked about them."""
    if project.skips_to_drop == 1:
        return NO_ROWS
    skipped: Positions = project.votes.index[is_by_annotator(project, request) & (project.votes.code == SKIP)]
    return skipped


def is_by_annotator(project: Project, request: QueryRequest) -> NDArray[np.bool_]:
    """Return a mask of the votes by the annotator of a request."""
    annotator = project.votes.annotator
    code = next((code for code, name in enumerate(project.annotators) if name == request.annotator), None)
    return np.zeros(len(annotator), bool) if code is None else annotator == code


def first_label_times(project: Project) -> NDArray[np.int64]:
    """Return the time of the first label of each labelled sample (l,)."""
    votes = project.votes
    is_label = votes.code != SKIP
    return np.minimum.reduceat(votes.at[is_label], np.flatnonzero(run_starts(votes.index[is_label])))


def with_rows(is_open: NDArray[np.bool_], rows: Positions) -> NDArray[np.bool_]:
    """Return a mask (n,) in which these rows are open, too."""
    is_open = is_open.copy()
    is_open[rows] = True
    return is_open


def relabel_candidates(
    cache: Cache, snapshot: Snapshot, request: QueryRequest, rows: OpenRows
) -> RelabelCandidates | None:
    """Return the labelled samples whose consensus may be in doubt; None without a model or for other strategies.

    Labels given since the last fit are not among them.
    """
    if Need.VOTES not in request.strategy.needs or snapshot.model is None:
        return None
    votes = snapshot.project.votes
    consensus = current_consensus(cache, snapshot)
    own, positions = consensus.match(votes)
    index = votes.majority.labeled[positions]
    is_allowed = contains(rows.labeled, index)
    return RelabelCandidates(
        rows=index[is_allowed],
        quality=consensus.quality[own[is_allowed]],
        weight=total_weights(snapshot.project, consensus)[positions[is_allowed]],
        model_weight=consensus.model_weight,
        usual_weight=float(consensus.weight.mean()),
        temperature=consensus.temperature,
        n_classes=consensus.n_classes,
    )


def current_consensus(cache: Cache, snapshot: Snapshot) -> Consensus:
    """Return the consensus of the last fit; if that had no votes to weigh, estimate it now and cache it."""
    project, pool = snapshot.project, snapshot.pool
    if project.consensus is not None:
        return project.consensus
    if project.model is None or pool is None:
        raise ValueError("a consensus needs a fitted project and its pool")

    def estimate() -> tuple[Consensus, int]:
        consensus = estimate_consensus(project, pool.take(project.votes.majority.labeled), pool.medians)
        return consensus, consensus.n_bytes

    key = (project.pool_id, model_file(project.model.version), "crowd", project.labels_revision)
    consensus: Consensus = cache.get_or_make(key, estimate, "crowd")
    return consensus


def total_weights(project: Project, consensus: Consensus) -> NDArray[np.float64]:
    """Return the summed weight of the annotators of each labelled sample (l,); unknown annotators weigh 0."""
    votes = project.votes
    is_label = votes.code != SKIP
    rows, found = look_up(consensus.annotator.astype(np.int64), votes.annotator[is_label].astype(np.int64))
    weights = np.zeros(len(rows))
    weights[found] = consensus.weight[rows[found]]
    return np.add.reduceat(weights, np.flatnonzero(run_starts(votes.index[is_label])))
