"""Short mails of two kinds, for tools that are labelled by tests."""

from __future__ import annotations

import random

KINDS = {
    "spam": ["prize", "pills", "lottery", "winner", "free", "money", "viagra", "casino", "offer", "click"],
    "ham": ["meeting", "agenda", "minutes", "lunch", "report", "review", "server", "patch", "kernel", "thread"],
}
FILLERS = ["the", "of", "and", "to", "in", "we", "you", "will", "this", "next", "week", "on", "with", "from", "about"]


def mail(kind: str, rng: random.Random) -> str:
    """Return a mail: words of its kind among others."""
    return " ".join(rng.sample(KINDS[kind], 3) + rng.sample(FILLERS, 5))


def mails(number: int, seed: int) -> tuple[list[str], list[str]]:
    """Return mails and their kinds."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    kinds = [rng.choice(list(KINDS)) for _ in range(number)]
    return [mail(kind, rng) for kind in kinds], kinds
