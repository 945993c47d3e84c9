"""BatchBALD: the mutual information between the labels of a whole batch and the committee member.

A row's gain only shrinks as the batch grows, so an earlier gain is an upper bound, as in `greedy`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import entr

from service.compute.threads import run_in_threads, use_one_thread
from service.domain.parameters import Parameter
from service.learning.scoring import INVALID_SCORE, Probabilities, Scores
from service.strategies.committee import bald
from service.strategies.engine.greedy import BLOCK_CELLS, cut, find_highest, rows_per_block, run_blocks
from service.strategies.engine.notes import add_invalid_note, format_notes
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import hash_positions, top
from service.strategies.engine.registry import MEMBERS, Need, set_strategy

HELD_CELLS = 2**21
"""Largest number of member probabilities held in memory, 16 MB; the same bounds the joint labels of a batch."""

WORK = 2 * 10**11
"""Largest number of multiplications: up to half a minute on two cores."""

LOG_COST = 16
"""Cost of a joint probability besides its product over the members, in multiplications."""

N_CONTENDERS = 8
"""Approximate number of rows updated first in each turn: fewer than elsewhere, as a gain takes long."""

N_MERGED = 48
"""Number of groups of joint labels from which the bounds of gains are computed."""

MERGE_STEPS = 3
"""Number of steps of k-means that form the groups."""

SERIAL_BLOCKS = 4
"""Number of blocks of rows up to which one thread computes their gains."""

LEAST = 1e-20
"""Smaller probabilities are dropped: they do not change the information."""

DIGITS = 12
"""Decimals of a nat to which information is compared: smaller differences are rounding errors."""

ROUNDING = 1e-4
"""Upper limit of the rounding error of a gain in float32, in nats."""

SCORE_OF_CHOSEN = 2 * INVALID_SCORE


@set_strategy(
    "batch_bald",
    summary="Greedy: the batch with the highest mutual information between its labels and the members of a committee.",
    source="Kirsch, van Amersfoort & Gal 2019, BatchBALD: Efficient and Diverse Batch Acquisition for Deep Bayesian "
    "Active Learning, arXiv:1906.08158",
    needs=frozenset({Need.MEMBERS}),
    parameters=(
        MEMBERS,
        Parameter(
            "configurations",
            kind="integer",
            default=1000,
            minimum=10,
            maximum=10_000,
            summary="Number of joint labels of the batch that are enumerated; above it, as many are sampled. Fewer "
            "with many classes or members.",
        ),
        Parameter(
            "sample",
            kind="integer",
            default=10_000,
            minimum=100,
            maximum=100_000,
            summary="Number of candidates considered, those with the highest `bald` scores; fewer with many classes "
            "or members.",
        ),
    ),
)
def batch_bald(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, members: int, configurations: int, sample: int
) -> tuple[Positions, None, str | None]:
    """Maximise greedily the mutual information between the batch's labels and the member that gives them.

    It is exact up to `configurations` possible joint labels, and above that a Monte Carlo estimate over as many drawn
    ones. Rows that add nothing follow by their own `bald` score: once the batch identifies the right member, no row
    adds anything.
    """
    use_one_thread()
    committee, _ = view.committee()  # fitted with `members`
    n = len(view.candidates)
    scores = view.member_scores(bald).round(DIGITS)
    is_broken = scores == INVALID_SCORE
    m, c = committee.n_members, len(committee.classes_)
    kept = top(scores, min(n, sample, max(HELD_CELLS // (m * c), 1)), rng)
    kept = kept[scores[kept] > 0]
    limit = min(configurations, max(HELD_CELLS // max(m, c), 10))
    growth = BatchGains(read_members(view, kept, m, c), scores[kept], limit)
    chosen = kept[growth.select_rows(batch_size, rng)]
    notes, is_cut = [], len(kept) < np.count_nonzero(scores > 0)
    if is_cut:
        notes.append(f"considered the {len(kept)} of the {n} candidates with the highest bald scores")
    n_left = batch_size - len(chosen)
    if n_left:
        takes_long = growth.is_over_budget or (is_cut and len(chosen) == len(kept))
        why = "more would be slow" if takes_long else "no other row adds information"
        notes.append(f"chose {n_left} of the batch by bald score alone: {why}")
        scores[chosen] = SCORE_OF_CHOSEN
        chosen = np.concatenate([chosen, top(scores, n_left, rng)])
    return chosen, None, add_invalid_note(format_notes("batch_bald", notes), is_broken, "come last")


def read_members(view: PoolView, positions: Positions, m: int, c: int) -> Probabilities:
    """Return the members' probabilities (m, k, c) of some candidates, read in blocks."""
    P = np.empty((m, len(positions), c))

    def read(numbers: Positions) -> None:
        P[:, numbers] = view.member_probabilities(view.candidates[positions[numbers]])

    run_in_threads(read, list(cut(np.arange(len(positions)), rows_per_block(view.pool, m * c))))
    return P


