"""Which samples next? Importing the families registers their strategies."""

from service.strategies import (
    activelab,
    auto,
    baseline,
    batch_bald,
    clustering,
    committee,
    coverage,
    diversity,
    feature_weighted,
    herding,
    hybrid,
    model_based,
    neighbours,
    quire,
    sampling,
    uncertainty,
)
from service.strategies.engine import features
from service.strategies.engine.exploration import AUTO_FROM, AUTO_SHARE, next_in_random_order
from service.strategies.engine.question import Question
from service.strategies.engine.registry import STRATEGIES, Need, Strategy, resolve_strategy
from service.strategies.engine.selection import Selection, select

__all__ = [
    "AUTO_FROM",
    "AUTO_SHARE",
    "STRATEGIES",
    "Need",
    "Question",
    "Selection",
    "Strategy",
    "activelab",
    "auto",
    "baseline",
    "batch_bald",
    "clustering",
    "committee",
    "coverage",
    "diversity",
    "feature_weighted",
    "features",
    "herding",
    "hybrid",
    "model_based",
    "neighbours",
    "next_in_random_order",
    "quire",
    "resolve_strategy",
    "sampling",
    "select",
    "uncertainty",
]
