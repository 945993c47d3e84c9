"""What the recipe for Prodigy uses of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Recipe = Callable[..., dict[str, Any]]


def recipe(name: str) -> Callable[[Recipe], Recipe]:
    """Return a decorator that registers a recipe, and returns it as it is."""
    assert name
    return lambda function: function
