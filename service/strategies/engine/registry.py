"""The registry of strategies, filled by the decorators on their functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from service.domain.parameters import Parameter, Parameters, check_parameters, not_listed
from service.domain.project import TargetName
from service.errors import InvalidRequest
from service.learning.leaders import Bound
from service.learning.scoring import Scorer, Scores
from service.strategies.engine.question import Positions, Question


class Need(StrEnum):
    """An input that a strategy needs besides the candidates.

    LABELED is the set of labelled rows, which may be empty, and LABELS also their classes or numbers. PREDICTIONS are
    the numbers that a model predicts. MODEL is a model that can predict any row, or be trained again; a caller's
    probabilities do not suffice. With VOTES labelled rows are candidates too, described by `RelabelCandidates`.
    """

    PROBABILITIES = "probabilities"
    PREDICTIONS = "predictions"
    FEATURES = "features"
    LABELED = "labeled"
    LABELS = "labels"
    MEMBERS = "members"
    MODEL = "model"
    VOTES = "votes"


ALL_TARGETS: tuple[TargetName, ...] = get_args(TargetName)

OF_FEATURES = frozenset({Need.FEATURES, Need.LABELED})
"""The needs of strategies that look at features alone."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The strategy to run, the reason for it, and the parameters that are not its defaults."""

    strategy: str
    reason: str
    params: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Chances:
    """The probabilities of a draw: `log_q` (k,) of each of its first k rows given those before it, as logarithms.

    `is_drawable` (n,) marks the candidates that could be drawn. The rows after the first k were not drawn.
    """

    log_q: NDArray[np.float64]
    is_drawable: NDArray[np.bool_]


# A set strategy is called as (view, batch_size, rng, **params) with 1 <= batch_size <= candidates. It returns
# `batch_size` distinct positions, ask-first first; their scores, or None; and a note to the caller (such as that it
# considered a sample), or None. One that draws with known probabilities returns these, too.
SetFunction = Callable[
    ..., tuple[Positions, Scores | None, str | None] | tuple[Positions, Scores | None, str | None, Chances]
]
PolicyFunction = Callable[[Question, int], Choice]


@dataclass(frozen=True, slots=True)
class Strategy:
    """One strategy: its name, its description for callers, and its function.

    One that `starts_alone` runs without probabilities while no sample is labelled. `targets` are those whose labels it
    can ask for. The scores of a scorer may have a `bound`; they change by at most twice as much as the logits.
    """

    name: str
    summary: str
    source: str
    needs: frozenset[Need]
    parameters: tuple[Parameter, ...]
    kind: Literal["scorer", "set", "policy"]
    function: Callable[..., Any]
    starts_alone: bool = False
    targets: tuple[TargetName, ...] = ("class",)
    bound: Bound | None = None

    @property
    def needed(self) -> list[str]:
        """The names of its needs, sorted."""
        return sorted(self.needs)

    @property
    def ranks(self) -> bool:
        """Whether it ranks rows by their probabilities alone: requests at the same time share the scores."""
        return self.kind == "scorer" and self.needs == {Need.PROBABILITIES}

    @property
    def spreads(self) -> bool:
        """Whether it chooses rows far from those labelled or leased: a larger batch costs little more then."""
        return self.kind == "set" and Need.LABELED in self.needs


STRATEGIES: dict[str, Strategy] = {}


MEMBERS = Parameter(
    "members",
    kind="integer",
    default=7,
    minimum=2,
    maximum=100,
    summary="Number of models in the committee, each fitted to a bootstrap sample of the labels; a forest uses its "
    "own trees.",
)


def scorer(
    name: str, *, summary: str, source: str, targets: tuple[TargetName, ...] = ("class",), bound: Bound | None = None
) -> Callable[[Scorer], Scorer]:
    """Register a pure function probabilities (n, c) -> scores (n,), 0 or more, higher = ask first."""

    def register(function: Scorer) -> Scorer:
        needs = frozenset({Need.PROBABILITIES})
        register_strategy(Strategy(name, summary, source, needs, (), "scorer", function, targets=targets, bound=bound))
        return function

    return register


