"""Which samples next? Importing the families registers their strategies."""

from service.strategies import (
    auto,
    baseline,
    clustering,
    committee,
    coverage,
    diversity,
    herding,
    hybrid,
    joint,
    learning,
    neighbours,
    relabelling,
    representation,
    risk,
    sampling,
    uncertainty,
    weighted,
)
from service.strategies.exploration import AUTO_FROM, AUTO_SHARE, next_in_random_order
from service.strategies.registry import STRATEGIES, Need, Strategy, resolve
from service.strategies.selection import Selection, select
from service.strategies.view import Question

__all__ = [
    "AUTO_FROM",
    "AUTO_SHARE",
    "STRATEGIES",
    "Need",
    "Question",
    "Selection",
    "Strategy",
    "auto",
    "baseline",
    "clustering",
    "committee",
    "coverage",
    "diversity",
    "herding",
    "hybrid",
    "joint",
    "learning",
    "neighbours",
    "next_in_random_order",
    "relabelling",
    "representation",
    "resolve",
    "risk",
    "sampling",
    "select",
    "uncertainty",
    "weighted",
]
