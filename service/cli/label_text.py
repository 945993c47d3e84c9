"""Labels in text: what a cell of a CSV means in a project, or what an annotator typed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

WHOLE_NUMBER = re.compile(r"-?[0-9]+(\.0*)?")
"""An integer, also as pandas writes it beside missing ones."""


def label_of_text(text: Any, facts: dict[str, Any]) -> Any:
    """Return the label that a text means in a project; what is no text, or means none, is left to the service."""
    if not isinstance(text, str):
        return text
    if facts["target"] == "class":
        return class_of_text(text, facts["classes"])
    if facts["target"] == "number":
        number = number_of_text(text)
        return text if number is None else number
    with suppress(ValueError):
        found = json.loads(text)
        return found if isinstance(found, list) else text
    return text


def class_of_text(text: str, classes: Sequence[Any]) -> Any:
    """Return the class that a text means, of the type of the classes that there are."""
    known = next(iter(classes), None)
    if known is None or isinstance(known, str):
        return text
    for value in classes:
        if str(value).lower() == text.strip().lower():
            return value
    is_whole = WHOLE_NUMBER.fullmatch(text.strip()) and not isinstance(known, bool)
    return int(text.partition(".")[0]) if is_whole else text


def number_of_text(text: str) -> float | None:
    """Return the number that a text is, None if it is none."""
    with suppress(ValueError):
        return float(text)
    return None
