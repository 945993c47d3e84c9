"""Strategies for labels that are numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.compute.threads import run_in_threads, use_one_thread
from service.learning.scoring import INVALID_SCORE, Probabilities, Scores
from service.strategies.engine.features import (
    SAMPLE,
    SAMPLE_CELLS,
    dense_width,
    draw_sample,
    notes_of_folding,
    to_dense,
)
from service.strategies.engine.greedy import Points, Space, centered_space, cut, standard_space
from service.strategies.engine.notes import format_notes
from service.strategies.engine.pairs import TILE_ROWS, max_pairs, runs
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import hash_positions, top
from service.strategies.engine.registry import MEMBERS, Need, committee_scorer, set_strategy

Numbers = NDArray[np.float64]

WU = "Wu, Lin & Huang 2019, Active Learning for Regression Using Greedy Sampling, arXiv:1808.04245"


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A drawn sample of the candidates: their positions and pool indices (n,), the covered rows (l,), and notes."""

    positions: Positions
    rows: Positions
    covered: Positions
    notes: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """The candidates (n,) and covered rows (l,) as points, or as numbers in `y` and `y_covered`, or as both.

    The distance of two rows is that of their points, times that of their numbers.
    """

    points: Points | None
    covered: Points | None
    y: Numbers | None = None
    y_covered: Numbers | None = None

    @property
    def n_covered(self) -> int:
        """The number of covered rows."""
        return len(self.y_covered) if self.y_covered is not None else len(self.covered.features) if self.covered else 0

    def squares(self, rows: slice, others: slice) -> Numbers:
        """Return the squared distances (k, m) of some candidates to some covered rows."""
        squares = np.ones((1, 1))
        if self.points is not None and self.covered is not None:
            squares = squares * self.points.part(rows).squared_distances(self.covered.part(others))
        if self.y is not None and self.y_covered is not None:
            squares = squares * np.square(self.y[rows, np.newaxis] - self.y_covered[others])
        return squares

    def squares_to(self, choice: int) -> Numbers:
        """Return the squared distance of each candidate to one of them (n,)."""
        squares = np.ones(1)
        one = slice(choice, choice + 1)
        if self.points is not None:
            squares = squares * self.points.squared_distances(self.points.part(one))[:, 0]
        return squares if self.y is None else squares * np.square(self.y - self.y[one])


class Clusters:
    """The nearest covered or chosen row of each of n candidates, and its squared distance, infinite without any."""

    def __init__(self, spread: Spread, n: int) -> None:
        self.spread = spread
        self.least = np.full(n, np.inf)
        self.nearest = np.zeros(n, np.int64)
        self.is_open = np.ones(n, np.bool_)
        self.n_centers = spread.n_covered
        run_in_threads(self.measure, runs(n, TILE_ROWS))

    def measure(self, rows: slice) -> None:
        """Find the nearest covered row of a block of candidates."""
        for others in runs(self.spread.n_covered, TILE_ROWS):
            squares = self.spread.squares(rows, others)
            first = squares.argmin(axis=1)
            closest = squares[np.arange(len(first)), first]
            is_closer = closest < self.least[rows]
            self.least[rows] = np.where(is_closer, closest, self.least[rows])
            self.nearest[rows] = np.where(is_closer, first + others.start, self.nearest[rows])

    def add(self, choice: int) -> None:
        """Add a candidate to the chosen rows."""
        squares = self.spread.squares_to(choice)
        is_closer = squares < self.least
        self.least[is_closer], self.nearest[is_closer] = squares[is_closer], self.n_centers
        self.n_centers += 1
        self.is_open[choice] = False

    def farthest(self, seed: np.uint64) -> int:
        """Return the open candidate farthest from its nearest row."""
        return highest(np.where(self.is_open, self.least, -1.0), seed)

    def farthest_of_largest(self, seed: np.uint64) -> int:
        """Return the farthest open candidate of the cluster with the largest sum of squared distances."""
        away = np.where(self.is_open, self.least, 0.0)
        sums = np.bincount(self.nearest, away, minlength=self.n_centers)
        if self.n_centers == 0 or not sums.max() > 0:
            return self.farthest(seed)
        return highest(np.where(self.is_open & (self.nearest == highest(sums, seed)), self.least, -1.0), seed)


def highest(values: NDArray[Any], seed: np.uint64) -> int:
    """Return the position of the highest value; ties are broken by a hash."""
    level = np.flatnonzero(values == values.max())
    return int(level[hash_positions(level, seed).argmin()])


def choose_spread(
    spread: Spread, n: int, batch_size: int, rng: np.random.Generator, *, by_cluster: bool, first: int | None = None
) -> Positions:
    """Return `batch_size` of n candidates, each far from all covered and chosen rows; the first one may be given."""
    seed = rng.integers(2**64, dtype=np.uint64)
    with np.errstate(over="ignore", invalid="ignore"):
        clusters = Clusters(spread, n)
        chosen = np.empty(batch_size, np.int64)
        for turn in range(batch_size):
            check_deadline()
            if turn == 0 and first is not None and spread.n_covered == 0:
                chosen[turn] = first
            else:
                chosen[turn] = clusters.farthest_of_largest(seed) if by_cluster else clusters.farthest(seed)
            clusters.add(int(chosen[turn]))
    return chosen


