"""The strategies: their scores, the fallback if one cannot run, and the contract that all satisfy."""

import json
import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_info, threadpool_limits

from service.errors import InvalidRequest
from service.learning import scoring
from service.learning.models import predict_probabilities
from service.learning.pool import Pool, SparseRows
from service.learning.scoring import SegmentScores
from service.strategies import STRATEGIES, Question, Strategy, resolve_strategy, select, uncertainty
from service.strategies.engine import registry
from service.strategies.engine.features import FOLDED, center_and_scale, cluster_middles, to_dense
from tests.support.edge_case_pools import GOOD, POOLS
from tests.support.questions import read_only
from tests.support.strategies import FOR_CLASSES

SCORERS = {
    "least_confidence": uncertainty.least_confidence,
    "margin": uncertainty.margin,
    "ratio": uncertainty.ratio,
    "entropy": uncertainty.entropy,
}


def ask(name, question, batch_size, seed=0, **params):
    return select(*resolve_strategy(name, params), question, batch_size, np.random.default_rng(seed))


def question_about(X, model=None, n_classes_labeled=0, labeled=(), hidden=()):
    """All rows of X are candidates except labelled and hidden ones (skipped, excluded, leased)."""
    is_open = np.ones(len(X), bool)
    is_open[[*labeled, *hidden]] = False
    pool = X if isinstance(X, Pool) else Pool.of(X)
    return Question(pool, read_only(is_open), read_only(np.array(labeled, dtype=np.int64)), model, n_classes_labeled)


def compressed(X):
    """The same rows as a sparse pool, in float64 where scipy has no arithmetic for their type."""
    csr = sparse.csr_array(X.astype(np.float64) if X.dtype == np.float16 else X)
    return Pool.of(SparseRows(csr.data, csr.indices, csr.indptr, csr.shape[1]))


