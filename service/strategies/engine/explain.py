"""Explanations of a chosen batch: scores, nearest rows and distances, read in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads, use_one_thread
from service.domain.project import TargetName
from service.learning.models import Committee, NumberCommittee, predict_probabilities
from service.learning.pool import Pool
from service.learning.scoring import INVALID_SCORE, Probabilities, Scores, member_predictor_for, outputs_of, score_rows
from service.strategies.engine.greedy import (
    BLOCK_CELLS,
    Space,
    centered_space,
    cut,
    rows_per_block,
    scale_of,
    squared_norms,
)
from service.strategies.engine.question import Positions, Question
from service.strategies.engine.registry import STRATEGIES, Need


def predict_rows(question: Question, rows: Positions) -> Probabilities:
    """Return the model's probabilities (k, c) of rows of the pool."""
    model, pool = question.model, question.read_by_model
    if model is None:
        raise ValueError("there are no probabilities without a model")
    P = np.empty((len(rows), len(model.classes_)))
    for positions in cut(np.arange(len(rows)), rows_per_block(pool, P.shape[1])):
        P[positions] = predict_probabilities(model, pool.take(rows[positions]))
    return P


def uncertainty_scores(P: Probabilities, target: TargetName = "class") -> dict[str, Scores]:
    """Return the scores of probabilities (k, c) by each model scorer of a target; NaN for invalid probabilities."""
    return {
        name: mark_invalid(score_rows(lambda rows: rows, function, P))
        for name, function in scorers_needing(Need.PROBABILITIES, target)
    }


def disagreement_scores(
    committee: Committee | NumberCommittee, pool: Pool, rows: Positions, target: TargetName
) -> dict[str, Scores]:
    """Return each committee scorer's scores of some rows of the pool, by name; NaN for invalid predictions."""
    scorers = scorers_needing(Need.MEMBERS, target)
    found = {name: np.empty(len(rows)) for name, _ in scorers}
    predict = member_predictor_for(committee)
    step = rows_per_block(pool, outputs_of(committee))
    for positions in cut(np.arange(len(rows)), step):
        members = predict(pool.take(rows[positions]))
        for name, function in scorers:
            found[name][positions] = mark_invalid(score_rows(lambda P: P, function, members))
    return found


def scorers_needing(need: Need, target: TargetName) -> list[tuple[str, Any]]:
    """Return the names and functions of the scorers of a target with this need alone."""
    return [
        (name, each.function)
        for name, each in STRATEGIES.items()
        if each.kind == "scorer" and each.needs == {need} and target in each.targets
    ]


def mark_invalid(scores: Scores) -> Scores:
    """Return scores with NaN in place of INVALID_SCORE."""
    return np.where(scores == INVALID_SCORE, np.nan, scores)


def find_nearest(pool: Pool, rows: Positions, others: Positions, *, apart: bool = False) -> NDArray[np.int64]:
    """Return for each row (k,) the position of the nearest of the others (m,) by Euclidean distance, the first of ties.

    With `apart` a row is not its own neighbour; its position is -1 without any other.
    """
    use_one_thread()
    space = centered_space(pool, np.concatenate([rows, others]))
    found = np.empty(len(rows), np.int64)

    def find(positions: Positions) -> None:
        points = space.read(rows[positions])
        least, best = np.full(len(positions), np.inf), np.full(len(positions), -1)
        for block in space.blocks(np.arange(len(others))):
            for numbers in cut(block, BLOCK_CELLS // len(positions)):
                squares = points.squared_distances(space.read(others[numbers]))
                if apart:
                    squares[rows[positions][:, np.newaxis] == others[numbers]] = np.inf
                first = squares.argmin(axis=1)
                closest = squares[np.arange(len(first)), first]
                is_closer = closest < least
                least[is_closer], best[is_closer] = closest[is_closer], numbers[first[is_closer]]
        found[positions] = best

    run_in_threads(find, space.blocks(np.arange(len(rows))))
    return found


def row_distances(pool: Pool, rows: Positions, others: Positions) -> NDArray[np.float64]:
    """Return the distance between each row and the other at the same position (k,), NaN if it overflows float64."""
    # No centring, which would round the rows before they are subtracted.
    space = Space(pool, scale_of(pool, np.concatenate([rows, others])), None)
    found = np.empty(len(rows))
    for positions in space.blocks(np.arange(len(rows))):
        away = space.read(rows[positions]).features - space.read(others[positions]).features
        with np.errstate(over="ignore"):
            found[positions] = np.sqrt(squared_norms(away)) * np.float64(space.scale)
    return np.where(np.isfinite(found), found, np.nan)