def draw_rows(view: PoolView, width: int, sample: int, batch_size: int, rng: np.random.Generator) -> Sample:
    """Return a sample of the candidates, of which all distances in `width` columns to a batch can be computed.

    Of very many covered rows a sample is drawn, too.
    """
    use_one_thread()
    n_pairs, covered = max_pairs(width), view.covered
    most = max(SAMPLE_CELLS // width, 100)
    more = []
    if len(covered) > most:
        more.append(f"used a sample of {most} of the {len(covered)} labelled rows")
        covered = np.sort(rng.choice(covered, most, replace=False, shuffle=False))
    at_most = max(min(sample, n_pairs // (len(covered) + batch_size)), 1)
    positions, notes = draw_sample(view, at_most, batch_size, rng)
    return Sample(positions, view.candidates[positions], covered, notes + more)


def feature_points(view: PoolView, sample: Sample) -> tuple[Points, Points]:
    """Return the features of candidates and covered rows, each standardised unless they are sparse."""
    together = np.concatenate([sample.rows, sample.covered])
    space = (centered_space if view.pool.is_sparse else standard_space)(view.pool, together)
    return read_in_blocks(space, sample.rows), read_in_blocks(space, sample.covered)


def read_in_blocks(space: Space, rows: Positions) -> Points:
    """Return rows of the pool as dense points; sparse rows are read in blocks to bound the memory."""
    blocks = [to_dense(space.read(some).features) for some in space.blocks(rows)]
    return Points(np.concatenate(blocks or [np.empty((0, dense_width(space.pool)))]))


def centered_members(view: PoolView, rows: Positions) -> Points:
    """Return the members' predictions of rows, less their mean: their distance is that of what is not yet known.

    A row without finite predictions counts as one on which all members agree.
    """
    members = view.member_predictions(rows).T
    with np.errstate(all="ignore"):
        away = members - members.mean(axis=1, keepdims=True)
    away[~np.isfinite(away).all(axis=1)] = 0.0
    return Points(np.ascontiguousarray(away))


@set_strategy(
    "lcmd",
    summary="Greedy: each row is the farthest of the largest cluster of rows around the labelled and chosen ones, by "
    "features or, with a forest or members' predictions, by the disagreement of the members.",
    source="Holzmueller et al. 2023, A Framework and Benchmark for Deep Batch Active Learning for Regression, "
    "arXiv:2203.09410",
    needs=frozenset({Need.LABELED}),
    parameters=(SAMPLE,),
    targets=("number",),
)
def lcmd(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Choose by largest cluster and maximum distance.

    Each candidate belongs to its nearest labelled or chosen row. Of the cluster with the largest sum of squared
    distances the farthest row is chosen. Without labels the first row is drawn at random. The paper compares kernels of
    networks; here it is standardised features, or the centred predictions of the trees of a forest.
    """
    by_members = view.has_own_members
    width = view.n_own_members if by_members else dense_width(view.pool)
    drawn = draw_rows(view, width, sample, batch_size, rng)
    if by_members:
        points, covered = centered_members(view, drawn.rows), centered_members(view, drawn.covered)
    else:
        points, covered = feature_points(view, drawn)
    scale = float(np.abs(points.features).max(initial=0.0)) or 1.0
    spread = Spread(Points(points.features / scale), Points(covered.features / scale))
    chosen = choose_spread(spread, len(drawn.rows), batch_size, rng, by_cluster=True)
    notes = drawn.notes if by_members else drawn.notes + notes_of_folding(view.pool)
    return drawn.positions[chosen], None, format_notes("lcmd", notes)


@set_strategy(
    "greedy_x",
    summary="Greedy: each row is the farthest from all labelled and chosen rows, by standardised features (GSx).",
    source=WU,
    needs=frozenset({Need.FEATURES, Need.LABELED}),
    parameters=(SAMPLE,),
)
def greedy_x(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Choose by distance in the features. Without labels, the first row is the nearest to the mean of all."""
    drawn = draw_rows(view, dense_width(view.pool), sample, batch_size, rng)
    points, covered = feature_points(view, drawn)
    from_mean = Points(points.features - points.features.mean(axis=0)).squares
    first = highest(-from_mean, rng.integers(2**64, dtype=np.uint64))
    chosen = choose_spread(Spread(points, covered), len(drawn.rows), batch_size, rng, by_cluster=False, first=first)
    return drawn.positions[chosen], None, format_notes("greedy_x", drawn.notes + notes_of_folding(view.pool))


@set_strategy(
    "greedy_y",
    summary="Greedy: each row is the one whose predicted number is farthest from those of all labelled and chosen rows "
    "(GSy).",
    source=WU,
    needs=frozenset({Need.PREDICTIONS, Need.LABELS}),
    parameters=(SAMPLE,),
    targets=("number",),
)
def greedy_y(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Choose by distance between predicted numbers and labels; chosen rows count by their prediction."""
    drawn = draw_rows(view, 1, sample, batch_size, rng)
    y, y_covered, notes = predicted_numbers(view, drawn)
    chosen = choose_spread(Spread(None, None, y, y_covered), len(y), batch_size, rng, by_cluster=False)
    return drawn.positions[chosen], None, format_notes("greedy_y", drawn.notes + notes)


@set_strategy(
    "improved_greedy",
    summary="Greedy: as greedy_x and greedy_y, by the product of both distances (iGS).",
    source=WU,
    needs=frozenset({Need.PREDICTIONS, Need.FEATURES, Need.LABELS}),
    parameters=(SAMPLE,),
    targets=("number",),
)
def improved_greedy(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Choose the row with the largest product of distances in features and numbers to its nearest row by it."""
    drawn = draw_rows(view, dense_width(view.pool), sample, batch_size, rng)
    points, covered = feature_points(view, drawn)
    y, y_covered, notes = predicted_numbers(view, drawn)
    chosen = choose_spread(Spread(points, covered, y, y_covered), len(y), batch_size, rng, by_cluster=False)
    notes = drawn.notes + notes_of_folding(view.pool) + notes
    return drawn.positions[chosen], None, format_notes("improved_greedy", notes)


def predicted_numbers(view: PoolView, sample: Sample) -> tuple[Numbers, Numbers, list[str]]:
    """Return the predicted numbers of candidates, the labels of covered rows, predicted without one, and notes.

    They are divided by their largest magnitude. A candidate without a finite prediction counts as the mean.
    """
    y, y_covered = view.numbers(sample.rows), view.numbers(sample.covered)
    labeled = np.searchsorted(view.labeled, sample.covered)
    labeled[labeled == len(view.labeled)] = 0
    if len(view.labeled) and view.question.numbers is not None:
        has_label = view.labeled[labeled] == sample.covered
        y_covered[has_label] = view.question.numbers[labeled[has_label]]
    is_finite = np.isfinite(y)
    n_broken = int(np.count_nonzero(~is_finite))
    y = np.where(is_finite, y, y[is_finite].mean() if is_finite.any() else 0.0)
    y_covered = np.where(np.isfinite(y_covered), y_covered, 0.0)
    scale = max(np.abs(y).max(initial=0.0), np.abs(y_covered).max(initial=0.0)) or 1.0
    notes = [f"has no finite prediction for {n_broken} of the {len(y)} candidates considered"] if n_broken else []
    return y / scale, y_covered / scale, notes


@committee_scorer(
    "committee_variance",
    summary="The variance of the numbers that a committee's members predict.",
    source="Burbidge, Rowland & King 2007, Active Learning for Regression Based on Query by Committee, "
    "doi:10.1007/978-3-540-77226-2_22",
    targets=("number",),
)
def committee_variance(members: Probabilities) -> Scores:
    """Return the variance over the members' predictions (m, n), divided by the number of members."""
    return np.asarray(members.var(axis=0), np.float64)


@set_strategy(
    "expected_model_change",
    summary="Rows that would change a linear model most: the length of the row times how far the members' predictions "
    "are from the model's (EMCM).",
    source="Cai, Zhang & Zhou 2013, Maximizing Expected Model Change for Active Learning in Regression, "
    "doi:10.1109/ICDM.2013.104",
    needs=frozenset({Need.MEMBERS, Need.FEATURES, Need.PREDICTIONS}),
    parameters=(MEMBERS, SAMPLE),
    targets=("number",),
)
def expected_model_change(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, members: int, sample: int
) -> tuple[Positions, Scores, str | None]:
    """Score by the mean norm of the gradient of the squared error, with the members' predictions as the label.

    The gradient is that of a linear model of the standardised features and an intercept.
    """
    drawn = draw_rows(view, dense_width(view.pool), sample, batch_size, rng)
    points, _ = feature_points(view, drawn)
    away = np.zeros(len(drawn.rows))
    with np.errstate(all="ignore"):
        for some in cut(np.arange(len(away)), TILE_ROWS):
            numbers = view.member_predictions(drawn.rows[some])
            away[some] = np.abs(numbers - view.numbers(drawn.rows[some])).mean(axis=0)
        scores = np.sqrt(points.squares + 1.0) * away
    scores = np.where(np.isfinite(scores), scores, INVALID_SCORE)
    best = top(scores, batch_size, rng)
    notes = drawn.notes + notes_of_folding(view.pool)
    return drawn.positions[best], scores[best], format_notes("expected_model_change", notes)