def halved(X):
    """The same rows in two segments."""
    return Pool((X[: len(X) // 3], X[len(X) // 3 :])) if len(X) > 2 else Pool.of(X)


def gappy(X):
    """The same rows with missing values: in one row, in one column, and here and there; imputed as for a project."""
    X = X.copy()
    X[3], X[:, 1], X[::5, 0] = np.nan, np.nan, np.nan
    return Pool.of(X, allows_missing=True).imputed


KINDS = {"dense": Pool.of, "sparse": compressed, "two segments": halved, "missing values": gappy}


class Table:
    """A model that predicts row i of its table for the row whose first feature is i."""

    def __init__(self, table):
        self.table = np.array(table, dtype=np.float64)
        self.classes_ = np.arange(self.table.shape[1])

    def predict_proba(self, X):
        return self.table[X[:, 0].astype(int)]


def question_with(table):
    return question_about(np.arange(len(table), dtype=np.float64)[:, np.newaxis], Table(table), 2)


# The registry.


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=lambda strategy: strategy.name)
def test_every_strategy_is_documented(strategy):
    assert strategy.summary.endswith(".")
    assert strategy.source
    assert strategy.function.__doc__
    assert all(parameter.check(parameter.default) == parameter.default for parameter in strategy.parameters)


@pytest.mark.parametrize(
    ("name", "params", "pointer", "detail"),
    [
        ("entropi", {}, "/strategy", "did you mean 'entropy'?"),
        ("", {}, "/strategy", "is not a strategy"),
        ("k_means", {"sample": 99}, "/params/sample", "an integer from 100 up to 100000"),
        ("k_means", {"smaple": 100}, "/params/smaple", "did you mean 'sample'?"),
        ("margin", {"sample": 100}, "/params/sample", "it takes none"),
    ],
)
def test_the_error_for_a_wrong_name_suggests_the_right_one(name, params, pointer, detail):
    with pytest.raises(InvalidRequest) as caught:
        resolve_strategy(name, params)
    (error,) = caught.value.errors
    assert error.pointer == pointer
    assert detail in error.detail


def test_parameters_are_completed_with_their_defaults():
    assert resolve_strategy("k_means", {})[1] == {"sample": 10_000}
    assert resolve_strategy("k_means", {"sample": 500})[1] == {"sample": 500}


def test_two_strategies_of_the_same_name_are_refused():
    with pytest.raises(ValueError, match="two strategies named 'margin'"):
        registry.register_strategy(STRATEGIES["margin"])


# The scorers.


@pytest.mark.parametrize(
    ("probabilities", "least_confidence", "margin", "ratio", "entropy"),
    [
        ([0.5, 0.3, 0.2], 0.5, 0.8, 0.6, 0.937231),
        ([0.2, 0.3, 0.5], 0.5, 0.8, 0.6, 0.937231),
        ([0.8, 0.2], 0.2, 0.4, 0.25, 0.721928),
        ([0.25, 0.75, 0.0], 0.25, 0.5, 1 / 3, 0.511860),
        ([0.5, 0.5, 0.0], 0.5, 1, 1, 0.630930),
        ([0.5, 0.5], 0.5, 1, 1, 1),
        ([0.25, 0.25, 0.25, 0.25], 0.75, 1, 1, 1),
        ([0.0, 1.0], 0, 0, 0, 0),
        ([1.0, 0.0, 0.0], 0, 0, 0, 0),
        ([1.0], 0, 0, 0, 0),
        ([0.0, 0.0], 1, 1, 1, 0),
    ],
)
def test_scores_worked_by_hand(probabilities, least_confidence, margin, ratio, entropy):
    expected = {"least_confidence": least_confidence, "margin": margin, "ratio": ratio, "entropy": entropy}
    for dtype in (np.float64, np.float32):
        p = read_only(np.array([probabilities], dtype=dtype))
        scores = {name: scorer(p) for name, scorer in SCORERS.items()}
        assert {name: score.item() for name, score in scores.items()} == pytest.approx(expected, abs=1e-6)
        assert {score.dtype for score in scores.values()} == {np.dtype(np.float64)}
        assert not any(np.signbit(score).any() for score in scores.values())


def literal_scores(p):
    first, second = [*sorted(p, reverse=True), 0.0][:2]
    pick_cluster_middles = -sum(x * np.log(x) for x in p if x > 0)
    return {
        "least_confidence": 1 - first,
        "margin": 1 - (first - second),
        "ratio": second / first,
        "entropy": pick_cluster_middles / np.log(len(p)) if len(p) > 1 else 0.0,
    }


@pytest.mark.parametrize("n_classes", [1, 2, 3, 10, 200])
def test_scores_agree_with_the_literal_definition(n_classes):
    P = np.random.default_rng(n_classes).dirichlet(np.full(n_classes, 0.3), 50)
    P[P < 1e-3] = 0.0
    expected = [literal_scores(p) for p in P.tolist()]
    for name, scorer in SCORERS.items():
        assert scorer(P) == pytest.approx([score[name] for score in expected]), name
        assert scorer(np.asfortranarray(P)) == pytest.approx(scorer(P)), name


def test_a_class_without_probability_does_not_rank_a_row_last():
    selection = ask("entropy", question_with([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.9, 0.1, 0.0]]), 3)
    assert selection.indices.tolist() == [1, 2, 0]


def test_the_four_scorers_differ():
    # Each row wins by only one definition.
    table = [[0.34, 0.33, 0.33, 0, 0], [0.49, 0.49, 0.02, 0, 0], [0.45, 0.15, 0.15, 0.13, 0.12]]
    assert ask("least_confidence", question_with(table), 1).indices.tolist() == [0]
    assert ask("margin", question_with(table), 1).indices.tolist() == [1]
    assert ask("entropy", question_with(table), 1).indices.tolist() == [2]
    wide, narrow = [0.2, 0.12, *[0.068] * 10], [0.55, 0.45, *[0] * 10]
    assert ask("margin", question_with([wide, narrow]), 1).indices.tolist() == [0]
    assert ask("ratio", question_with([wide, narrow]), 1).indices.tolist() == [1]


@pytest.mark.parametrize("name", SCORERS)
def test_rows_without_finite_probabilities_rank_last_with_a_note(name):
    selection = ask(name, question_with([[np.nan, 0.5], [0.9, 0.1], [np.inf, np.inf], [1.0, 0.0]]), 4)
    assert selection.indices[:2].tolist() == [1, 3]
    assert selection.scores[2:].tolist() == [-1, -1]
    assert "no finite probabilities for 2 of the 4 candidates" in selection.fallback_reason


def test_only_candidates_without_finite_probabilities_are_noted():
    question = question_with([[np.nan, np.nan], [0.9, 0.1]])
    question = question_about(question.pool.segments[0], question.model, 2, hidden=[0])
    assert ask("margin", question, 2).fallback_reason is None


# random


def test_random_is_uniform():
    firsts = [ask("random", question_about(GOOD[:5]), 1, seed).indices[0] for seed in range(1000)]
    assert np.abs(np.bincount(firsts, minlength=5) - 200).max() < 60  # one deviation is 13


# k_means


def blobs(sizes):
    rng = np.random.default_rng(3)
    return np.concatenate([rng.normal(10 * k, 1, (size, 4)) for k, size in enumerate(sizes)])


def literal_middles(sizes, X):
    """The row nearest the mean of each blob, biggest blob first."""
    starts = np.cumsum([0, *sizes])
    middles = []
    for size, start in sorted(zip(sizes, starts, strict=False), reverse=True):
        blob = X[start : start + size]
        middles.append(start + min(range(size), key=lambda i: sum((blob[i] - blob.mean(axis=0)) ** 2)))
    return middles


@pytest.mark.parametrize("sizes", [[9], [20, 50, 30], [5, 60, 7, 11]])
@pytest.mark.parametrize("scale", [1, 1e300, 1e-300])
def test_k_means_takes_the_middle_of_each_blob_biggest_first(sizes, scale):
    X = blobs(sizes)
    assert ask("k_means", question_about(X * scale), len(sizes)).indices.tolist() == literal_middles(sizes, X)


def test_k_means_takes_each_distinct_row_before_any_twice():
    X = np.repeat(np.arange(5.0)[:, np.newaxis], [30, 10, 25, 5, 20], axis=0)
    picked = X[ask("k_means", question_about(X), 9).indices, 0]
    assert picked[:5].tolist() == [0, 2, 4, 1, 3]


def test_equal_rows_are_taken_about_equally_often():
    X = np.repeat([[0.0], [1.0]], 6, axis=0)
    picked = np.concatenate([ask("k_means", question_about(X), 2, seed).indices for seed in range(300)])
    assert np.abs(np.bincount(picked, minlength=12) - 50).max() < 30  # one deviation is 6


def test_k_means_considers_a_sample_with_a_note():
    X = np.random.default_rng(0).normal(size=(1000, 2))
    selection = ask("k_means", question_about(X), 5, sample=300)
    assert selection.fallback_reason == "k_means considered a sample of 300 of the 1000 candidates"
    assert ask("k_means", question_about(X), 5, sample=1000).fallback_reason is None
    assert ask("k_means", question_about(X), 5).fallback_reason is None


def test_the_sample_grows_with_the_batch():
    X = np.random.default_rng(0).normal(size=(1000, 2))
    selection = ask("k_means", question_about(X), 400, sample=100)
    assert len(np.unique(selection.indices)) == 400
    assert selection.fallback_reason == "k_means considered a sample of 400 of the 1000 candidates"


@pytest.mark.parametrize("pool", POOLS)
def test_comparable_features_reach_one_unless_all_rows_are_equal(pool):
    assert np.abs(center_and_scale(POOLS[pool])).max() == (len(np.unique(POOLS[pool], axis=0)) > 1)


@pytest.mark.parametrize("scale", [1, 2.0**1000, 2.0**-1000])
def test_comparable_features_keep_their_geometry(scale):
    X = np.array([[0.0, 1.0], [20.0, 3.0]])
    assert center_and_scale(X * scale) == pytest.approx(np.array([[-1, -0.1], [1, 0.1]]))


def test_clusters_are_found_by_one_thread():
    with threadpool_limits(2):
        cluster_middles(center_and_scale(GOOD), 3, np.random.default_rng(0))
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}


