"""Query strategies. Every module in this folder is imported and registers its strategies."""

from importlib import import_module
from pkgutil import iter_modules

from service.strategies.engine.exploration import AUTO_FROM, AUTO_SHARE, next_in_random_order
from service.strategies.engine.question import Question
from service.strategies.engine.registry import (
    STRATEGIES,
    Need,
    Strategy,
    check_target,
    resolve_strategy,
    sort_strategies,
)
from service.strategies.engine.selection import Selection, select

for module in iter_modules(__path__):
    if not module.ispkg:
        import_module(f"{__name__}.{module.name}")
sort_strategies()

__all__ = [
    "AUTO_FROM",
    "AUTO_SHARE",
    "STRATEGIES",
    "Need",
    "Question",
    "Selection",
    "Strategy",
    "check_target",
    "next_in_random_order",
    "resolve_strategy",
    "select",
]