@dataclass(frozen=True, slots=True, eq=False)
class LabelConfigurations:
    """Joint labels of a batch: the likelihood of each (s,), and each member's posterior probability given it (s, m)."""

    likelihoods: NDArray[np.float64]
    posteriors: NDArray[np.float64]

    @classmethod
    def of_none(cls, n_members: int) -> LabelConfigurations:
        """Return the labels of an empty batch, which leave all members equally likely."""
        return cls(np.ones(1), np.full((1, n_members), 1 / n_members))

    def gains(self, P: Probabilities) -> Scores:
        """Return the information that rows with member probabilities (m, k, c) would add, in nats, never below 0.

        It is the mean over the joint labels of H(mean p) - mean H(p), with the members weighted by their posterior, in
        the precision of P.
        """
        m, k, c = P.shape
        columns = P.reshape(m, k * c)
        posteriors, likelihoods = self.posteriors.astype(P.dtype), self.likelihoods.astype(P.dtype)
        total = np.zeros(k)
        for run in cut(np.arange(len(likelihoods)), BLOCK_CELLS // (k * c)):
            mixtures = posteriors[run] @ columns
            logs = np.maximum(mixtures, LEAST)
            np.log(logs, out=logs)  # scipy's entr takes three times as long
            logs *= mixtures
            total -= (likelihoods[run] @ logs).reshape(k, c).sum(axis=1)
        own = (self.likelihoods @ self.posteriors) @ entr(P).sum(axis=2)
        return np.asarray(np.maximum(total - own, 0.0))

    def merged(self, n_groups: int) -> LabelConfigurations:
        """Return groups of these joint labels with similar posteriors, each as one with the mean posterior.

        Entropy is concave, so the gains are upper bounds of those of all joint labels. The groups are those of a few
        steps of k-means, whose first centres are joint labels at equal distances in their order.
        """
        if len(self.likelihoods) <= n_groups:
            return self
        means = self.posteriors[np.arange(n_groups) * len(self.likelihoods) // n_groups]
        weighted = self.likelihoods[:, np.newaxis] * self.posteriors
        for _ in range(MERGE_STEPS):
            group = np.argmin(np.square(means).sum(axis=1) / 2 - self.posteriors @ means.T, axis=1)
            is_in = sparse.csr_array((np.ones(len(group)), group, np.arange(len(group) + 1)))
            sums = is_in.T @ np.column_stack([weighted, self.likelihoods])
            sums = sums[sums[:, -1] > 0]
            means = sums[:, :-1] / sums[:, -1:]
        return LabelConfigurations(sums[:, -1], means)

    def with_row(self, P: Probabilities, limit: int, rng: np.random.Generator) -> LabelConfigurations:
        """Return the joint labels of the batch and one more row with member probabilities (m, c).

        If more than `limit` are possible, `limit` of them are drawn in proportion to their likelihoods by systematic
        sampling: the estimate is unbiased, with less variance than that of independent draws.
        """
        joint = (self.likelihoods[:, np.newaxis] * (self.posteriors @ P)).ravel()
        kept = np.flatnonzero(joint > LEAST)
        likelihoods = joint[kept]
        if len(kept) > limit:
            edges = np.cumsum(likelihoods)
            steps = (np.arange(limit) + rng.random(limit)) * (edges[-1] / limit)
            drawn = np.searchsorted(edges, steps, side="right").clip(max=len(kept) - 1)
            drawn, counts = np.unique(drawn, return_counts=True)
            kept, likelihoods = kept[drawn], counts / limit
        before, label = np.divmod(kept, P.shape[1])
        posteriors = self.posteriors[before] * P.T[label]
        return LabelConfigurations(likelihoods / likelihoods.sum(), posteriors / posteriors.sum(axis=1, keepdims=True))


class BatchGains:
    """The gain of each of k rows with member probabilities (m, k, c) over a growing batch.

    Stale gains are upper bounds, up to sampling noise once joint labels are drawn. Chosen rows have -1. `merged` are
    the joint labels in groups.
    """

    def __init__(self, P: Probabilities, gains: Scores, limit: int) -> None:
        self.P = P
        self.narrow = P.astype(np.float32)
        self.gains = gains
        self.limit = limit
        self.configurations = self.merged = LabelConfigurations.of_none(len(P))
        self.is_stale = np.zeros(len(gains), np.bool_)
        self.work = 0

    @property
    def is_over_budget(self) -> bool:
        """Whether the work exceeds its limit."""
        return self.work > WORK

    def refresh(self, positions: Positions) -> None:
        """Update the gains of some rows, or their bounds if these are below another row's gain."""
        due = positions[self.is_stale[positions] & (self.gains[positions] > 0)]
        self.in_blocks(self.lower_bounds, due, self.merged)
        # Only rows whose bound reaches the highest gain need theirs exactly.
        n_exact = N_CONTENDERS
        while len(due):
            fresh = self.gains[positions[~self.is_stale[positions]]]
            highest = due[np.argsort(-self.gains[due], kind="stable")[:n_exact]]
            if len(fresh) and self.gains[highest[0]] < fresh.max():
                break
            self.in_blocks(self.update, highest, self.configurations)
            self.is_stale[highest] = False
            due = due[self.is_stale[due]]
            n_exact *= 2

    def in_blocks(self, change: Callable[[Positions], None], rows: Positions, joint: LabelConfigurations) -> None:
        """Apply a change of gains, computed from some joint labels, to blocks of rows."""
        (m, _, c), n_joint = self.P.shape, len(joint.likelihoods)
        self.work += len(rows) * n_joint * c * (m + LOG_COST)
        run_blocks(change, list(cut(rows, BLOCK_CELLS // (n_joint * c))), SERIAL_BLOCKS)

    def lower_bounds(self, rows: Positions) -> None:
        """Lower the bounds of some rows to the gains from the merged joint labels in float32."""
        self.gains[rows] = np.minimum(self.gains[rows], self.merged.gains(self.narrow[:, rows]) + ROUNDING)

    def update(self, rows: Positions) -> None:
        """Set the gains of some rows."""
        self.gains[rows] = np.round(self.configurations.gains(self.P[:, rows]), DIGITS)

    def select_rows(self, batch_size: int, rng: np.random.Generator) -> Positions:
        """Add one row after another to the batch while any has a gain, and return them; ties are broken at random."""
        seed = rng.integers(2**64, dtype=np.uint64)
        chosen: list[int] = []
        while len(chosen) < min(batch_size, len(self.gains)) and not self.is_over_budget:
            level = find_highest(self.gains, self.refresh, N_CONTENDERS, growth=2)
            choice = int(level[hash_positions(level, seed).argmin()])
            if self.gains[choice] <= 0:
                break
            chosen.append(choice)
            self.configurations = self.configurations.with_row(self.P[:, choice], self.limit, rng)
            self.merged = self.configurations.merged(N_MERGED)
            self.gains[choice] = -1.0
            self.is_stale[:] = True
        return np.array(chosen, np.int64)