def test_cluster_middles_are_fewer_if_rows_repeat():
    assert len(cluster_middles(np.repeat([[0.0], [1.0]], 5, axis=0), 6, np.random.default_rng(0))) == 2


# Fallbacks

MODEL = LogisticRegression().fit(GOOD, (GOOD[:, 0] > 2).astype(int) + (GOOD[:, 0] > 6))


@pytest.mark.parametrize(
    ("name", "model", "n_classes_labeled", "ran", "reason"),
    [
        ("auto", None, 0, "max_herding", "no sample is labelled, so these rows best represent the others"),
        ("auto", None, 1, "max_herding", "only one class is labelled, so these rows best"),
        ("auto", None, 2, "max_herding", "none has been fitted, so these rows"),
        ("auto", MODEL, 3, "uherding", "auto chose uherding: the rows that best represent what the model is unsure of"),
        ("margin", None, 0, "max_herding", "no sample is labelled"),
        ("margin", None, 1, "margin", "'auto' does better"),
        ("margin", None, 2, "max_herding", "none has been fitted"),
        ("margin", MODEL, 3, "margin", None),
        ("entropy", None, 1, "entropy", "'auto' does better"),
        ("k_means", None, 0, "k_means", None),
        ("k_means", MODEL, 3, "k_means", None),
        ("random", None, 0, "random", None),
        (
            "ranked_batch",
            None,
            0,
            "ranked_batch",
            "probabilities were not used; ranked_batch starts",
        ),
        ("ranked_batch", None, 2, "max_herding", "none has been fitted"),
        ("random", None, 1, "random", None),
    ],
)
def test_the_strategy_that_ran_and_why(name, model, n_classes_labeled, ran, reason):
    selection = ask(name, question_about(GOOD, model, n_classes_labeled), 3)
    assert selection.strategy == ran
    fallback_reason, policy_reason = (None, reason) if name == "auto" else (reason, None)
    for found, expected in ((selection.fallback_reason, fallback_reason), (selection.reason, policy_reason)):
        assert (found is None) == (expected is None)
        assert (expected or "") in (found or "")


