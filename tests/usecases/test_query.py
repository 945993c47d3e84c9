"""POST /query for a project."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.settings import Settings
from service.store import Store
from service.strategies import STRATEGIES, Need
from tests.support.calls import end_labels, get, line_pool, post
from tests.support.strategies import FOR_CLASSES

MODEL_STRATEGIES = ["least_confidence", "margin", "ratio", "entropy"]


@pytest.fixture
def project(client: FlaskClient) -> str:
    """Twenty rows on a line, a label at each end: the middle is uncertain."""
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    return "p"


def asks_again(strategy: str) -> bool:
    """Whether samples that have a label are candidates."""
    return Need.VOTES in STRATEGIES[strategy].needs


@pytest.mark.parametrize("strategy", MODEL_STRATEGIES)
def test_the_uncertain_middle_comes_first(client: FlaskClient, project: str, strategy: str) -> None:
    reply = post(client, "/query", project_id=project, batch_size=4, strategy=strategy)
    assert set(reply["indices"]) == {8, 9, 10, 11}
    assert reply["scores"] == sorted(reply["scores"], reverse=True)
    assert (reply["strategy"], reply["fallback_reason"], reply["model_version"]) == (strategy, None, 1)


def test_a_large_pool_is_ranked_by_the_current_model(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.strategies.engine.exact_ranking.MIN_ROWS", 1000)
    line = [[n / 100] for n in range(1000)]
    post(client, "/fit", 201, project_id="p", X=line, y=[0, *[None] * 998, 1], estimator="logistic_regression")
    for seed in (1, 2):
        reply = post(client, "/query", project_id="p", batch_size=4, strategy="margin", random_state=seed)
        assert set(reply["indices"]) == {498, 499, 500, 501}
    post(client, "/label", project_id="p", labels=[{"index": 500, "label": 1}], refit="wait")
    reply = post(client, "/query", project_id="p", batch_size=4, strategy="margin")
    assert reply["model_version"] == 2
    assert max(reply["indices"]) < 400
    everything = post(client, "/query", project_id="p", batch_size=997, strategy="margin")
    assert everything["indices"][:4] == reply["indices"]


def test_auto_is_herding_where_the_model_is_unsure(client: FlaskClient, project: str) -> None:
    reply = post(client, "/query", project_id=project)
    assert (reply["strategy"], len(reply["indices"]), reply["lease_expires_at"]) == ("uherding", 1, None)
    assert reply["reason"] == "auto chose uherding: the rows that best represent what the model is unsure of"
    assert reply["fallback_reason"] is None


@pytest.mark.parametrize("strategy", ["auto", *MODEL_STRATEGIES])
def test_without_labels_representative_rows_are_selected(client: FlaskClient, strategy: str) -> None:
    X = [[0.0, 0.0]] * 5 + [[10.0, 0.0]] * 5 + [[0.0, 10.0]] * 5
    post(client, "/fit", 201, project_id="p", X=X)
    reply = post(client, "/query", project_id="p", batch_size=3, strategy=strategy)
    assert {index // 5 for index in reply["indices"]} == {0, 1, 2}
    assert (reply["strategy"], reply["scores"], reply["model_version"]) == ("max_herding", None, None)
    assert "no model yet" in reply["reason" if strategy == "auto" else "fallback_reason"]
    assert reply["fallback_reason" if strategy == "auto" else "reason"] is None


def test_with_one_class_all_scores_are_certain(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=[1, *[None] * 19])
    reply = post(client, "/query", project_id="p", batch_size=5, strategy="entropy")
    assert (reply["strategy"], reply["scores"]) == ("entropy", [0.0] * 5)
    assert "auto" in reply["fallback_reason"]
    assert post(client, "/query", project_id="p", batch_size=5)["strategy"] == "max_herding"


@pytest.mark.parametrize("strategy", FOR_CLASSES)
def test_a_batch_beyond_the_pool_returns_the_rest(client: FlaskClient, project: str, strategy: str) -> None:
    reply = post(client, "/query", project_id=project, batch_size=1000, strategy=strategy)
    assert sorted(reply["indices"]) == [index for index in range(20) if index not in (0, 19) or asks_again(strategy)]


@pytest.mark.parametrize("strategy", FOR_CLASSES)
def test_a_fully_labelled_pool_gives_an_empty_list(client: FlaskClient, strategy: str) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(4), y=[0, 1, 0, 1])
    assert len(post(client, "/query", project_id="p", strategy=strategy)["indices"]) == asks_again(strategy)


@pytest.mark.parametrize("strategy", FOR_CLASSES)
def test_only_candidates_and_never_the_excluded(client: FlaskClient, project: str, strategy: str) -> None:
    reply = post(
        client, "/query", project_id=project, batch_size=9, strategy=strategy, candidates=[0, 3, 5, 5, 7], exclude=[5]
    )
    assert sorted(reply["indices"]) == ([0, 3, 7] if asks_again(strategy) else [3, 7])


def test_no_candidates_is_an_empty_list(client: FlaskClient, project: str) -> None:
    assert post(client, "/query", project_id=project, candidates=[])["indices"] == []


@pytest.mark.parametrize("strategy", FOR_CLASSES)
def test_the_same_state_and_request_give_the_same_answer(client: FlaskClient, project: str, strategy: str) -> None:
    asked = [post(client, "/query", project_id=project, batch_size=5, strategy=strategy) for _ in range(3)]
    assert asked[0] == asked[1] == asked[2]


def test_another_seed_gives_other_random_samples(client: FlaskClient, project: str) -> None:
    asked = [
        tuple(post(client, "/query", project_id=project, batch_size=5, strategy="random", random_state=s)["indices"])
        for s in (1, 1, 2)
    ]
    assert asked[0] == asked[1] != asked[2]


@pytest.mark.parametrize("strategy", ["margin", "random", "auto"])
@pytest.mark.parametrize("n_equal", [1, 3])
def test_what_other_seeds_left_in_the_cache_changes_no_answer(
    client: FlaskClient, store: Store, strategy: str, n_equal: int
) -> None:
    X = [[value**1.5] for value in range(20) for _ in range(n_equal)]
    post(client, "/fit", 201, project_id="p", X=X, y=end_labels(len(X)), estimator="logistic_regression")
    asked = [{"project_id": "p", "strategy": strategy, "batch_size": 4, "random_state": seed} for seed in range(5)]
    del asked[2]["random_state"]
    replies = [post(client, "/query", **each) for each in asked]
    fresh = create_app(Settings(data_dir=store.root, log_level="error")).test_client()
    assert replies == [post(fresh, "/query", **each) for each in reversed(asked)][::-1]
    are_same = len({tuple(reply["indices"]) for reply in replies}) == 1
    assert are_same == (n_equal == 1 and strategy == "margin") or strategy == "auto"
    assert len({reply["query_id"] for reply in replies}) == len(asked)


QUESTIONS: list[dict[str, Any]] = [
    {},
    {"batch_size": 2},
    {"strategy": "entropy"},
    {"strategy": "k_means"},
    {"strategy": "k_means", "params": {"sample": 100}},
    {"random_state": 1},
    {"explore": 1},
    {"exclude": [3]},
    {"exclude": [4]},
    {"exclude": [3, 4]},
    {"candidates": [3]},
    {"candidates": [3, 4]},
    {"exclude": [3], "candidates": [4]},
    {"exclude": [], "candidates": [3, 4]},
    {"exclude": [3, 4], "candidates": []},
]


def test_every_query_has_its_own_query_id(client: FlaskClient, project: str) -> None:
    names = [post(client, "/query", project_id=project, **asked)["query_id"] for asked in QUESTIONS]
    assert len(set(names)) == len(QUESTIONS)
    post(client, "/label", project_id=project, labels=[{"index": 5, "label": 0}])
    assert post(client, "/query", project_id=project)["query_id"] not in names


def test_a_query_changes_nothing(client: FlaskClient, project: str) -> None:
    before = get(client, "/projects/p")
    post(client, "/query", project_id=project, annotator="ada")
    assert get(client, "/projects/p") == before


def test_parameters_of_a_strategy(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(300))
    reply = post(client, "/query", project_id="p", strategy="k_means", params={"sample": 100}, batch_size=2)
    assert "sample of 100 of the 300" in reply["fallback_reason"]


@pytest.mark.parametrize(
    "X",
    [
        [[1.0, 1.0]] * 30,
        [[float(i), 0.0] for i in range(30)],
        [[1e300 * (i - 15), 1.0] for i in range(30)],
        [[1e-300 * i, 1e-300] for i in range(30)],
    ],
    ids=["all rows equal", "a constant column", "huge", "tiny"],
)
@pytest.mark.parametrize("y", [[], [0], [0, 1]], ids=["no label", "one class", "two classes"])
@pytest.mark.parametrize("strategy", ["auto", "random", "margin", "bald", "k_means", "power", "quire"])  # one a family
def test_a_query_always_succeeds(client: FlaskClient, X: Any, y: list[int], strategy: str) -> None:
    spec = {"name": "logistic_regression", "params": {"scale": True}}
    post(client, "/fit", 201, project_id="p", X=X, y=[*y, *[None] * (30 - len(y))], estimator=spec)
    reply = post(client, "/query", project_id="p", batch_size=7, strategy=strategy)
    assert len(set(reply["indices"])) == 7


def test_a_query_without_samples_left_says_where_they_are(client: FlaskClient, project: str) -> None:
    labels = [{"index": 5, "label": 0}, {"index": 6, "skip": True}, {"index": 7, "skip": True}]
    post(client, "/label", project_id=project, labels=labels)
    for strategy in ("auto", "margin", "k_means"):
        reply = post(client, "/query", project_id=project, strategy=strategy, candidates=[0, 5, 6, 7, 8], exclude=[8])
        assert reply["indices"] == []
        assert reply["fallback_reason"] == ("nothing is left to ask: 16 left out by the request, 2 labelled, 2 skipped")
        assert (reply["reason"] is None) == (strategy != "auto")


@pytest.mark.parametrize("purpose", ["training", "evaluation"])
def test_an_exhausted_pool_is_a_fallback_for_every_purpose(client: FlaskClient, project: str, purpose: str) -> None:
    labels = [{"index": index, "label": 0} for index in range(1, 19)]
    post(client, "/label", project_id=project, labels=labels, refit="never")
    reply = post(client, "/query", project_id=project, purpose=purpose)
    assert (reply["indices"], reply["fallback_reason"]) == ([], "nothing is left to ask: 20 labelled")


def test_a_sample_skipped_by_the_annotator_counts_as_skipped(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), skips_to_drop=2)
    post(client, "/label", project_id="p", labels=[{"index": 5, "skip": True, "annotator": "ada"}])
    reply = post(client, "/query", project_id="p", annotator="ada", candidates=[5])
    assert reply["fallback_reason"] == "nothing is left to ask: 19 left out by the request, 1 skipped"
    assert post(client, "/query", project_id="p", annotator="bob", candidates=[5])["indices"] == [5]


def test_a_label_in_the_way_of_overlap_counts_as_labelled(client: FlaskClient, project: str) -> None:
    labels = [{"index": 5, "label": 0, "annotator": "ada"}]
    post(client, "/label", project_id=project, labels=labels)
    reply = post(client, "/query", project_id=project, annotator="ada", overlap=2, candidates=[5])
    assert reply["fallback_reason"] == "nothing is left to ask: 19 left out by the request, 1 labelled"


@pytest.mark.parametrize(("batch_size", "reason"), [(18, None), (19, "only 18 are left to ask")])
def test_a_batch_that_is_too_large_says_how_many_are_left(
    client: FlaskClient, project: str, batch_size: int, reason: str | None
) -> None:
    reply = post(client, "/query", project_id=project, batch_size=batch_size, strategy="margin")
    assert (len(reply["indices"]), reply["fallback_reason"]) == (18, reason)


def test_a_batch_without_a_project_says_how_many_are_left(client: FlaskClient) -> None:
    reply = post(client, "/query", probabilities=[[0.5, 0.5], [0.9, 0.1]], y=[None, 0], batch_size=3)
    assert (reply["indices"], reply["fallback_reason"]) == ([0], "only 1 is left to ask")
