"""Several annotators per sample: training labels, consensus and annotator quality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from scipy.sparse import csr_array
from sklearn.datasets import make_classification

from service.domain.votes import Votes
from service.learning import folds, weigh_votes
from service.learning.crowdlab import VoteTable
from service.learning.estimators import resolve_estimator
from service.learning.folds import assign_folds
from service.learning.weigh_votes import choose_rows, training_labels, unseen_probabilities
from tests.support.calls import end_labels, get, line_pool, post
from tests.support.edge_case_pools import POOLS

FOREST = {"name": "random_forest", "params": {"n_estimators": 10}}
ADA, BOB, EVE = "ada", "bob", "eve"


@pytest.fixture
def project(client: FlaskClient) -> str:
    """Twenty rows on a line, those up to 9 of class 0; only the first and the last are labelled."""
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    return "p"


def label(client: FlaskClient, *answers: tuple[int, Any, str | None], **options: Any) -> Any:
    """Label samples: (index, label, annotator)."""
    records = [{"index": index, "label": label} | ({"annotator": who} if who else {}) for index, label, who in answers]
    return post(client, "/label", project_id="p", labels=records, **options)


def right(*indices: int, who: str) -> list[tuple[int, Any, str | None]]:
    return [(index, int(index > 9), who) for index in indices]


def wrong(*indices: int, who: str) -> list[tuple[int, Any, str | None]]:
    return [(index, int(index <= 9), who) for index in indices]


def consensus_of(client: FlaskClient, index: int) -> tuple[Any, Any]:
    found = [record for record in get(client, "/projects/p/labels")["labels"] if record["index"] == index]
    assert len({(record["consensus"], record["quality"]) for record in found}) == 1
    return found[0]["consensus"], found[0]["quality"]


def annotators(client: FlaskClient) -> dict[str | None, Any]:
    return {record["annotator"]: record for record in get(client, "/projects/p/annotators")["annotators"]}


CROWD = [
    *right(*range(1, 19), who=ADA),
    *right(*range(1, 19, 2), who=BOB),
    *right(1, 4, 7, 12, 15, 18, who=EVE),
    *wrong(2, 5, 8, 11, 14, 17, who=EVE),
]


def test_an_annotator_who_is_mostly_right_outweighs_the_latest_vote(client: FlaskClient, project: str) -> None:
    label(client, *CROWD)
    assert get(client, "/projects/p")["class_counts"] == [10, 10]
    agreed, doubtful = consensus_of(client, 1), consensus_of(client, 2)
    assert (agreed[0], doubtful[0]) == (0, 0)
    assert 0.5 < min(agreed[1], doubtful[1]) <= 1
    post(client, "/fit", project_id=project, consensus="majority")
    assert (consensus_of(client, 1), consensus_of(client, 2)) == ((0, None), (1, None))


def test_annotators_get_different_weights(client: FlaskClient, project: str) -> None:
    label(client, *CROWD, (0, 0, ADA))
    post(client, "/label", project_id=project, labels=[{"index": 3, "skip": True, "annotator": EVE}])
    found = annotators(client)
    assert list(found) == [None, ADA, BOB, EVE]
    assert found[None] | {"first_at": "", "last_at": ""} == {
        "annotator": None,
        "n_labels": 1,
        "n_skips": 0,
        "n_shared": 0,
        "agreement": None,
        "accuracy": None,
        "first_at": "",
        "last_at": "",
    }
    assert (found[EVE]["n_labels"], found[EVE]["n_skips"], found[EVE]["n_shared"]) == (12, 1, 12)
    assert (found[ADA]["agreement"], found[EVE]["agreement"]) == (1, 0.5)
    assert found[EVE]["accuracy"] < 0.75 < found[BOB]["accuracy"] <= 1
    assert found[EVE]["first_at"] < found[EVE]["last_at"]


def test_a_project_without_votes_has_no_annotators(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool())
    response = client.get("/projects/p/annotators")
    assert response.json == {"annotators": []}
    assert response.headers["ETag"].endswith('-1"')
    get(client, "/projects/q/annotators", 404)


def test_without_a_second_vote_nothing_is_weighed(client: FlaskClient, project: str, monkeypatch: Any) -> None:
    monkeypatch.delattr(weigh_votes, "fit")  # a call would fail
    label(client, *right(*range(1, 19), who=ADA))
    assert consensus_of(client, 3) == (0, None)
    assert annotators(client)[ADA]["accuracy"] is None


def test_votes_since_the_fit_count_by_the_majority(client: FlaskClient, project: str) -> None:
    label(client, *CROWD)
    reply = label(client, (2, 1, BOB), refit="never")
    assert (consensus_of(client, 2), reply["n_labels_since_fit"]) == ((1, None), 1)
    assert consensus_of(client, 1)[1] is not None
    label(client, (2, 1, BOB))
    assert consensus_of(client, 2)[1] is not None


def test_an_agreeing_vote_is_weighed_at_the_next_fit(client: FlaskClient, project: str) -> None:
    before = label(client, *CROWD)["model_version"]
    reply = label(client, *right(2, who=BOB), refit="never")
    assert (reply["model_version"], reply["n_labels_since_fit"]) == (before, 1)
    assert label(client, *right(2, who=BOB))["model_version"] == before + 1


def test_the_same_votes_give_the_same_consensus(client: FlaskClient) -> None:
    found = []
    for name in ("p", "q"):
        post(client, "/fit", 201, project_id=name, X=line_pool(), y=end_labels(), estimator=FOREST, random_state=3)
        records = [{"index": index, "label": label, "annotator": who} for index, label, who in CROWD]
        post(client, "/label", project_id=name, labels=records)
        found.append([record["quality"] for record in get(client, f"/projects/{name}/labels")["labels"]])
    assert found[0] == found[1]
    assert None not in found[0]


FEW = [
    ("two samples, one with two votes", [(0, "a", ADA), (0, "a", BOB), (1, "b", ADA)]),
    ("two who never agree", [(0, "a", ADA), (0, "b", BOB), (1, "b", ADA), (1, "a", BOB), (2, "a", ADA), (3, "b", BOB)]),
    ("a class of one sample", [(0, "a", ADA), (1, "a", ADA), (2, "b", ADA), (3, "c", ADA), (3, "c", BOB)]),
    ("a class that never wins", [(0, "a", ADA), (1, "b", ADA), (2, "a", ADA), (2, "a", BOB), (2, "z", EVE)]),
    ("every class once", [(i, "abcdef"[i], who) for i in range(6) for who in (ADA, BOB)]),
    ("a skip beside a label", [(0, "a", ADA), (0, None, BOB), (1, "b", ADA), (1, "b", BOB)]),
]


@pytest.mark.parametrize("estimator", ["logistic_regression", "svc", "k_neighbors", "gaussian_nb"])
@pytest.mark.parametrize("answers", [row[1] for row in FEW], ids=[row[0] for row in FEW])
def test_few_votes_are_weighed_too(client: FlaskClient, answers: Any, estimator: str) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), estimator=estimator)
    records = [
        {"index": index, "annotator": who} | ({"skip": True} if label is None else {"label": label})
        for index, label, who in answers
    ]
    assert post(client, "/label", project_id="p", labels=records)["n_labels_since_fit"] == 0
    qualities = [record["quality"] for record in get(client, "/projects/p/labels")["labels"]]
    assert all(0 <= quality <= 1 for quality in qualities)


@pytest.mark.parametrize("name", ["all rows equal", "at both ends of float64", "subnormal", "one row far away"])
def test_votes_on_nasty_pools_are_weighed_too(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id="p", X=POOLS[name].tolist(), estimator=FOREST)
    label(
        client, *[(index, index % 2, ADA) for index in range(12)], *[(index, index % 3 % 2, BOB) for index in range(6)]
    )
    assert all(0 <= record["quality"] <= 1 for record in get(client, "/projects/p/labels")["labels"])


def test_a_wrong_consensus_is_refused(client: FlaskClient) -> None:
    problem = post(client, "/fit", 422, project_id="p", X=line_pool(), consensus="median")
    wrong = "'median' is not for a project of classes, which takes 'crowdlab' or 'majority'"
    assert problem["errors"] == [{"pointer": "/consensus", "detail": wrong}]


# Out-of-fold probabilities


def table_of(votes: list[list[int]], n_classes: int) -> VoteTable:
    """The votes on each row, one annotator per column."""
    row = np.repeat(np.arange(len(votes)), [len(some) for some in votes])
    annotator = np.concatenate([np.arange(len(some)) for some in votes])
    code = np.concatenate([np.array(some) for some in votes])
    return VoteTable(row, annotator, code, len(votes), int(annotator.max()) + 1, n_classes)


def judge(spec: Any, X: Any, codes: Any, n_classes: int) -> Any:
    """The probabilities of rows with one vote each."""
    return unseen_probabilities(spec, X, codes, table_of([[code] for code in codes.tolist()], n_classes), 0)


def test_models_learn_from_the_labels_that_tie_at_half_weight() -> None:
    rows, labels = training_labels(table_of([[0], [1, 1], [0, 1], [0, 1, 2]], 3))
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == [
        (0, 0), (0, 0), (1, 1), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)
    ]  # fmt: skip
    rows, labels = training_labels(table_of([[0], [1, 1, 0]], 2))
    assert (rows.tolist(), labels.tolist()) == ([0, 1], [0, 1])


def test_votes_of_one_request_favour_no_class(client: FlaskClient) -> None:
    X, truth = make_classification(400, 10, n_informative=5, class_sep=1.5, random_state=0)
    rng = np.random.default_rng(0)
    said = np.where(rng.random((400, 2)) < 0.3, 1 - truth[:, np.newaxis], truth[:, np.newaxis])
    post(client, "/fit", 201, project_id="p", X=X.tolist())
    votes = [(i, int(said[i, who]), name) for i in range(400) for who, name in enumerate((ADA, BOB))]
    label(client, *votes)
    labels = get(client, "/projects/p/labels")["labels"]
    consensus = {record["index"]: record["consensus"] for record in labels}
    right = np.mean([consensus[i] == truth[i] for i in range(400)])
    assert right > 0.8
    assert 0.4 < np.mean(list(consensus.values())) < 0.6


def test_a_declared_class_without_votes_counts_among_the_classes(client: FlaskClient, project: str) -> None:
    label(client, *CROWD)
    store = client.application.extensions["active-query"].store
    assert store.read("p").project.consensus.n_classes == 2
    post(client, "/fit", project_id="p", classes=[0, 1, 2, 3])
    label(client, (3, 0, BOB))
    assert store.read("p").project.consensus.n_classes == 4


def test_no_row_is_predicted_by_a_model_trained_on_it() -> None:
    X, codes = np.arange(40.0)[:, np.newaxis], (np.arange(40) > 19).astype(np.int64)
    codes[7] = 1  # its nearest other row is of class 0
    nearest = resolve_estimator("k_neighbors", {"n_neighbors": 1})
    assert judge(nearest, X, codes, 2)[7].tolist() == [1, 0]


def test_probabilities_are_uniform_for_a_class_unseen_in_training() -> None:
    X, codes = np.arange(12.0)[:, np.newaxis], np.array([0] * 6 + [1] * 5 + [2])
    found = judge(resolve_estimator("logistic_regression", {}), X, codes, 3)
    assert found[11].tolist() == [1 / 3] * 3
    assert found.sum(axis=1) == pytest.approx(1)


def test_sparse_rows_get_the_probabilities_of_dense_ones() -> None:
    X, codes = np.arange(40.0)[:, np.newaxis], np.arange(40) // 20
    dense, thin = (
        judge(resolve_estimator("k_neighbors", {"scale": False}), rows, codes, 2) for rows in (X, csr_array(X))
    )
    assert dense.tolist() == thin.tolist()


def test_folds_are_stratified() -> None:
    codes = np.repeat([0, 1, 2], [50, 25, 10])
    fold = assign_folds(codes, np.random.default_rng(0))
    assert np.bincount(codes * 5 + fold).tolist() == [10] * 5 + [5] * 5 + [2] * 5


def test_a_model_is_trained_on_a_limited_number_of_rows(monkeypatch: Any) -> None:
    monkeypatch.setattr(folds, "FOLD_ROWS", 30)
    X, codes = np.arange(60.0)[:, np.newaxis], np.arange(60) % 2
    # With all rows as neighbours, the probabilities are the class shares among them.
    everybody = resolve_estimator("k_neighbors", {"n_neighbors": 1000})
    shares = judge(everybody, X, codes, 2) * 30
    assert shares == pytest.approx(shares.round())


def test_samples_with_several_votes_are_weighed_first() -> None:
    rows = [(index, 0, 0, b"") for index in range(100)] + [(index, 0, 1, b"") for index in range(0, 100, 10)]
    votes = Votes.from_rows(rows, 1)
    some = choose_rows(votes, weigh_votes.MAX_CELLS // 15, np.random.default_rng(0))
    assert len(some) == 15
    assert set(range(0, 100, 10)) <= set(some.tolist())
    few = choose_rows(votes, weigh_votes.MAX_CELLS // 4, np.random.default_rng(0))
    assert set(few.tolist()) < set(range(0, 100, 10))
