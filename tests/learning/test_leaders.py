"""The best rows of a large pool under a linear model are those of exact scores, however they are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.learning import close_rows, leaders
from service.learning import pool as pool_module
from service.learning.close_rows import CloseRows
from service.learning.kernels import Kernel
from service.learning.leaders import estimate_leaders, exact_scores
from service.learning.linear_scorer import LinearPredictor
from service.learning.pool import Pool
from service.learning.scoring import INVALID_SCORE, SegmentScores, score_pool
from service.strategies import STRATEGIES, Question, select
from service.strategies.engine import exact_ranking
from service.strategies.engine.ranking import best_rows

BOUNDED = [name for name, each in STRATEGIES.items() if each.bound is not None]
N = 5_001


@pytest.fixture(scope="module")
def compiled() -> Kernel:
    kernel = Kernel("service.learning.linear_kernel", "find_close")
    kernel.start().join()
    assert kernel.get(is_worth_it=False) is not None
    return kernel


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to find close rows, in a pool of any size."""
    monkeypatch.setattr(exact_ranking, "MIN_ROWS", 1)
    kernel = request.getfixturevalue("compiled") if request.param == "compiled" else Kernel("service.none", "none")
    monkeypatch.setattr(close_rows, "KERNEL", kernel)


@pytest.fixture(autouse=True)
def logged_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that cannot be compiled is logged, which is not wanted here."""
    monkeypatch.setattr("service.learning.kernels.log.exception", lambda *_: None)


class Kept:
    """A cache that keeps all scores."""

    def __init__(self) -> None:
        self.known: dict[Any, Any] = {}

    def segment_scores(self, scoring: Any, segment: int, n_rows: int, n_chunks: int) -> SegmentScores:
        return self.known.setdefault((scoring, segment), SegmentScores.unknown(n_rows, n_chunks))

    def of_model(self, key: Any, make: Callable[[], tuple[Any, int]]) -> Any:
        return self.known.setdefault(key, make()[0])


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


def logits_of(model: LogisticRegression, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return logits (n, c), added up feature by feature."""
    W, b = (model.coef_, model.intercept_) if len(model.coef_) > 1 else two(model)
    z = np.multiply.outer(X[:, 0].astype(np.float64), W[:, 0])
    for column, weights in zip(X.T[1:], W.T[1:], strict=True):
        z += np.multiply.outer(column.astype(np.float64), weights)
    return z + b


def two(model: LogisticRegression) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.concatenate([model.coef_ / -2, model.coef_ / 2]), np.concatenate(
        [model.intercept_ / -2, model.intercept_ / 2]
    )