@pytest.mark.parametrize(
    ("has_features", "batch_size", "ran", "reason"),
    [
        (True, 1, "uherding", "best represent what the model is unsure of"),
        (True, 1000, "uherding", "best represent what the model is unsure of"),
        (True, 1001, "power", "herding more than 1000 rows is slow"),
        (False, 1, "margin", "representative rows cannot be found"),
        (False, 2, "power", "cannot be made diverse"),
    ],
)
def test_auto_chooses_by_situation_and_gives_the_reason(has_features, batch_size, ran, reason):
    question = replace(question_about(GOOD, MODEL, 3, labeled=range(6)), has_features=has_features)
    selection = ask("auto", question, batch_size)
    assert (selection.strategy, selection.fallback_reason) == (ran, None)
    assert selection.reason.startswith(f"auto chose {ran}: ")
    assert reason in selection.reason


@pytest.mark.parametrize("name", SCORERS)
def test_rows_are_random_with_one_known_class(name):
    selections = [ask(name, question_about(GOOD, None, 1, labeled=[3]), 5, seed) for seed in range(10)]
    assert all(selection.scores.tolist() == [0] * 5 for selection in selections)
    assert len({selection.indices[0] for selection in selections}) > 3


def test_the_fallback_reason_names_the_fallback_and_the_sample():
    reason = ask("margin", question_about(np.zeros((10_001, 1))), 1).fallback_reason
    assert reason.startswith("no model yet: no sample is labelled")
    assert reason.endswith("; max_herding considered a sample of 2000 of the 10001 candidates")


def test_a_strategy_that_returns_duplicates_raises():
    def twice_the_same(view, batch_size, rng):
        return np.zeros(batch_size, dtype=np.int64), None, None

    broken = Strategy("broken", "", "", frozenset(), (), "set", twice_the_same)
    with pytest.raises(RuntimeError, match="'broken' did not return 2 distinct candidates"):
        select(broken, {}, question_about(GOOD), 2, np.random.default_rng(0))


