"""Herding: greedy choice of the rows that are similar to most others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from service.compute.deadline import check_deadline
from service.compute.threads import use_one_thread
from service.domain.parameters import Parameter
from service.learning.scoring import INVALID_SCORE
from service.strategies.engine.features import SAMPLE_CELLS, dense_width, draw_sample, notes_of_folding
from service.strategies.engine.greedy import STANDARDIZE, Points, Space, cut, find_highest, run_blocks, scores_at
from service.strategies.engine.notes import add_invalid_note, format_notes
from service.strategies.engine.pairs import (
    REFERENCES,
    TILE_ROWS,
    Squares,
    max_pairs,
    read_points,
    reduce_over_pairs,
    runs,
    sample_points,
    space_for,
    squares_to_nearest,
    take_points,
)
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import hash_positions, top
from service.strategies.engine.registry import Need, set_strategy
from service.strategies.uncertainty import margin

N_PAIRS = 2**14
"""Number of drawn pairs for the median distance."""

N_REFRESHED = 100
"""Number of rows updated per turn, as measured."""

KEPT_CELLS = 2**21
"""Largest number of similarities that are kept for later turns: 8 MB."""

KEPT_ROWS = 16
"""Number of rows whose similarities are computed together."""

SERIAL_SIMILARITIES, SERIAL_SUMS = 8, 32
"""Number of such blocks up to which one thread computes their similarities, or sums them up: some milliseconds."""

ROWS_PER_PICK = 10
"""Number of candidates for each row of a batch, where there are more."""

NOTHING = 1e-6
"""Smaller gains in similarity are rounding errors of float32."""

LISTED, LISTED_PER_PICK = 1000, 2
"""Number of uncertain candidates that `uherding` compares, and the least number for each row of a batch."""

LABELS_PER_POWER = 25
"""Number of labels for each power of the uncertainty: with few, the model is often sure and wrong."""

MAX_PAIRED = 1000
"""Largest number of labelled rows whose distances set the radius."""

LIGHT = 1e-4
"""Share of the weight whose references are left out: about half of them, of which the model is sure."""

LEAST_WIDTH = 0.05
"""Smallest kernel width, as a share of the median distance between two rows."""

PAIRS_A_TURN = 2 * 10**9
"""Largest number of multiplications for the distances of all candidates to all references: some seconds."""

SAMPLE = Parameter(
    "sample",
    kind="integer",
    default=2000,
    minimum=100,
    maximum=100_000,
    summary="Number of candidates considered, drawn at random; never fewer than ten times the batch.",
)

UNCERTAIN_SAMPLE = replace(SAMPLE, default=4000)


@set_strategy(
    "max_herding",
    summary="Greedy: each row raises most the similarity of all rows to their most similar labelled or chosen row.",
    source="Bae, Noh & Sutherland 2024, Generalized Coverage for More Robust Low-Budget Active Learning, "
    "arXiv:2407.12212",
    needs=frozenset({Need.FEATURES, Need.LABELED}),
    parameters=(
        Parameter(
            "bandwidth",
            kind="number",
            default=0.5,
            minimum=0.001,
            maximum=1000.0,
            summary="Kernel width, as a share of the median distance between two rows.",
        ),
        STANDARDIZE,
        replace(REFERENCES, default=1000),
        SAMPLE,
    ),
)
def max_herding(
    view: PoolView,
    batch_size: int,
    rng: np.random.Generator,
    *,
    bandwidth: float,
    standardize: bool,
    references: int,
    sample: int,
) -> tuple[Positions, None, str | None]:
    """Maximise greedily the sum over references of exp(-distance^2 / (2 width^2)) to the most similar row.

    Candidates are a drawn sample, whose first rows are the references. The paper uses a width of 1 for embeddings of
    length 1, and all rows as references; here the width is derived from the distances.
    """
    sampled = sample_points(view, max(sample, ROWS_PER_PICK * batch_size), batch_size, rng, standardize=standardize)
    n, d = sampled.points.features.shape
    n_references = min(n, references, max(max_pairs(d) // (n + N_REFRESHED * batch_size), 1))
    notes = list(sampled.notes)
    if n_references < min(n, references):
        notes.append(f"used {n_references} references: more would be slow")
    others = sampled.points.part(slice(n_references))
    width = bandwidth * median_pair_distance(sampled.points, rng)
    herd = Herd(sampled.points, others, sampled.from_labeled(others), width)
    return sampled.positions[herd.select_rows(batch_size, rng)], None, format_notes("max_herding", notes)


def median_pair_distance(points: Points, rng: np.random.Generator) -> float:
    """Return the median distance of pairs drawn at random, or 1 if that is 0."""
    first, second = rng.integers(len(points.features), size=(2, N_PAIRS))
    squares = [
        np.square(points.features[a] - points.features[b]).sum(axis=1)
        for a, b in zip(cut(first, TILE_ROWS), cut(second, TILE_ROWS), strict=True)
    ]
    return math.sqrt(np.median(np.concatenate(squares))) or 1.0


class Herd:
    """The gain of each of n rows in the similarity of the references; stale gains are upper bounds.

    A gain only shrinks as the herd grows (Minoux 1978, see `greedy`). Chosen rows have -1. References are weighted by
    `weights` (n_references,), or all equally; `squares` are their squared distances to the nearest labelled row. The
    similarities of the rows that are updated again and again are kept.
    """

    def __init__(
        self, points: Points, references: Points, squares: Squares, width: float, weights: Squares | None = None
    ) -> None:
        n, n_references = len(points.features), len(references.features)
        self.points = points
        self.references = references
        self.weights = np.ones(n_references) if weights is None else weights
        self.width = width
        self.similarity = self.similar(squares)
        self.gains = np.full(n, np.inf)
        self.is_stale = np.ones(n, np.bool_)
        self.kept = np.empty((min(n, KEPT_CELLS // n_references), n_references), np.float32)
        self.n_kept = 0
        self.place = np.full(n, -1)

    def similar(self, squares: Squares) -> Squares:
        """Return the kernel of squared distances."""
        with np.errstate(over="ignore"):  # infinitely far apart
            # Divided twice: the square of a small width may be 0.
            similarity: Squares = np.exp(-0.5 * (squares / self.width) / self.width)
        return similarity

    def refresh(self, positions: Positions) -> None:
        """Update the gains of some rows, except those that are 0 already."""
        due = positions[self.is_stale[positions] & (self.gains[positions] > 0)]
        self.keep(due[self.place[due] < 0])
        is_kept = self.place[due] >= 0
        blocks = list(cut(due[is_kept], KEPT_ROWS))
        covered = self.similarity + NOTHING
        low, weights = covered.astype(np.float32), self.weights.astype(np.float32)

        def add_up(rows: Positions) -> None:
            more = self.kept[self.place[rows]]
            more -= low
            self.gains[rows] = np.maximum(more, 0, out=more) @ weights

        def gain(squares: Squares, run: slice) -> Squares:
            gains: Squares = np.maximum(self.similar(squares) - covered[run], 0.0)
            return self.weights[run] * gains

        run_blocks(add_up, blocks, SERIAL_SUMS)
        others = due[~is_kept]
        self.gains[others] = reduce_over_pairs(take_points(self.points, others), self.references, gain, np.add, 0.0)
        self.is_stale[due] = False

    def keep(self, rows: Positions) -> None:
        """Compute and keep the similarities of some rows to the references, unless there is no room for all."""
        if self.n_kept + len(rows) > len(self.kept):
            return
        self.place[rows] = np.arange(self.n_kept, self.n_kept + len(rows))
        self.n_kept += len(rows)

        def compute(rows: Positions) -> None:
            squares = take_points(self.points, rows).squared_distances(self.references)
            self.kept[self.place[rows]] = self.similar(squares)

        run_blocks(compute, list(cut(rows, KEPT_ROWS)), SERIAL_SIMILARITIES)

    def add(self, choice: int) -> None:
        """Add a row to the herd."""
        squares = self.references.squared_distances(self.points.part(slice(choice, choice + 1)))[:, 0]
        np.maximum(self.similarity, self.similar(squares), out=self.similarity)
        self.is_stale[:] = True
        self.gains[choice] = -1.0

    def select_rows(self, batch_size: int, rng: np.random.Generator) -> Positions:
        """Add one row after another, and return them; ties are broken at random."""
        seed = rng.integers(2**64, dtype=np.uint64)
        chosen = np.empty(batch_size, np.int64)
        for turn in range(batch_size):
            check_deadline()
            level = find_highest(self.gains, self.refresh)
            chosen[turn] = level[hash_positions(level, seed).argmin()]
            self.add(chosen[turn])
        return chosen


@set_strategy(
    "uherding",
    summary="Greedy: as max_herding, but each row counts by the model's uncertainty about it.",
    source="Bae et al. 2025, Uncertainty Herding: One Active Learning Method for All Label Budgets, arXiv:2412.20644",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES, Need.LABELED}),
    parameters=(
        Parameter(
            "bandwidth",
            kind="number",
            default=0.5,
            minimum=0.001,
            maximum=1000.0,
            summary="Kernel width, as a share of the median distance between two rows, until two different rows are "
            "labelled.",
        ),
        Parameter(
            "sharpness",
            kind="number",
            default=4.0,
            minimum=0.0,
            maximum=100.0,
            summary="Power of the uncertainty: with 0 all rows count the same, with large values the most uncertain. "
            "In batches, powers above 1 take 25 labels each.",
        ),
        STANDARDIZE,
        REFERENCES,
        UNCERTAIN_SAMPLE,
    ),
)
def uherding(
    view: PoolView,
    batch_size: int,
    rng: np.random.Generator,
    *,
    bandwidth: float,
    sharpness: float,
    standardize: bool,
    references: int,
    sample: int,
) -> tuple[Positions, None, str | None]:
    """Choose as `max_herding`, with each reference weighted by a power of the model's uncertainty (1 - margin).

    The kernel width is the smallest distance between two different labelled rows, as in the paper: it shrinks as
    labels are added, and uncertainty counts more. It never falls below a share of the median distance, as two nearly
    equal labelled rows would leave only the margin. The paper also calibrates the probabilities by a temperature;
    here they are used unchanged. If the model is certain of all references, all have the same weight.

    The paper weights by the uncertainty itself, which is a power of 1, and compares all candidates; here the power is
    higher, and only the 1,000 most uncertain of the sample are compared, or two for each row of a larger batch. The
    power gains in accuracy, and the short list in time; one of a hundred rows costs more on data with noisy classes
    than it saves. References that share a ten-thousandth of the weight are left out.
    """
    use_one_thread()
    drawn, notes = draw_sample(view, max(sample, ROWS_PER_PICK * batch_size), batch_size, rng)
    uncertainty = scores_at(view, view.candidates[drawn], margin)
    is_broken = uncertainty == INVALID_SCORE
    uncertainty = np.maximum(uncertainty, 0.0)
    listed = top(uncertainty, max(LISTED, LISTED_PER_PICK * batch_size), rng.spawn(1)[0])
    d = dense_width(view.pool)
    bounds = PAIRS_A_TURN // (d * len(listed)), max_pairs(d) // max(len(view.covered), 1)
    n_references = min(len(drawn), references, max(min(bounds), 1))
    if n_references < min(len(drawn), references):
        notes.append(f"used {n_references} references: more would be slow")
    space = space_for(view, view.candidates[drawn[:n_references]], standardize=standardize)
    compared, others = (read_points(space, view.candidates[drawn[rows]]) for rows in (listed, slice(n_references)))
    weights = uncertainty[:n_references] ** power_for(batch_size, len(view.labeled), sharpness)
    usual = median_pair_distance(others, rng.spawn(1)[0])
    heavy = heaviest(weights)
    others, weights = take_points(others, heavy), weights[heavy]
    radius = smallest_label_distance(space, view.covered, rng)
    width = max(radius, LEAST_WIDTH * usual) if radius else bandwidth * usual
    squares = squares_to_nearest(space, others, view.covered)
    herd = Herd(compared, others, squares, width, weights if weights.any() else None)
    notes += notes_of_folding(view.pool)
    note = add_invalid_note(format_notes("uherding", notes), is_broken, "count as certain")
    return drawn[listed[herd.select_rows(batch_size, rng)]], None, note


def power_for(batch_size: int, n_labeled: int, sharpness: float) -> float:
    """Return the power of the uncertainty: in batches it grows to `sharpness` as labels are added.

    A single row is labelled before the next is chosen, so that a wrong model costs one question, not a batch.
    """
    return sharpness if batch_size == 1 else min(sharpness, max(n_labeled / LABELS_PER_POWER, 1.0))


def heaviest(weights: Squares) -> Positions:
    """Return the sorted positions of the references to count, all but those that share LIGHT of the total weight."""
    order = np.argsort(weights, kind="stable")
    n_light = int(np.searchsorted(np.cumsum(weights[order]), LIGHT * weights.sum()))
    return np.sort(order[n_light:])


def smallest_label_distance(space: Space, labeled: Positions, rng: np.random.Generator) -> float:
    """Return the smallest distance above 0 between two labelled rows, or 0 without such a pair."""
    if len(labeled) < 2:
        return 0.0
    at_most = max(min(MAX_PAIRED, SAMPLE_CELLS // dense_width(space.pool)), 2)
    if len(labeled) > at_most:
        labeled = rng.choice(labeled, at_most, replace=False)
    points = read_points(space, labeled)
    nearest = np.inf
    for run in runs(len(labeled), TILE_ROWS):  # each pair of runs once
        squares = points.part(run).squared_distances(points.part(slice(run.start, None)))
        nearest = min(nearest, squares.min(where=squares > 0, initial=np.inf))
    return math.sqrt(nearest) if nearest < np.inf else 0.0