def committee_scorer(
    name: str, *, summary: str, source: str, targets: tuple[TargetName, ...] = ("class",)
) -> Callable[[Scorer], Scorer]:
    """Register a pure function of the members' probabilities (m, n, c) -> scores (n,), 0 or more, higher = ask first.

    Of numbers it takes the members' predictions (m, n). The score of a row with NaN in any member must be NaN.
    """

    def register(function: Scorer) -> Scorer:
        needs = frozenset({Need.MEMBERS})
        register_strategy(Strategy(name, summary, source, needs, (MEMBERS,), "scorer", function, targets=targets))
        return function

    return register


def set_strategy(
    name: str,
    *,
    summary: str,
    source: str,
    needs: frozenset[Need],
    parameters: tuple[Parameter, ...] = (),
    starts_alone: bool = False,
    targets: tuple[TargetName, ...] | None = None,
) -> Callable[[SetFunction], SetFunction]:
    """Register a function that chooses the batch as a whole.

    A strategy that needs more than linear time or memory considers a drawn sample of the candidates and returns a note.
    One that needs features alone is for all targets, and any other for classes, unless `targets` says otherwise.
    """
    able = targets or (ALL_TARGETS if needs <= OF_FEATURES else ("class",))

    def register(function: SetFunction) -> SetFunction:
        register_strategy(Strategy(name, summary, source, needs, parameters, "set", function, starts_alone, able))
        return function

    return register


def policy(name: str, *, summary: str, source: str) -> Callable[[PolicyFunction], PolicyFunction]:
    """Register a function that chooses which other strategy to run."""

    def register(function: PolicyFunction) -> PolicyFunction:
        register_strategy(Strategy(name, summary, source, frozenset(), (), "policy", function, targets=ALL_TARGETS))
        return function

    return register


def register_strategy(strategy: Strategy) -> None:
    """Add a strategy to STRATEGIES. Raises ValueError if its name is taken."""
    if strategy.name in STRATEGIES:
        raise ValueError(f"there are two strategies named {strategy.name!r}")
    STRATEGIES[strategy.name] = strategy


def sort_strategies() -> None:
    """Sort STRATEGIES by file and, within a file, by definition.

    The order of registration depends on the order of imports.
    """
    ordered = sorted(STRATEGIES.items(), key=lambda item: item[1].function.__module__)
    STRATEGIES.clear()
    STRATEGIES.update(ordered)


def check_target(strategy: Strategy, params: Parameters, target: TargetName) -> None:
    """Raise InvalidRequest for a strategy, or a scorer among its parameters, that cannot ask for labels of a target.

    The default scorer has an equivalent for each target of the strategy.
    """
    if target not in strategy.targets:
        able = ", ".join(repr(name) for name, other in STRATEGIES.items() if target in other.targets)
        raise InvalidRequest.at("/strategy", f"{strategy.name!r} is not for target {target!r}; use one of {able}")
    for parameter in strategy.parameters:
        if parameter.name != "scorer" or params["scorer"] == parameter.default:
            continue
        fitting = [name for name in parameter.choices if target in STRATEGIES[name].targets]
        if params["scorer"] not in fitting:
            able = ", ".join(map(repr, fitting))
            problem = f"{params['scorer']!r} is not for target {target!r}; use one of {able}"
            raise InvalidRequest.at("/params/scorer", problem)


def resolve_strategy(name: str, params: Mapping[str, object]) -> tuple[Strategy, Parameters]:
    """Return the strategy of this name and all its parameters, with defaults filled in.

    Raises InvalidRequest with the pointer `/strategy`, or `/params/<name>` for each wrong parameter.
    """
    if name not in STRATEGIES:
        raise InvalidRequest.at("/strategy", not_listed("a strategy", name, STRATEGIES, "GET /strategies"))
    strategy = STRATEGIES[name]
    try:
        return strategy, check_parameters(f"strategy {name!r}", strategy.parameters, params)
    except InvalidRequest as error:
        raise error.with_prefix("/params") from None
