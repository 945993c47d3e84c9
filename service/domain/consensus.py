"""What was found out about the people behind the votes, kept with the model that it was worked out for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import SampleLabels, Votes, look_up

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Consensus:
    """The consensus of some samples, and what each annotator counts, in two sets of parallel columns, sorted.

    Of a sample: its `index`, the class code of the consensus, how likely that is right (0 to 1), and the ballots that
    it was found from (`Votes.vote_hashes`); as long as these are what they were, it is what is trained on. Of an
    annotator: the code, the weight, and an estimate of the accuracy, NaN where nobody else labelled the same samples.
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
        """How much memory it takes."""
        columns = self.index, self.code, self.quality, self.vote_hashes, self.annotator, self.weight, self.accuracy
        return sum(column.nbytes for column in columns)

    def match(self, votes: Votes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return where it knows a sample whose votes are still the same: among its own, and among the labelled ones."""
        rows, found = look_up(votes.majority.labeled, self.index)
        found[found] = votes.vote_hashes[rows[found]] == self.vote_hashes[found]
        return np.flatnonzero(found), rows[found]

    def apply_to(self, votes: Votes) -> SampleLabels:
        """Return what the votes come to: the consensus where it is known, the majority elsewhere."""
        own, labeled = self.match(votes)
        codes = votes.majority.codes.copy()
        codes[labeled] = self.code[own]
        return replace(votes.majority, codes=codes)

    def quality_of(self, votes: Votes) -> Numbers:
        """Return how likely each labelled sample's consensus is right (l,), NaN where it is not known."""
        own, labeled = self.match(votes)
        quality = np.full(len(votes.majority.labeled), np.nan)
        quality[labeled] = self.quality[own]
        return quality
