"""Which samples next? Importing the families registers their strategies."""

from service.strategies import auto, baseline, diversity, hybrid, representation, uncertainty
from service.strategies.registry import STRATEGIES, Strategy, resolve
from service.strategies.selection import Selection, select
from service.strategies.view import Question

__all__ = [
    "STRATEGIES",
    "Question",
    "Selection",
    "Strategy",
    "auto",
    "baseline",
    "diversity",
    "hybrid",
    "representation",
    "resolve",
    "select",
    "uncertainty",
]