def test_a_strategy_is_not_called_without_candidates():
    def unprepared(view, batch_size, rng):
        raise AssertionError

    strategy = Strategy("unprepared", "", "", frozenset(), (), "set", unprepared)
    selection = select(strategy, {}, question_about(GOOD[:0]), 2, np.random.default_rng(0))
    assert (selection.indices.tolist(), selection.scores, selection.strategy) == ([], None, "unprepared")


# The contract: every strategy on every nasty pool.


@cache
def learn(kind, n_columns):
    """A real model of three classes, learnt on good rows."""
    X = np.random.default_rng(0).normal(size=(90, n_columns)) + np.repeat([[0], [4], [8]], 30, axis=0)
    return kind().fit(X, np.repeat([0, 1, 2], 30))


class DenseNB(GaussianNB):
    """Naive Bayes that also accepts sparse features."""

    def predict_proba(self, X):
        return super().predict_proba(X.toarray() if sparse.issparse(X) else X)


NEIGHBORS = partial(KNeighborsClassifier, algorithm="brute")

SITUATIONS = {
    "no label": lambda n_columns: (None, 0),
    "one class": lambda n_columns: (None, 1),
    "not fitted": lambda n_columns: (None, 2),
    "three classes": lambda n_columns: (learn(LogisticRegression, n_columns), 3),
    "probabilities of 0 and 1": lambda n_columns: (learn(NEIGHBORS, n_columns), 3),
    "overflowing": lambda n_columns: (learn(DenseNB, n_columns), 3),
}


@pytest.fixture(params=FOR_CLASSES)
def name(request):
    return request.param


# Every pool in memory, and some also in other storage formats.
KEPT = ("good", "integers", "all zero", "four distinct rows", "subnormal")
AS_KEPT = [(pool, "dense") for pool in POOLS] + [(pool, kind) for pool in KEPT for kind in ("sparse", "two segments")]
AS_KEPT.append(("good", "missing values"))


def combinations():
    """Every strategy in every situation that changes what it does."""
    for name in FOR_CLASSES:
        strategy = STRATEGIES[name]
        needs_model = strategy.kind == "policy" or strategy.needs & {"probabilities", "members", "model"}
        for situation in SITUATIONS if needs_model else ["no label"]:
            yield pytest.param(name, situation, id=f"{name}-{situation}")


@pytest.mark.parametrize(("name", "situation"), list(combinations()))
def test_contract(name, situation):
    # Without a model, max_herding replaces strategies that need one: a single pool shows that.
    is_replaced = situation in ("no label", "not fitted") and len(STRATEGIES[name].needs & {"probabilities", "members"})
    before = np.random.get_state()[1].copy()  # noqa: NPY002 to check that no strategy uses it
    # A situation changes the model alone, so sparse and segmented pools are tried with one model and without.
    all_kinds = situation in ("no label", "three classes")
    for pool, kind in AS_KEPT[: 1 if is_replaced else None if all_kinds else len(POOLS)]:
        X = POOLS[pool]
        labeled, hidden = ([0, 7, 8], [1, 20]) if len(X) > 2 else ([], [])
        question = question_about(KINDS[kind](X), *SITUATIONS[situation](X.shape[1]), labeled, hidden)
        n = len(question.candidates)
        for batch_size in (1, n + 5, 6):
            case = f"{batch_size} rows of {pool}, {kind}"
            selection = ask(name, question, batch_size)
            check_selection(selection, question, min(batch_size, n), case)
        check_equal(ask(name, question, 6), selection, case)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def check_selection(selection, question, n_expected, case):
    """Check that the rows are distinct candidates, and the scores finite and in order."""
    assert len(selection.indices) == len(np.unique(selection.indices)) == n_expected, case
    assert selection.indices.dtype == np.int64, case
    assert np.isin(selection.indices, question.candidates).all(), case
    if selection.scores is not None:
        assert selection.scores.dtype == np.float64, case
        assert len(selection.scores) == n_expected, case
        assert np.isfinite(selection.scores).all(), case
        assert (np.diff(selection.scores) <= 0).all(), case


