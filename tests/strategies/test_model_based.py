"""The strategies that train models to choose, against scikit-learn and against loops over their definitions."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.errors import FitFailed
from service.learning.estimators import fit, resolve_estimator
from service.learning.pool import Pool
from service.strategies.model_based import fit_discriminator, standardize
from tests.support.calls import end_labels, line_pool, post
from tests.support.questions import make_question, run_strategy, selected_indices, sparse_pool

X = np.random.default_rng(1).normal(size=(60, 3)) * [1, 100, 0.01]
LABELED = [0, 1, 2, 3, 30, 40]
CODES = np.array([0, 1, 2, 1, 0, 2], np.int32)


# discriminative


def discriminative_literally(X, labeled, batch_size, n_parts):
    """The definition with scikit-learn's regression, standardised by hand."""
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    labeled, chosen = list(labeled), []
    for part in np.array_split(np.arange(batch_size), n_parts):
        is_unlabeled = np.isin(np.arange(len(X)), labeled, invert=True)
        model = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=1000).fit(Z, is_unlabeled)
        odds = np.where(is_unlabeled, model.decision_function(Z), -np.inf)
        best = np.argsort(-odds)[: len(part)].tolist()
        chosen += best
        labeled += best
    return chosen


@pytest.mark.parametrize("kind", [Pool.of, sparse_pool])
@pytest.mark.parametrize("n_parts", [1, 4, 12])
def test_discriminative_matches_its_definition(kind, n_parts):
    answer = selected_indices("discriminative", make_question(kind(X), LABELED), 12, sub_batches=n_parts)
    assert answer == discriminative_literally(X, LABELED, 12, n_parts)


def test_the_regression_equals_scikit_learns():
    is_labeled = np.isin(np.arange(60), LABELED)
    Z = standardize(X)
    model = LogisticRegression(class_weight="balanced", tol=1e-10, max_iter=1000).fit(Z, ~is_labeled)
    found = fit_discriminator(Z, is_labeled, np.zeros(4))
    assert found == pytest.approx(np.append(model.coef_, model.intercept_), abs=1e-3)


