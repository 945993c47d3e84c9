"""Strategies that cluster rows, mostly uncertain ones, and take one from each cluster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads
from service.domain.parameters import Parameter
from service.learning.pool import Features
from service.learning.scoring import INVALID_SCORE, Scores, score_rows
from service.strategies.engine.features import (
    SAMPLE,
    SAMPLE_CELLS,
    center_and_scale,
    dense_width,
    draw_sample,
    fit_k_means,
    limit_clusters,
    notes_of_folding,
    pick_cluster_middles,
    rank_within_clusters,
    read_dense,
)
from service.strategies.engine.greedy import blocks_of, cells_of, scores_at
from service.strategies.engine.notes import format_notes
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import Need, set_strategy
from service.strategies.uncertainty import entropy, margin

MAX_UNSURE = 5000
"""Largest number of rows: k-means finds a thousand clusters in 5,000 rows of 64 features in half a second."""

LIGHTEST = 1e-6
"""Weight of a row that the model is certain of: k-means fails if all weights are 0."""

BETA = Parameter(
    "beta",
    kind="integer",
    default=10,
    minimum=1,
    maximum=100,
    summary=f"The batch is chosen from `beta` times as many rows, those of smallest margin; from at most {MAX_UNSURE} "
    "unless the batch is larger.",
)


@set_strategy(
    "k_means",
    summary="The row nearest to each k-means centre, with as many centres as the batch has rows; biggest cluster "
    "first.",
    source="Xu et al. 2003, Representative Sampling for Text Classification Using Support Vector Machines, "
    "doi:10.1007/3-540-36618-0_28",
    needs=frozenset({Need.FEATURES}),
    parameters=(SAMPLE,),
)
def k_means(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Cluster a drawn sample of the candidates into `batch_size` clusters and take the middle of each.

    The paper clusters the rows inside the margin of a support vector machine; here all rows are eligible.
    """
    drawn, notes = draw_sample(view, sample, batch_size, rng)
    positions, more = pick_cluster_middles(view, drawn, batch_size, rng)
    return positions, None, format_notes("k_means", notes + more)


@set_strategy(
    "margin_k_means",
    summary="Clusters the rows whose two most likely classes are closest, and takes the row nearest to each centre.",
    source="Zhdanov 2019, Diverse Mini-Batch Active Learning, arXiv:1901.05954",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES}),
    parameters=(BETA,),
)
def margin_k_means(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, beta: int
) -> tuple[Positions, None, str | None]:
    """Cluster the `beta` times `batch_size` rows of smallest margin, weighted by 1 - (p(1) - p(2)).

    The row nearest each centre is taken, heaviest cluster first; the paper leaves the order open.
    """
    unsure, scores, notes = find_least_margins(view, batch_size, beta, rng)
    otherwise = "took {} of the batch by margin alone"
    positions, more = pick_cluster_middles(
        view, unsure, batch_size, rng, weights=np.maximum(scores, LIGHTEST), otherwise=otherwise
    )
    return positions, None, format_notes("margin_k_means", notes + more)


@set_strategy(
    "cluster_margin",
    summary="Clusters the rows whose two most likely classes are closest, and takes one of each cluster in turn, "
    "smallest cluster first.",
    source="Citovsky et al. 2021, Batch Active Learning at Scale, arXiv:2107.14263",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES}),
    parameters=(BETA, SAMPLE),
)
def cluster_margin(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, beta: int, sample: int
) -> tuple[Positions, None, str | None]:
    """Assign the `beta` times `batch_size` rows of smallest margin to clusters, and draw from these in turn.

    The size of a cluster is the number of those rows in it. The paper clusters the whole pool once, by average
    linkage. Here nothing is kept between queries: each runs k-means on a drawn sample of the candidates, with as many
    clusters as the batch has rows.
    """
    unsure, _, notes = find_least_margins(view, batch_size, beta, rng)
    if len(unsure) == batch_size:
        return unsure, None, format_notes("cluster_margin", notes)
    drawn, more = draw_sample(view, sample, batch_size, rng)
    Z = center_and_scale(read_dense(view.pool, view.candidates[np.concatenate([drawn, unsure])]))
    n_clusters = limit_clusters(batch_size, len(drawn), dense_width(view.pool))
    if n_clusters < batch_size:
        more.append(f"found {n_clusters} clusters: more would be slow")
    labels = fit_k_means(Z[: len(drawn)], n_clusters, rng).predict(Z[len(drawn) :])
    turn = rank_within_clusters(labels, rng.permutation(len(unsure)))
    order = np.lexsort((rng.permutation(n_clusters)[labels], np.bincount(labels)[labels], turn))
    notes += more + notes_of_folding(view.pool)
    return unsure[order[:batch_size]], None, format_notes("cluster_margin", notes)