def check_equal(one, other, case=""):
    assert np.array_equal(one.indices, other.indices), case
    assert (one.fallback_reason, one.reason) == (other.fallback_reason, other.reason), case
    assert (one.scores is None) == (other.scores is None), case
    assert one.scores is None or np.array_equal(one.scores, other.scores), case


def test_a_larger_batch_of_scores_begins_with_the_smaller(name):
    # Only without ties, whose order may depend on the batch size.
    question = question_about(GOOD, *SITUATIONS["three classes"](GOOD.shape[1]))
    small, large = ask(name, question, 4), ask(name, question, 9)
    if small.scores is not None and len(np.unique(large.scores)) == 9:
        assert large.indices[:4].tolist() == small.indices.tolist()


@pytest.mark.parametrize("situation", ["no label", "three classes"])
def test_a_pool_without_candidates_gives_an_empty_batch(name, situation):
    model, n_classes = SITUATIONS[situation](GOOD.shape[1])
    selection = ask(name, question_about(GOOD, model, n_classes, labeled=range(len(GOOD))), 5)
    assert selection.indices.tolist() == []
    assert selection.indices.dtype == np.int64
    assert selection.scores is None or selection.scores.tolist() == []


def test_a_mapped_pool_gives_the_same_batch_as_one_in_memory(name, tmp_path):
    np.save(tmp_path / "X.npy", GOOD)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    known = SITUATIONS["three classes"](GOOD.shape[1])
    check_equal(ask(name, question_about(mapped, *known), 5), ask(name, question_about(GOOD, *known), 5))


@pytest.mark.slow
def test_neither_the_number_of_threads_nor_other_requests_matter(name, monkeypatch):
    monkeypatch.setattr("service.learning.pool.CHUNK_CELLS", 2**16)  # four chunks
    X = np.random.default_rng(0).normal(size=(3000, 70))
    question = question_about(X, *SITUATIONS["three classes"](70))
    answers = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            answers.append(ask(name, question, 20))
    with ThreadPoolExecutor(2) as requests:
        answers += requests.map(lambda _: ask(name, question, 20), range(2))
    for answer in answers[1:]:
        check_equal(answer, answers[0])