def scores_of(name: str, model: LogisticRegression, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return the exact score of each row."""
    with np.errstate(all="ignore"):
        z = logits_of(model, X)
        first = z.max(axis=1)
        P = np.exp(z - first[:, np.newaxis])
        P /= sum(P.T[1:], P[:, 0].copy())[:, np.newaxis]
        scores = STRATEGIES[name].function(P)
    most = np.finfo(np.float32 if X.dtype in (np.float16, np.float32) else np.float64).max
    return np.where((first <= most) & np.isfinite(scores), scores, INVALID_SCORE)


def check(name: str, question: Question, model: LogisticRegression, X: NDArray[Any], n_wanted: int) -> None:
    """Compare a selection with the ranking of all exact scores."""
    selection = select(STRATEGIES[name], {}, question, n_wanted, np.random.default_rng(0))
    scores = scores_of(name, model, X)[question.is_open]
    indices, best = best_rows(question.candidates, scores, n_wanted, np.random.default_rng(0))
    assert np.array_equal(selection.indices, indices)
    assert np.array_equal(selection.scores, best)
    n_invalid = np.count_nonzero(scores == INVALID_SCORE)
    assert (f"for {n_invalid} of" in (selection.fallback_reason or "")) == (n_invalid > 0)


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
        case "few values":
            return rng.integers(0, 2, size=(N, 6)).astype(np.float32)
        case "sorted":
            return X[np.argsort(X[:, 0])].astype(np.float32)
        case "constant":
            return np.ones((N, 6), np.float32)
        case "huge":
            X[::5] *= 1e300
            X[3::500] = np.finfo(np.float64).max
        case "overflow":
            X[::5] *= 1e37
            X[3::500] = np.finfo(np.float32).max
            return X.astype(np.float32)
        case "tiny":
            return (X * 1e-30).astype(np.float32)
        case "far away":
            return (X + 1e6).astype(np.float32)
        case "certain":
            return (X * 1e4).astype(np.float32)
    return X


KINDS = ["float64", "float32", "float16", "integers", "few values", "sorted", "constant", "huge", "overflow", "tiny"]


@pytest.mark.parametrize("kind", [*KINDS, "far away", "certain"])
@pytest.mark.parametrize("n_classes", [2, 7])
def test_the_selection_is_that_of_exact_scores(kind: str, n_classes: int, way: None) -> None:
    X, model = features(kind), linear(n_classes)
    for name in BOUNDED:
        for n_wanted in (1, 60, int(N * 6 / 7)):
            check(name, question_of(Pool.of(X), model, n_classes), model, X, n_wanted)


@pytest.mark.parametrize("width", [1, 7, 8, 33])
@pytest.mark.parametrize("n_classes", [2, 5, 31])
def test_close_rows_are_found_in_any_shape(width: int, n_classes: int, way: None) -> None:
    rng = np.random.default_rng(width)
    for n_rows in (1, 3, 4, 5, 130):
        for scale in (1.0, 1e-3, 1e3):
            X = (rng.normal(size=(n_rows, width)) * scale).astype(np.float32)
            model = linear(n_classes, width, seed=n_rows)
            model.coef_ /= scale
            z = np.sort(logits_of(model, X), axis=1)
            gaps = z[:, -1] - z[:, -2]
            for reach in np.quantile(gaps, [0.0, 0.1, 0.9]):
                found = CloseRows.of(LinearPredictor(model).heads[0], reach).find(X)
                assert set(np.flatnonzero(gaps <= reach)) <= set(found)
                assert (np.diff(found) > 0).all()
                assert (gaps[found] <= reach + 0.02).all()


def test_rows_that_are_not_numbers_or_too_large_count_as_close(way: None) -> None:
    X = features("float32")[:50].copy()
    X[::7, 2], X[1::7, 0], X[2::7, 5] = np.nan, np.inf, 3e38
    found = CloseRows.of(LinearPredictor(linear(4)).heads[0], 0.0).find(X)
    assert {*range(0, 50, 7), *range(1, 50, 7), *range(2, 50, 7)} <= set(found.tolist())


@pytest.mark.parametrize("scale", [1e30, 1e200])
def test_huge_weights_are_no_exception(scale: float, way: None) -> None:
    X, model = features("float32"), linear(3)
    model.coef_ *= scale
    check("margin", question_of(Pool.of(X), model, 3), model, X, 5)


def test_a_pipeline_that_scales_is_no_exception(way: None) -> None:
    X = features("float32")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X[:200], np.arange(200) % 3)
    for name in BOUNDED:
        check(name, question_of(Pool.of(X), model, 3), model[-1], model[:-1].transform(X).astype(np.float64), 10)


def test_segments_of_different_dtypes_and_scales_are_no_exception(way: None) -> None:
    parts = (features("float32"), features("certain"), features("integers"), features("float64")[:50])
    X = np.concatenate(parts)
    for n_wanted in (5, 2000):
        check("margin", question_of(Pool(parts), linear(4), 4), linear(4), X, n_wanted)


def test_a_mapped_pool_is_no_exception(way: None, tmp_path: Any) -> None:
    np.save(tmp_path / "X.npy", features("float32"))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    check("margin", question_of(Pool.of(X), linear(3), 3), linear(3), X, 5)


@pytest.mark.parametrize("chunk_cells", [2**11, 2**13 + 1, 2**19])
def test_chunks_and_threads_do_not_matter(chunk_cells: int, way: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "CHUNK_CELLS", chunk_cells)
    X = features("far away")
    for n_wanted in (5, 2000):
        check("margin", question_of(Pool.of(X), linear(3), 3), linear(3), X, n_wanted)


def test_a_score_does_not_depend_on_the_other_rows() -> None:
    X, predict = features("float32"), LinearPredictor(linear(5))
    pool, rows = Pool.of(X), np.arange(0, N, 50)
    scores = exact_scores(predict, pool, STRATEGIES["margin"].function, rows)
    alone = [exact_scores(predict, pool, STRATEGIES["margin"].function, rows[[i]])[0] for i in range(len(rows))]
    assert scores.tolist() == alone
    assert scores == pytest.approx(scores_of("margin", linear(5), X[rows]), abs=0)


def test_known_estimates_serve_other_batches_and_open_rows(way: None) -> None:
    X, model, cache = features("float32"), linear(5), Kept()
    question = question_of(Pool.of(X), model, 5, score_cache=cache)
    is_open = question.is_open.copy()
    for n_wanted in (5, 20, 1, 60, 20, 3000, 5):
        now = replace(question, is_open=is_open.copy())
        check("margin", now, model, X, n_wanted)
        is_open[select(STRATEGIES["margin"], {}, now, 20, np.random.default_rng(0)).indices] = False
    some = np.zeros(N, bool)
    some[2_000:2_400] = True
    check("margin", replace(question, is_open=some), model, X, 1)


@pytest.mark.parametrize("n_classes", [2, 10])
def test_few_rows_are_estimated(n_classes: int, way: None) -> None:
    pool, model, strategy = Pool.of(features("float32")), linear(n_classes), STRATEGIES["margin"]
    found = estimate_leaders(LinearPredictor(model), pool, strategy.function, strategy.bound, 0.01, None)
    assert found is not None
    assert 0 < len(found.rows) < 0.03 * N
    [full] = score_pool(model, pool, strategy.function, np.ones(N, bool))
    others = np.delete(full, found.rows)
    assert others.max() < found.floor + 1e-5
    assert (np.abs(found.scores - scores_of("margin", model, pool.segments[0])[found.rows]) <= found.errors).all()


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


@pytest.mark.parametrize("name", BOUNDED)
def test_a_score_changes_by_at_most_twice_as_much_as_the_logits(name: str) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 4)) * rng.choice([0.1, 1, 10], size=(20_000, 1))
    scores = [
        STRATEGIES[name].function(np.exp(each) / np.exp(each).sum(axis=1, keepdims=True))
        for each in (z, z + 1e-3 * rng.choice([-1, 1], z.shape))
    ]
    assert np.abs(scores[0] - scores[1]).max() <= 2e-3


def test_other_models_and_small_pools_are_scored_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    X = features("float32")
    monkeypatch.setattr(leaders, "find_leaders", None)
    monkeypatch.setattr(exact_ranking, "exact_scores", None)
    select(STRATEGIES["margin"], {}, question_of(Pool.of(X), linear(3), 3), 5, np.random.default_rng(0))
    monkeypatch.setattr(exact_ranking, "MIN_ROWS", 1)
    model = GaussianNB().fit(X[:60], np.arange(60) % 3)
    select(STRATEGIES["margin"], {}, question_of(Pool.of(X), model, 3), 5, np.random.default_rng(0))
