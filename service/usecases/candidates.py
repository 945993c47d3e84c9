"""What may be asked about: samples without a label; and again those that too few labelled, or where it is doubtful."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.domain.consensus import Consensus
from service.domain.labels import SKIP, contains, look_up, run_starts
from service.domain.leases import NO_HOLDINGS, Holdings
from service.domain.project import Project
from service.learning.weigh_votes import estimate_consensus
from service.store import Snapshot, Store
from service.store.layout import model_file
from service.strategies import Need
from service.strategies.engine.question import NO_ROWS, Positions, RelabelCandidates
from service.usecases.query_common import QueryRequest, open_samples


@dataclass(frozen=True, slots=True, eq=False)
class OpenRows:
    """What may be asked about: rows without label or skip (n,); those with too few labels, in the order of asking;
    and the others with a label that this annotator has not seen. `held` is what this annotator holds, none of which is
    among these. `missed` (k,) tells which of what others hold would be, and `pending` is all that is held.
    """

    is_open: NDArray[np.bool_]
    begun: Positions
    labeled: Positions
    held: Positions = field(default_factory=lambda: NO_ROWS)
    missed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    pending: Positions = field(default_factory=lambda: NO_ROWS)


def open_rows(project: Project, request: QueryRequest, holdings: Holdings = NO_HOLDINGS) -> OpenRows:
    """Return what a request may be answered with. Raises InvalidRequest for an index that there is not.

    Those nearest to what they need come first among the begun, then those that have waited longest.
    """
    is_open = open_samples(request, project.n_samples, NO_ROWS)
    votes, labeled = project.votes, NO_ROWS
    begun = NO_ROWS
    if request.asks_again:
        labeled = unseen_by_annotator(project, request, votes.majority.labeled)
        labeled = labeled[is_open[labeled]]
        places = look_up(votes.majority.labeled, labeled)[0]
        n_labels = votes.n_labels[places]
        order = np.lexsort((first_label_times(project)[places], -n_labels))
        needs_more = n_labels < request.overlap
        begun, labeled = labeled[order[needs_more[order]]], labeled[~needs_more]
    asked = is_open.copy() if holdings else is_open
    is_open[votes.index] = False
    rows = OpenRows(is_open, begun, labeled)
    return without_held(rows, holdings, asked) if holdings else rows


def without_held(rows: OpenRows, holdings: Holdings, asked: NDArray[np.bool_]) -> OpenRows:
    """Return the rows but those that are held; of its own the annotator keeps what it asks about (n,)."""
    own, others = holdings.own, holdings.others
    missed = rows.is_open[others] | np.isin(others, rows.begun) | np.isin(others, rows.labeled)
    is_free = np.ones(len(asked), bool)
    is_free[own] = is_free[others] = False
    begun, labeled = (index[is_free[index]] for index in (rows.begun, rows.labeled))
    return OpenRows(rows.is_open & is_free, begun, labeled, own[asked[own]], missed, np.concatenate([own, others]))


def unseen_by_annotator(project: Project, request: QueryRequest, index: Positions) -> Positions:
    """Return the samples that the annotator of a request has neither labelled nor skipped."""
    if request.annotator not in project.annotators:
        return index
    code = project.annotators.index(request.annotator)
    return index[~contains(project.votes.index[project.votes.annotator == code], index)]


def first_label_times(project: Project) -> NDArray[np.int64]:
    """Return when each labelled sample got the first of its labels (l,)."""
    votes = project.votes
    is_label = votes.code != SKIP
    return np.minimum.reduceat(votes.at[is_label], np.flatnonzero(run_starts(votes.index[is_label])))


def with_rows(is_open: NDArray[np.bool_], rows: Positions) -> NDArray[np.bool_]:
    """Return a mask (n,) in which these rows are open, too."""
    is_open = is_open.copy()
    is_open[rows] = True
    return is_open


def opinions_of(store: Store, snapshot: Snapshot, request: QueryRequest, rows: OpenRows) -> RelabelCandidates | None:
    """Return what is thought of labels that may be asked for again; None where the strategy does not, or nobody knows.

    Labels that came after the last fit are not doubted before the next.
    """
    if Need.VOTES not in request.strategy.needs or snapshot.model is None:
        return None
    votes = snapshot.project.votes
    consensus = current_consensus(store, snapshot)
    own, places = consensus.match(votes)
    index = votes.majority.labeled[places]
    asked = contains(rows.labeled, index)
    return RelabelCandidates(
        rows=index[asked],
        quality=consensus.quality[own[asked]],
        weight=weights_of(snapshot.project, consensus)[places[asked]],
        model_weight=consensus.model_weight,
        usual_weight=float(consensus.weight.mean()),
        temperature=consensus.temperature,
        n_classes=consensus.n_classes,
    )


def current_consensus(store: Store, snapshot: Snapshot) -> Consensus:
    """Return what was found out about the votes at the last fit, or now where there was nothing to weigh then."""
    project, pool = snapshot.project, snapshot.pool
    if project.consensus is not None:
        return project.consensus
    if project.model is None or pool is None:
        raise ValueError("a consensus is weighed beside a model and its pool")

    def make() -> tuple[Consensus, int]:
        consensus = estimate_consensus(project, pool.take(project.votes.majority.labeled))
        return consensus, consensus.n_bytes

    key = (project.pool_id, model_file(project.model.version), "crowd", project.labels_revision)
    found: Consensus = store.cache.get_or_make(key, make, "crowd")
    return found


def weights_of(project: Project, consensus: Consensus) -> NDArray[np.float64]:
    """Return what all who labelled a sample count together (l,), those who are not known nothing."""
    votes = project.votes
    is_label = votes.code != SKIP
    rows, found = look_up(consensus.annotator.astype(np.int64), votes.annotator[is_label].astype(np.int64))
    weights = np.zeros(len(rows))
    weights[found] = consensus.weight[rows[found]]
    return np.add.reduceat(weights, np.flatnonzero(run_starts(votes.index[is_label])))