def find_least_margins(
    view: PoolView, batch_size: int, beta: int, rng: np.random.Generator
) -> tuple[Positions, Scores, list[str]]:
    """Return the rows of smallest margin, best first, with their scores and notes.

    They are `beta` times the batch if memory and candidates suffice. Rows without finite probabilities are included
    only to fill up the batch.
    """
    scores = view.scores(margin)
    n_wanted = min(beta * batch_size, len(scores))
    n_kept = max(min(n_wanted, MAX_UNSURE, SAMPLE_CELLS // dense_width(view.pool)), batch_size)
    notes = notes_of_broken(scores)
    if n_kept < n_wanted:
        notes.append(f"considered the {n_kept} rows of smallest margin instead of {n_wanted}")
    unsure = top(scores, n_kept, rng)
    unsure = put_invalid_last(unsure, scores[unsure], batch_size)
    return unsure, scores[unsure], notes


@set_strategy(
    "clue",
    summary="Clusters rows weighted by their uncertainty, and takes the row nearest to each centre.",
    source="Prabhu et al. 2021, Active Domain Adaptation via Clustering Uncertainty-weighted Embeddings, "
    "arXiv:2010.08666",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES}),
    parameters=(SAMPLE,),
)
def clue(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Cluster a drawn sample of the candidates, weighted by their entropy, and take the row nearest each centre.

    Heaviest cluster first. The paper clusters a network's last hidden layer; here it is the features as sent.
    """
    drawn, notes = draw_sample(view, sample, batch_size, rng)
    scores = scores_at(view, view.candidates[drawn], entropy)
    notes += notes_of_broken(scores)
    of_drawn = put_invalid_last(np.arange(len(drawn)), scores, batch_size)
    weights = np.maximum(scores[of_drawn], LIGHTEST)
    positions, more = pick_cluster_middles(view, drawn[of_drawn], batch_size, rng, weights=weights)
    return positions, None, format_notes("clue", notes + more)


def put_invalid_last(positions: Positions, scores: Scores, batch_size: int) -> Positions:
    """Return the positions with finite probabilities, filled up with others if these are fewer than the batch."""
    is_broken = scores == INVALID_SCORE
    whole, broken = positions[~is_broken], positions[is_broken]
    return np.concatenate([whole, broken[: max(batch_size - len(whole), 0)]])


def notes_of_broken(scores: Scores) -> list[str]:
    """Return a note on the number of rows without finite probabilities, if any."""
    n_broken = np.count_nonzero(scores == INVALID_SCORE)
    return [f"put {n_broken} rows last, as the model has no finite probabilities for them"] if n_broken else []


@set_strategy(
    "drop_query",
    summary="Clusters the rows whose predicted class changes when features are dropped, and takes the row nearest to "
    "each centre.",
    source="Gupte et al. 2024, Revisiting Active Learning in the Era of Vision Foundation Models, arXiv:2401.14555",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES, Need.MODEL}),
    parameters=(
        Parameter(
            "rate",
            kind="number",
            default=0.75,
            minimum=0.0,
            maximum=0.99,
            above_minimum=True,
            summary="Share of the features set to 0 each time; the others are scaled up to compensate.",
        ),
        Parameter(
            "times",
            kind="integer",
            default=3,
            minimum=1,
            maximum=100,
            summary="Number of predictions with dropped features for each row.",
        ),
        SAMPLE,
    ),
)
def drop_query(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, rate: float, times: int, sample: int
) -> tuple[Positions, None, str | None]:
    """Cluster the rows of a drawn sample whose class flips more than half of the times; take each cluster's middle.

    It is made for embeddings, where 0 is a neutral value. The paper does not cover the case of too few such rows: here
    rows come by number of flips, and by smallest margin within it.
    """
    drawn, notes = draw_sample(view, sample, batch_size, rng)
    flips, scores = count_flips(view, drawn, rate, times, rng)
    notes += notes_of_broken(scores)
    unstable = drawn[flips > times / 2]
    if len(unstable) > batch_size:
        positions, more = pick_cluster_middles(view, unstable, batch_size, rng)
        return positions, None, format_notes("drop_query", notes + more)
    notes.append(f"found {len(unstable)} rows that flip and filled the batch by number of flips, then by margin")
    return drawn[top(flips + scores / 2, batch_size, rng)], None, format_notes("drop_query", notes)


def count_flips(
    view: PoolView, positions: Positions, rate: float, times: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], Scores]:
    """Return how often the predicted class of some candidates flips under dropout, and their margin scores.

    A row without finite probabilities, before or after the dropout, does not flip.
    """
    flips, scores = np.zeros(len(positions)), np.empty(len(positions))
    blocks = blocks_of(view, positions)
    seeds = rng.integers(2**63, size=len(blocks))

    def count(number: int) -> None:
        rows = blocks[number]
        draws = np.random.default_rng(seeds[number])
        X = view.features(positions[rows])
        P = view.predict(X)
        scores[rows] = score_rows(lambda p: p, margin, P)
        for _ in range(times):
            Q = view.predict(drop_features(X, rate, draws))
            is_whole = np.isfinite(P).all(axis=1) & np.isfinite(Q).all(axis=1)
            flips[rows] += is_whole & (P.argmax(axis=1) != Q.argmax(axis=1))

    run_in_threads(count, range(len(blocks)))
    return flips, scores


def drop_features(X: Features, rate: float, rng: np.random.Generator) -> Features:
    """Return rows with each feature set to 0 with probability `rate`, and otherwise divided by 1 - `rate`.

    A float dtype is kept, with values clipped to its range; other rows become float64.
    """
    Z = X.astype(np.float64)
    cells = cells_of(Z)
    with np.errstate(over="ignore"):
        cells *= (rng.random(cells.shape) >= rate) / (1 - rate)
    if X.dtype.kind != "f":
        return Z
    limit = float(np.finfo(X.dtype).max)
    np.clip(cells, -limit, limit, out=cells)
    return Z.astype(X.dtype)
