"""What errors say about the columns of a table. The reader process imports this, so it imports nothing itself."""

from __future__ import annotations

MAX_LISTED = 20
"""How many names an error lists."""


def list_columns(names: list[str]) -> str:
    """Return a sentence with the names of columns, only the first if they are many."""
    n_more = len(names) - MAX_LISTED
    return "there are " + ", ".join(map(repr, names[:MAX_LISTED])) + (f" and {n_more} more" if n_more > 0 else "")


def no_features(advice: str) -> str:
    """Return the error for a table of which no column is a feature."""
    return "has no columns" + (f" of features; {advice}" if advice else "")


def wrong_feature(name: str, kind: str, advice: str) -> str:
    """Return the error for a column of a kind that is no feature."""
    problem = f"has a column {name!r} of {kind[:64]}, and features are numbers or booleans"
    return f"{problem}, or one column of lists of them" + (f"; {advice}" if advice else "")
