"""Strategies that choose between another label for a labelled row and the first label of a new one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.learning.scoring import Probabilities, Scores
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import Need, set_strategy
from service.strategies.uncertainty import as_float64


@dataclass(frozen=True, slots=True)
class ValueOfFirst:
    """The value of a row's first label, from 0 to 1, by its likeliest class and the weights of model and annotator."""

    model_weight: float
    usual_weight: float
    temperature: float
    n_classes: int

    def __call__(self, probabilities: Probabilities) -> Scores:
        """Return 1 - (w p(1) + u / c) / (w + u), with the model's weight w, a usual annotator's u, and c classes."""
        first = probabilities.max(axis=1)
        # The largest probability after applying the temperature is 1 / total.
        total = np.zeros_like(first)
        for column in probabilities.T:
            total += (column / first) ** (1.0 / self.temperature)
        certainty = self.model_weight / as_float64(total) + self.usual_weight / self.n_classes
        return 1.0 - certainty / (self.model_weight + self.usual_weight)


@set_strategy(
    "activelab",
    summary="Ranks new and labelled rows on one scale, and asks again where another label is worth more than a first "
    "one.",
    source="Goh & Mueller 2023, ActiveLab: Active Learning with Re-Labeling by Multiple Annotators, arXiv:2301.11856",
    needs=frozenset({Need.PROBABILITIES, Need.LABELS, Need.MODEL, Need.VOTES}),
)
def activelab(view: PoolView, batch_size: int, rng: np.random.Generator) -> tuple[Positions, Scores, str | None]:
    """Take the rows whose label, given or predicted, is least certain if a usual annotator adds a uniform vote.

    The score of a labelled row is 1 - ((v + w) q + u / c) / (v + w + u), with the consensus quality q and the weight v
    of all its votes. A new row has v = 0 and its highest probability as q. Unknown weights are 1.
    """
    relabel_candidates = view.question.relabel_candidates
    if relabel_candidates is None:
        scores = view.scores(ValueOfFirst(1.0, 1.0, 1.0, len(view.model.classes_)))
        positions = top(scores, batch_size, rng)
        return positions, scores[positions], None
    model, usual = relabel_candidates.model_weight, relabel_candidates.usual_weight
    scores = view.scores(ValueOfFirst(model, usual, relabel_candidates.temperature, relabel_candidates.n_classes))
    weight = relabel_candidates.weight + model
    certainty = (weight * relabel_candidates.quality + usual / relabel_candidates.n_classes) / (weight + usual)
    labeled = np.searchsorted(view.candidates, relabel_candidates.rows)
    scores[labeled] = 1.0 - certainty
    positions = top(scores, batch_size, rng)
    return positions, scores[positions], None
