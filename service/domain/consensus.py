"""Annotator consensus and quality estimates, stored with the model they were computed for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.sorted_columns import look_up
from service.domain.votes import SampleLabels, Vote, Votes, hash_of

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Consensus:
    """The consensus of some samples and the weight of each annotator: two sets of parallel columns, sorted.

    Of a sample: its `index`, the class code of the consensus, the probability that this is right, and the hash of the
    votes it was computed from (`Votes.vote_hashes`); the consensus holds as long as these votes do. Of an annotator:
    the code, the weight, and the estimated accuracy, NaN for one who shares no sample with another.
    """

    index: NDArray[np.int64]
    code: NDArray[np.int32]
    quality: Numbers
    vote_hashes: NDArray[np.uint64]
    annotator: NDArray[np.int32]
    weight: Numbers
    accuracy: Numbers
    model_weight: float
    temperature: float
    n_classes: int

    @property
    def n_bytes(self) -> int:
        """Memory used, in bytes."""
        columns = self.index, self.code, self.quality, self.vote_hashes, self.annotator, self.weight, self.accuracy
        return sum(column.nbytes for column in columns)

    def match(self, votes: Votes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the positions of samples with unchanged votes, in the consensus and among the labelled samples."""
        rows, found = look_up(votes.majority.labeled, self.index)
        found[found] = votes.vote_hashes[rows[found]] == self.vote_hashes[found]
        return np.flatnonzero(found), rows[found]

    def apply_to(self, votes: Votes) -> SampleLabels:
        """Return the label of each sample: the consensus where its votes are unchanged, the majority elsewhere."""
        own, labeled = self.match(votes)
        codes = votes.majority.codes.copy()
        codes[labeled] = self.code[own]
        return SampleLabels(votes.majority.labeled, codes, votes.majority.skipped)

    def code_on(self, votes: Sequence[Vote]) -> int | None:
        """Return the class code of the consensus on a sample with these votes, None if they have changed."""
        row = int(self.index.searchsorted(votes[0].sample))
        is_known = row < len(self.index) and self.index[row] == votes[0].sample
        return int(self.code[row]) if is_known and self.vote_hashes[row] == hash_of(votes) else None

    def quality_of(self, votes: Votes) -> Numbers:
        """Return the probability that each labelled sample's consensus is right (l,), NaN where unknown."""
        own, labeled = self.match(votes)
        quality = np.full(len(votes.majority.labeled), np.nan)
        quality[labeled] = self.quality[own]
        return quality
