"""The leaders of a pool are those that all scores would give, with the same scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.learning.leaders import score_leaders
from service.learning.pool import Pool
from service.learning.scoring import SegmentScores, score_pool
from service.strategies import STRATEGIES, Question, select

BOUNDED = [name for name, each in STRATEGIES.items() if each.bound is not None]
N = 20_000


class Kept:
    """A cache that keeps all scores."""

    def __init__(self) -> None:
        self.known: dict[Any, SegmentScores] = {}

    def segment_scores(self, scoring: Any, segment: int, n_rows: int, n_chunks: int) -> SegmentScores:
        return self.known.setdefault((scoring, segment), SegmentScores.unknown(n_rows, n_chunks))


def linear(n_classes: int, width: int = 6, seed: int = 0) -> LogisticRegression:
    rng = np.random.default_rng(seed)
    model = LogisticRegression()
    model.classes_ = np.arange(n_classes)
    n_rows = 1 if n_classes == 2 else n_classes
    model.coef_, model.intercept_ = rng.normal(size=(n_rows, width)), rng.normal(size=n_rows)
    model.n_features_in_ = width
    return model


def question_of(pool: Pool, model: Any, n_classes: int, **options: Any) -> Question:
    is_open = np.ones(len(pool), bool)
    is_open[::7] = False
    return Question(
        pool=pool, is_open=is_open, labeled=np.arange(3), model=model, n_classes_labeled=n_classes, **options
    )


def both(name: str, question: Question, n_wanted: int, seed: int = 0) -> tuple[Any, Any]:
    """Return the selections with and without the shortcut."""
    strategy = STRATEGIES[name]
    rng = [np.random.default_rng(seed) for _ in range(2)]
    short = select(strategy, {}, question, n_wanted, rng[0])
    return short, select(replace(strategy, bound=None), {}, replace(question, score_cache=None), n_wanted, rng[1])


def check_same(name: str, question: Question, n_wanted: int) -> None:
    short, full = both(name, question, n_wanted)
    assert np.array_equal(short.indices, full.indices)
    assert np.array_equal(short.scores, full.scores)
    assert short.fallback_reason == full.fallback_reason


def features(kind: str) -> NDArray[Any]:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, 6))
    match kind:
        case "float32":
            return X.astype(np.float32)
        case "float16":
            return X.astype(np.float16)
        case "integers":
            return rng.integers(-3, 4, size=(N, 6))  # many ties
        case "sorted":
            return X[np.argsort(X[:, 0])]
        case "constant":
            return np.ones((N, 6))
        case "huge":
            X[::5] *= 1e300
            X[3::500] = np.finfo(np.float64).max
            return X
        case "certain":
            return X * 1e4
    return X


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "integers", "sorted", "constant", "huge", "certain"])
@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_the_selection_is_that_of_all_scores(kind: str, n_classes: int) -> None:
    pool = Pool.of(features(kind))
    for name in BOUNDED:
        for n_wanted in (1, 7, 40, N):
            check_same(name, question_of(pool, linear(n_classes), n_classes), n_wanted)


def test_a_pipeline_that_scales_is_no_exception() -> None:
    X = features("float32")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X[:200], np.arange(200) % 3)
    for name in BOUNDED:
        check_same(name, question_of(Pool.of(X), model, 3), 10)


def test_segments_of_different_dtypes_and_scales_are_no_exception() -> None:
    pool = Pool((features("float32"), features("certain"), features("integers"), features("float64")[:50]))
    for name in BOUNDED:
        check_same(name, question_of(pool, linear(4), 4), 25)


def test_known_scores_serve_other_batches_and_open_rows() -> None:
    pool, model, cache = Pool.of(features("float32")), linear(5), Kept()
    question = question_of(pool, model, 5, score_cache=cache)
    is_open = question.is_open.copy()
    for n_wanted in (5, 20, 1, 60, 20, 3000, 5):
        now = replace(question, is_open=is_open.copy())
        check_same("margin", now, n_wanted)
        is_open[select(STRATEGIES["margin"], {}, now, 20, np.random.default_rng(0)).indices] = False
    some = np.zeros(len(pool), bool)
    some[9_000:9_400] = True
    check_same("margin", replace(question, is_open=some), 1)


@pytest.mark.parametrize("n_classes", [2, 10])
def test_few_rows_are_scored(n_classes: int) -> None:
    pool, model = Pool.of(features("float32")), linear(n_classes)
    strategy, wanted = STRATEGIES["margin"], np.ones(N, bool)
    scores = score_leaders(model, pool, strategy.function, strategy.bound, wanted, 5)
    assert scores is not None
    is_scored = scores[0] >= 0
    assert 0 < is_scored.sum() < 0.03 * N
    [full] = score_pool(model, pool, strategy.function, wanted)
    assert np.array_equal(scores[0][is_scored], full[is_scored])


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("n_classes", [2, 3, 10, 100])
def test_no_score_exceeds_its_bound(name: str, n_classes: int) -> None:
    logits = np.random.default_rng(0).normal(size=(5_000, n_classes)) * 3
    P = np.exp(logits - logits.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    largest = np.sort(logits, axis=1)
    gaps = largest[:, -1] - largest[:, -2]
    strategy = STRATEGIES[name]
    bounds = np.array([strategy.bound(gap, n_classes) for gap in gaps])
    assert (strategy.function(P) <= bounds + 1e-12).all()
    level = np.full((1, n_classes), 1.0 / n_classes)
    assert strategy.bound(0.0, n_classes) == pytest.approx(strategy.function(level)[0])


def test_other_models_are_scored_as_a_whole() -> None:
    X = features("float32")
    strategy, wanted = STRATEGIES["margin"], np.ones(N, bool)
    model = GaussianNB().fit(X[:60], np.arange(60) % 3)
    assert score_leaders(model, Pool.of(X), strategy.function, strategy.bound, wanted, 5) is None
