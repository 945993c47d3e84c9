"""The text of new classes: no control characters, and none that people read as another class."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from unicodedata import category, normalize

from service.domain.labels import Label


@lru_cache(maxsize=2**15)
def visible_text(text: str) -> str:
    """Return a text as people compare it: NFKC, case folded, without format characters and blanks around it."""
    shown = "".join(character for character in text if category(character) != "Cf")
    return normalize("NFKC", normalize("NFKC", shown).casefold()).strip()


def wrong_text(label: Label) -> str | None:
    """Return why a label cannot be a class of its own, or None."""
    if not isinstance(label, str):
        return None
    if any(category(character) in ("Cc", "Cs") for character in label):
        return f"{escaped(label)} has a control character or half a surrogate pair; send it without"
    return None if visible_text(label) else f"{escaped(label)} is blank; send a label with visible characters"


def wrong_new_labels(
    classes: Sequence[Label], new: Collection[Label], *, allow_similar: bool, confirmed: Collection[Label] = ()
) -> Iterator[tuple[Label, str]]:
    """Yield the new labels that cannot become classes, and why.

    That is wrong text, and a label that looks like a class or an earlier new label, unless it is `confirmed`.
    """
    known = {visible_text(label): label for label in classes if isinstance(label, str)}
    for label in new:
        problem = wrong_text(label)
        if problem is None and isinstance(label, str):
            other = known.setdefault(visible_text(label), label)
            if other != label and not allow_similar and label not in confirmed:
                way_out = '"new_class": true in a record of POST /label, or "similar_labels": "allow" in POST /fit'
                problem = f"{escaped(label)} looks like {escaped(str(other))}; {way_out}, makes it a class of its own"
        if problem is not None:
            yield label, problem


def escaped(text: str) -> str:
    """Return a text as ASCII JSON, which shows every difference, cut if it is long."""
    return json.dumps(text[:64])
