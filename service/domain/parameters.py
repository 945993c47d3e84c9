"""Declared parameters of estimators and strategies, and the checks of given values."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from service.errors import FieldError, InvalidRequest

ParameterValue = bool | int | float | str | None | tuple[int, ...]
Parameters = Mapping[str, ParameterValue]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its type, range, default, and a sentence of help.

    `minimum` and `maximum` are inclusive unless `above_minimum`; for a list of integers they bound each entry,
    and the list holds 1 to 10 of them.
    """

    name: str
    kind: Literal["boolean", "integer", "number", "choice", "integers"]
    default: ParameterValue
    summary: str
    minimum: float | None = None
    maximum: float | None = None
    above_minimum: bool = False
    choices: tuple[str, ...] = ()
    nullable: bool = False

    def expected(self) -> str:
        """Describe the valid values."""
        what = {
            "boolean": "true or false",
            "integer": f"an integer{self._range()}",
            "number": f"a number{self._range()}",
            "choice": "one of " + ", ".join(repr(choice) for choice in self.choices),
            "integers": f"a list of 1 to 10 integers{self._range()}",
        }[self.kind]
        return f"{what}, or null" if self.nullable else what

    def check(self, value: object) -> ParameterValue:
        """Return `value` as the declared type, or raise ValueError that describes the valid values."""
        if value is None and self.nullable:
            return None
        match self.kind:
            case "boolean" if isinstance(value, bool):
                return value
            case "integer" if isinstance(value, int) and not isinstance(value, bool) and self._within(value):
                return value
            case "number" if isinstance(value, int | float) and not isinstance(value, bool) and self._within(value):
                return float(value)
            case "choice" if isinstance(value, str) and value in self.choices:
                return value
            case "integers" if isinstance(value, list) and 1 <= len(value) <= 10:
                if all(isinstance(v, int) and not isinstance(v, bool) and self._within(v) for v in value):
                    return tuple(value)
        raise ValueError(f"must be {self.expected()}")

    def _within(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.minimum is not None and (value < self.minimum or (self.above_minimum and value == self.minimum)):
            return False
        return self.maximum is None or value <= self.maximum

    def _range(self) -> str:
        low = "" if self.minimum is None else f" {'above' if self.above_minimum else 'from'} {self.minimum:g}"
        high = "" if self.maximum is None else f" {'up ' if low else ''}to {self.maximum:g}"
        return low + high


def check_parameters(owner: str, declared: Iterable[Parameter], given: Mapping[str, object]) -> Parameters:
    """Return every declared parameter with its given or default value.

    Raises InvalidRequest, with the pointer `/<name>`, for each unknown name and invalid value.
    """
    known = {parameter.name: parameter for parameter in declared}
    values: dict[str, ParameterValue] = {name: parameter.default for name, parameter in known.items()}
    errors = []
    for name, value in given.items():
        if name not in known:
            errors.append(FieldError(f"/{pointer_token(name)}", unknown_name(f"parameter of {owner}", name, known)))
            continue
        try:
            values[name] = known[name].check(value)
        except ValueError as error:
            errors.append(FieldError(f"/{name}", str(error)))
    if errors:
        raise InvalidRequest(errors)
    return values


def not_listed(what: str, name: str, known: Iterable[str], listed_at: str) -> str:
    """Return the error for an unknown name of many: the closest known one, and where all are listed."""
    close = closest(name, known)
    guess = f"did you mean {close!r}? " if close else ""
    return f"{name[:64]!r} is not {what}: {guess}{listed_at} lists all"


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return an error text for an unknown name, with the known ones and the closest match."""
    names = sorted(known)
    text = f"{name[:64]!r} is not a {what}: {', '.join(names) if names else 'it takes none'}"
    close = closest(name, names)
    return f"{text}; did you mean {close!r}?" if close else text


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is the most like another one, whatever the case of letters; None if none is close."""
    folded = {each.casefold(): each for each in known}
    return next((folded[each] for each in difflib.get_close_matches(name[:64].casefold(), folded, n=1)), None)


def pointer_token(name: str) -> str:
    """Return a name escaped for a JSON pointer (RFC 6901), cut for use in an error message."""
    return name[:64].replace("~", "~0").replace("/", "~1")