IN_A_PROCESS = """
import json
import numpy as np
import service.learning.pool
from service.learning.pool import Pool
from service.strategies import STRATEGIES, Question, resolve_strategy, select
from sklearn.linear_model import LogisticRegression

service.learning.pool.CHUNK_CELLS = 2**15  # six chunks
X = np.random.default_rng(0).normal(size=(2500, 70))
X[2000:] = X[1999]
model = LogisticRegression().fit(X[:200], np.arange(200) % 3)
answers = {}
for name in (name for name in STRATEGIES if "class" in STRATEGIES[name].targets):
    for first in (0, 1990):  # from 1990 on there are ten distinct rows
        question = Question(Pool.of(X), np.arange(2500) >= first, np.arange(0), model, 3)
        selection = select(*resolve_strategy(name, {}), question, 30, np.random.default_rng(1))
        answers[f"{name} {first}"] = selection.indices.tolist()
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_processes_with_other_thread_settings_agree_without_output():
    answers = []
    for n_threads in ("1", "2"):
        settings = {"OMP_NUM_THREADS": n_threads, "OPENBLAS_NUM_THREADS": n_threads}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", IN_A_PROCESS],
            env={**os.environ, **settings},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        answers.append(json.loads(done.stdout))
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_memory_is_linear_in_the_rows(name, tmp_path):
    n = 60_000
    np.save(tmp_path / "X.npy", np.random.default_rng(0).normal(size=(n, 16)).astype(np.float32))
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    model = LogisticRegression(max_iter=5).fit(X[:400], np.arange(400) % 40)
    question = question_about(X, model, 40, labeled=range(100))
    tracemalloc.start()
    ask(name, question, 200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * n + 12e6  # five numbers per row, and a chunk; the probabilities alone would be 320 bytes per row


def test_probabilities_come_in_the_order_of_the_models_classes():
    model = LogisticRegression().fit([[0.0], [1.0], [2.0]], ["b", "c", "a"])
    assert predict_probabilities(model, np.array([[0.0]])).argmax() == 1
    assert model.classes_.tolist() == ["a", "b", "c"]


def test_k_means_bounds_its_work_with_a_note(monkeypatch):
    X = np.random.default_rng(0).normal(size=(500, 4))
    question = question_about(X)
    monkeypatch.setattr("service.strategies.engine.features.STEP_WORK", 500 * 4 * 10)
    cut = ask("k_means", question, 30)
    assert len(set(cut.indices.tolist())) == 30
    assert cut.fallback_reason == "k_means drew 20 of the batch at random: more than 10 clusters would be slow"
    monkeypatch.setattr("service.strategies.engine.features.SAMPLE_CELLS", 4 * 100)
    cut = ask("k_means", question, 30)
    assert cut.fallback_reason == "k_means considered a sample of 100 of the 500 candidates"
    assert len(set(cut.indices.tolist())) == 30


def test_wide_sparse_features_are_folded_with_a_note():
    rng = np.random.default_rng(0)
    centres = sparse.random_array((4, 50_000), density=0.001, rng=rng, format="csr") * 10
    rows = sparse.vstack([centres[[n // 50]] for n in range(200)], format="csr")
    noise = sparse.random_array((200, 50_000), density=0.0001, rng=rng, format="csr")
    X = sparse.csr_array(rows + noise)
    selection = ask("k_means", question_about(Pool.of(SparseRows(X.data, X.indices, X.indptr, 50_000))), 4)
    assert sorted(selection.indices // 50) == [0, 1, 2, 3]
    assert selection.fallback_reason == "k_means folded the 50000 sparse features into 1024 columns"


def test_folding_keeps_distances_on_average():
    X = sparse.random_array((40, 20_000), density=0.01, rng=np.random.default_rng(0), format="csr")
    folded = to_dense(X)
    assert folded.shape == (40, FOLDED)
    ratio = np.linalg.norm(folded[:20] - folded[20:], axis=1) / np.linalg.norm((X[:20] - X[20:]).toarray(), axis=1)
    assert abs(ratio.mean() - 1) < 0.02
    assert np.abs(ratio - 1).max() < 0.1


def test_cached_scores_save_the_second_pass(monkeypatch):
    class Kept:
        def __init__(self):
            self.known = {}

        def segment_scores(self, scorer, segment, n_rows, n_chunks):
            return self.known.setdefault((scorer, segment), SegmentScores.unknown(n_rows, n_chunks))

    X = np.random.default_rng(0).normal(size=(20_000, 70))
    model = LogisticRegression().fit(X[:200], np.arange(200) % 3)
    question = replace(question_about(X, model, 3), score_cache=Kept())
    first = ask("margin", question, 30)
    monkeypatch.setattr(scoring, "score_rows", None)
    assert np.array_equal(ask("margin", question, 30).indices, first.indices)
    monkeypatch.undo()
    other = ask("entropy", question, 30)
    assert not np.array_equal(other.scores, first.scores)


def test_the_score_cache_is_filled_chunk_by_chunk():
    X = np.random.default_rng(0).normal(size=(20_000, 70))
    model = LogisticRegression().fit(X[:200], np.arange(200) % 3)
    known = SegmentScores.unknown(20_000, Pool.of(X).n_chunks(0, 3))

    class One:
        def segment_scores(self, *_):
            return known

    plain = question_about(X, model, 3)
    for rows in (slice(0, 10), slice(9_000, 9_500), slice(0, 20_000)):
        is_open = np.zeros(20_000, bool)
        is_open[rows] = True
        some = replace(plain, is_open=is_open, score_cache=One())
        fresh = replace(plain, is_open=is_open)
        assert np.array_equal(ask("margin", some, 5).scores, ask("margin", fresh, 5).scores)
    assert known.done.all()
