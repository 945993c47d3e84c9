"""What an annotator types, and the label that it means: for classes, sets of classes, and numbers."""

from __future__ import annotations

import math
import re
import string
import sys
from dataclasses import dataclass
from typing import Any

import click

from service.cli.label_text import class_of_text, number_of_text

UNDO, SKIP, QUIT, GUESS, NEW, NAME, NONE = "u", "s", "q", "g", "+", "/", "-"
KEYS = "123456789" + "".join(letter for letter in string.ascii_lowercase if letter not in (UNDO, SKIP, QUIT, GUESS))
"""The keys of the first classes; others are named by the beginning of their name, after a slash."""

COMMANDS = "u undo, s skip, g guess of the model, q quit"
NAMES = "+name a new class, /name a class by the beginning of its name"
PART = re.compile(rf"[{re.escape(NEW + NAME)}][^,]*|[^,\s]+")
"""A part of an answer of several classes: names, which may have spaces, end at a comma, keys at a space too."""


class WrongAnswer(Exception):
    """The annotator typed something that means nothing."""


@dataclass(frozen=True)
class ClassAnswers:
    """Answers of one class: one key in a terminal, or a name."""

    classes: list[Any]

    def help(self) -> str:
        """Return the keys of the classes, and the commands."""
        named = zip(KEYS, self.classes, strict=False)
        return "  ".join([*(f"[{key}] {label}" for key, label in named), f"({COMMANDS}, {NAMES})"])

    def read(self) -> str:
        """Return the next answer, empty at the end of the input."""
        if not sys.stdin.isatty():
            return next_line()
        key = click.getchar()
        if key in (NEW, NAME):
            return typed_line(key)
        click.echo(key if key.isprintable() else repr(key))
        return key

    def label_of(self, given: str) -> Any:
        """Return the class that an answer means. Raises WrongAnswer."""
        if given.startswith(NEW) and given[1:].strip():
            return class_of_text(given[1:].strip(), self.classes)
        if given in KEYS[: len(self.classes)] and len(given) == 1:
            return self.classes[KEYS.index(given)]
        if given.startswith(NAME):
            return self._named(given[1:].strip().lower())
        raise WrongAnswer(f"{given!r} is no key: {self.help()}")

    def _named(self, beginning: str) -> Any:
        found = [label for label in self.classes if str(label).lower().startswith(beginning)]
        exact = [label for label in found if str(label).lower() == beginning]
        if len(found) == 1 or exact:
            return (exact or found)[0]
        raise WrongAnswer(f"{len(found)} classes begin so: {', '.join(map(str, found[:10]))}")


class ClassSetAnswers(ClassAnswers):
    """Answers of any number of classes, on a line."""

    def help(self) -> str:
        """Return the keys of the classes, and the commands."""
        return f"{super().help()}\nSeveral, with spaces or commas between them, then Enter; {NONE} is none of them."

    def read(self) -> str:
        """Return the next answer, empty at the end of the input."""
        return typed_line() if sys.stdin.isatty() else next_line()

    def label_of(self, given: str) -> Any:
        """Return the classes that an answer means. Raises WrongAnswer."""
        if given == NONE:
            return []
        parts = PART.findall(given)
        if not parts:
            raise WrongAnswer(f"nothing was typed; {NONE} is none of the classes, {SKIP} skips the sample")
        classes = map(super().label_of, map(str.strip, parts))
        return list(dict.fromkeys(classes))


@dataclass(frozen=True)
class NumberAnswers:
    """Answers that are numbers, on a line."""

    def help(self) -> str:
        """Return the commands."""
        return f"A number, then Enter ({COMMANDS})"

    def read(self) -> str:
        """Return the next answer, empty at the end of the input."""
        return typed_line() if sys.stdin.isatty() else next_line()

    def label_of(self, given: str) -> float:
        """Return the number that an answer is. Raises WrongAnswer."""
        number = number_of_text(given)
        if number is None or not math.isfinite(number):
            raise WrongAnswer(f"{given!r} is not a number ({COMMANDS})")
        return number


Answers = ClassAnswers | NumberAnswers


def answers_of(facts: dict[str, Any]) -> Answers:
    """Return the answers that fit the target of a project."""
    if facts["target"] == "number":
        return NumberAnswers()
    return (ClassSetAnswers if facts["target"] == "labels" else ClassAnswers)(facts["classes"])


def typed_line(begin: str = "") -> str:
    """Return a line that is typed in a terminal, with the key that began it; a space if it is empty."""
    return f"{begin}{input(begin or '> ')}".strip() or " "


def next_line() -> str:
    """Return the next line of a pipe, a space if it is empty; empty at the end of the input."""
    line = sys.stdin.readline()
    return line.strip() or (" " if line else "")