def test_discriminative_asks_in_unlabelled_regions():
    line = np.arange(20.0)[:, np.newaxis]
    assert selected_indices("discriminative", make_question(line, range(10)), 3) == [19, 18, 17]
    # Chosen rows count as labelled: with one row per part, the other side follows once this side has enough weight.
    blobs = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], 10, axis=0)
    answer = selected_indices("discriminative", make_question(blobs, [0, 1]), 6, sub_batches=6)
    assert {i // 10 for i in answer[:2]} == {1, 2}


def test_without_a_labelled_row_the_first_part_is_random():
    firsts = {selected_indices("discriminative", make_question(X), 1, seed)[0] for seed in range(30)}
    assert len(firsts) > 15


@pytest.mark.parametrize("scale", [2.0**1000, 2.0**-1000])
def test_neither_scale_nor_shift_of_a_column_matters(scale):
    Z = standardize(X)
    assert standardize(X * scale) == pytest.approx(Z)
    assert standardize(np.add(X, [5, 0, 1])) == pytest.approx(Z)
    assert standardize(np.c_[X, np.ones(60)])[:, 3].tolist() == [0] * 60


def test_discriminative_notes_its_samples(monkeypatch):
    X = np.random.default_rng(0).normal(size=(600, 4))
    answer = run_strategy("discriminative", make_question(X, range(200)), 10, sample=100)
    assert answer.fallback_reason == "discriminative considered a sample of 100 of the 400 candidates"
    monkeypatch.setattr("service.strategies.model_based.DISCRIMINATED_CELLS", 4 * 150)
    assert run_strategy("discriminative", make_question(X, range(200)), 10).fallback_reason == (
        "discriminative considered a sample of 150 of the 400 candidates and "
        "used a sample of 150 of the 200 labelled rows"
    )


# expected_error_reduction

SPEC = resolve_estimator("logistic_regression", {})


def learn(X, codes):
    return fit(SPEC, X, codes, 0)


def question_to_learn(pool=X, labeled=LABELED, codes=CODES, learn=learn):
    rows = pool.take(np.array(labeled)) if isinstance(pool, Pool) else pool[labeled]
    return make_question(pool, labeled, fit(SPEC, rows, codes, 0), 3, codes=codes, fit_model=learn)


def losses_literally(X, loss):
    """The definition: each row's expected loss over its labels and over all unlabelled rows."""
    rest = [i for i in range(len(X)) if i not in LABELED]
    P = learn(X[LABELED], CODES).predict_proba(X)
    losses = {}
    for i in rest:
        of_labels = []
        for code in range(3):
            Q = learn(X[[*LABELED, i]], np.append(CODES, code)).predict_proba(X[rest])
            of_labels.append(np.mean([loss(q) for q in Q]))
        losses[i] = P[i] @ of_labels
    return losses


@pytest.mark.parametrize(("name", "loss"), [("log", lambda q: -sum(q * np.log(q))), ("zero_one", lambda q: 1 - max(q))])
@pytest.mark.parametrize("kind", [np.asarray, sparse_pool])
def test_expected_error_reduction_matches_its_definition(kind, name, loss):
    X = np.random.default_rng(2).normal(size=(45, 3))
    expected = losses_literally(X, loss)
    answer = run_strategy("expected_error_reduction", question_to_learn(kind(X)), 8, contenders=50, loss=name)
    assert answer.indices.tolist() == sorted(expected, key=expected.get)[:8]
    assert (answer.scores, answer.fallback_reason) == (None, None)


def test_only_the_rows_of_smallest_margin_are_tried_with_a_note():
    question = question_to_learn()
    answer = run_strategy("expected_error_reduction", question, 7, contenders=5, evaluated=20)
    by_margin = selected_indices("margin", question, 7)
    assert set(answer.indices[:5].tolist()) == set(by_margin[:5])
    assert answer.indices[5:].tolist() == by_margin[5:]
    assert answer.fallback_reason == (
        "expected_error_reduction estimated the error on a sample of 20 of the 54 candidates and "
        "tried the 5 rows of smallest margin and took the last 2 of the batch by margin"
    )


def test_the_three_likeliest_of_many_classes_are_tried():
    tried = []

    def remember(X, codes):
        tried.append((*X[-1].tolist(), int(codes[-1])))
        return learn(X, codes)

    X, codes = np.random.default_rng(0).normal(size=(20, 3)), np.arange(8, dtype=np.int32)
    question = question_to_learn(X, list(range(8)), codes, remember)
    rows = selected_indices("expected_error_reduction", question, 2, contenders=2)
    likeliest = np.argsort(-question.model.predict_proba(X[rows]), axis=1)[:, :3]
    assert sorted(tried) == sorted(
        (*X[i].tolist(), code) for i, of_row in zip(rows, likeliest, strict=True) for code in of_row
    )


@pytest.mark.slow
def test_a_row_without_a_model_comes_last():
    def fails_on(X, codes):
        if np.isin(X[-1], blocked).all():
            raise FitFailed
        return learn(X, codes)

    first = selected_indices("expected_error_reduction", question_to_learn(), 54, contenders=54)
    blocked = X[first[0]]
    second = selected_indices("expected_error_reduction", question_to_learn(learn=fails_on), 54, contenders=54)
    assert second == [*first[1:], first[0]]


@pytest.mark.parametrize("known", [{}, {"codes": CODES}, {"fit_model": learn}])
def test_without_labels_or_estimator_rows_are_ranked_by_margin(known):
    question = make_question(X, LABELED, learn(X[LABELED], CODES), 3, **known)
    answer = run_strategy("expected_error_reduction", question, 6)
    assert answer.indices.tolist() == selected_indices("margin", question, 6)
    assert "these are the rows of smallest margin" in answer.fallback_reason


def test_a_query_trains_the_projects_own_estimator(client):
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), estimator="gaussian_nb")
    reply = post(client, "/query", project_id="p", batch_size=4, strategy="expected_error_reduction")
    assert (reply["strategy"], len(set(reply["indices"])), reply["fallback_reason"]) == (
        "expected_error_reduction",
        4,
        None,
    )
