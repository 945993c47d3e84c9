"""Samples that are queried again: by activelab if a label is doubtful, by overlap until enough people labelled them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.settings import Settings
from service.strategies.engine.question import RelabelCandidates
from tests.support.calls import end_labels, get, line_pool, post
from tests.support.questions import question_from_probabilities, read_only, run_strategy

ADA, BOB, EVE = "ada", "bob", "eve"


# activelab: Goh & Mueller 2023, section 3.


def opinions(rows, quality, weight, temperature=1.0):
    """The model counts 1 and a usual annotator one half; there are two classes."""
    return RelabelCandidates(np.array(rows), np.array(quality), np.array(weight), 1.0, 0.5, temperature, 2)


def question_of(P, known):
    is_open = read_only(np.ones(len(P), bool))
    return replace(question_from_probabilities(P, known.rows), is_open=is_open, relabel_candidates=known)


def test_activelab_worked_by_hand():
    known = opinions([1, 3], [0.4, 0.95], [1.0, 2.0])
    answer = run_strategy("activelab", question_of([[0.8, 0.2], [1, 0], [0.45, 0.55], [0, 1]], known), 4)
    assert answer.indices.tolist() == [1, 2, 0, 3]
    expected = [(2 * 0.4 + 0.25) / 2.5, (0.55 + 0.25) / 1.5, (0.8 + 0.25) / 1.5, (3 * 0.95 + 0.25) / 3.5]
    assert answer.scores == pytest.approx(1 - np.array(expected))
    assert answer.fallback_reason is None


def test_more_votes_for_the_same_quality_are_worth_less_another():
    known = opinions([0, 1, 2], [0.8, 0.8, 0.8], [3.0, 1.0, 2.0])
    assert run_strategy("activelab", question_of(np.full((3, 2), 0.5), known), 3).indices.tolist() == [1, 2, 0]


def test_activelab_sees_the_model_at_the_temperature():
    # Odds of 9 are odds of 3 at a temperature of 2.
    answer = run_strategy(
        "activelab", question_of([[0.9, 0.1], [0, 1]], opinions([1], [1.0], [1.0], temperature=2.0)), 1
    )
    assert answer.scores == pytest.approx([1 - (0.75 + 0.25) / 1.5])


def test_without_votes_activelab_weighs_the_model_as_one():
    answer = run_strategy("activelab", question_from_probabilities([[0.6, 0.4], [1.0, 0.0]]), 2)
    assert answer.scores == pytest.approx([1 - (0.6 + 0.5) / 2, 1 - (1 + 0.5) / 2])
    assert answer.fallback_reason is None


# Through HTTP.


@pytest.fixture
def project(client: FlaskClient) -> str:
    """Twenty rows on a line; those up to 9 are of class 0. Only the first and the last have a label."""
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    return "p"


def label(client: FlaskClient, who: str | None, *indices: int, wrong: bool = False, **options: Any) -> Any:
    by = {"annotator": who} if who else {}
    records = [{"index": index, "label": int((index > 9) != wrong), **by} for index in indices]
    return post(client, "/label", project_id="p", labels=records, **options)


def query(client: FlaskClient, batch_size: int = 20, **options: Any) -> Any:
    return post(client, "/query", project_id="p", batch_size=batch_size, **options)


def test_activelab_asks_about_a_wrong_label_before_certain_samples(client: FlaskClient, project: str) -> None:
    label(client, ADA, *range(3, 8), *range(12, 17))
    label(client, ADA, 2, wrong=True)
    reply = query(client, strategy="activelab", candidates=[1, 2, 18])
    assert (reply["indices"][0], reply["strategy"]) == (2, "activelab")
    assert reply["scores"] == sorted(reply["scores"], reverse=True)
    assert reply["reason"].startswith("1 of the batch have a label")
    assert query(client, strategy="activelab", candidates=[1, 2, 18], annotator=ADA)["indices"] == [1, 18]


def test_activelab_asks_again_after_a_consensus_too(client: FlaskClient, project: str) -> None:
    label(client, ADA, *range(1, 8), *range(12, 19))
    label(client, BOB, *range(1, 8), *range(13, 19))
    label(client, BOB, 12, wrong=True)
    reply = query(client, strategy="activelab", exclude=[8, 9, 10, 11], annotator=EVE)
    assert reply["indices"][0] == 12
    assert len(reply["indices"]) == 16
    asked_of_bob = query(client, strategy="activelab", annotator=BOB)["indices"]
    assert sorted(asked_of_bob) == [0, 8, 9, 10, 11, 19]


def test_votes_are_weighted_by_the_quality_of_annotators(client: FlaskClient, app: Any, project: str) -> None:
    label(client, ADA, *range(1, 8), *range(12, 19))
    label(client, BOB, 3, 12, 15)
    label(client, BOB, 4, 13, wrong=True)
    state = app.extensions["active-query"].store.read("p").project
    crowd = state.consensus
    weight = dict(zip(crowd.annotator.tolist(), crowd.weight.tolist(), strict=True))  # anonymous is -1, ada 0, bob 1
    heard = np.array([weight[0], weight[0] + weight[1]]) + crowd.model_weight
    quality, usual = crowd.quality[np.searchsorted(crowd.index, [2, 4])], np.mean(list(weight.values()))
    reply = query(client, strategy="activelab", candidates=[2, 4])
    scores = dict(zip(reply["indices"], reply["scores"], strict=True))
    assert [scores[2], scores[4]] == pytest.approx(1 - (heard * quality + usual / 2) / (heard + usual))


def test_activelab_never_asks_about_the_skipped_and_excluded(client: FlaskClient, project: str) -> None:
    label(client, ADA, 1, 2, 17, 18)
    skips = [{"index": index, "skip": True, "annotator": ADA} for index in (8, 9)]
    post(client, "/label", project_id=project, labels=skips)
    asked = query(client, strategy="activelab", exclude=[2, 10])["indices"]
    assert sorted(asked) == [index for index in range(20) if index not in (2, 8, 9, 10)]


def test_labels_since_the_fit_are_not_doubted_yet(client: FlaskClient, project: str) -> None:
    label(client, ADA, 1, 2, 18)
    label(client, BOB, 1, 2, 18)
    label(client, BOB, 17, refit="never")
    assert sorted(query(client, strategy="activelab", annotator=EVE, candidates=[1, 2, 16, 17])["indices"]) == [
        1,
        2,
        16,
    ]


def test_exploration_draws_new_samples_only(client: FlaskClient, project: str) -> None:
    label(client, ADA, *range(1, 8), *range(12, 19))
    reply = query(client, 20, strategy="activelab", explore=1)
    drawn = [index for index, score in zip(reply["indices"], reply["scores"], strict=True) if score is None]
    assert sorted(drawn) == [8, 9, 10, 11]


def test_another_worker_gives_the_same_answer(client: FlaskClient, app: Any, project: str) -> None:
    label(client, ADA, *range(1, 8), *range(12, 19))
    other = create_app(Settings(data_dir=app.extensions["active-query"].settings.data_dir, log_level="error"))
    assert query(client, strategy="activelab") == query(other.test_client(), strategy="activelab")


def test_without_a_model_activelab_asks_about_new_samples(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool())
    assert query(client, strategy="activelab")["strategy"] == "max_herding"
    label(client, ADA, 0, 1)
    reply = query(client, strategy="activelab")
    assert sorted(reply["indices"]) == list(range(2, 20))


# overlap


def test_partly_labelled_samples_come_first(client: FlaskClient, project: str) -> None:
    label(client, ADA, 3)
    label(client, ADA, 7, 5)
    label(client, BOB, 7)
    reply = query(client, 8, strategy="margin", overlap=3, explain=True)
    # 7 lacks one label and the others two; the anonymous ones are the oldest.
    assert reply["indices"][:5] == [7, 0, 19, 3, 5]
    assert [score is None for score in reply["scores"]] == [True] * 5 + [False] * 3
    assert (reply["fallback_reason"], reply["reason"]) == (None, "the first 5 have a label and need more")
    assert [each["chosen_by"] for each in reply["explanations"]] == ["overlap"] * 5 + ["strategy"] * 3
    assert query(client, 3, strategy="margin")["indices"] == reply["indices"][5:]


def test_no_annotator_gets_a_sample_twice(client: FlaskClient, project: str) -> None:
    label(client, ADA, 3, 4)
    post(client, "/label", project_id=project, labels=[{"index": 4, "skip": True, "annotator": BOB}])
    assert query(client, 3, overlap=2, annotator=ADA)["indices"][:2] == [0, 19]
    assert not {3, 4} & set(query(client, overlap=2, annotator=ADA)["indices"])
    assert query(client, overlap=2, annotator=BOB, candidates=[3, 4])["indices"] == [3]
    assert query(client, overlap=2, annotator=EVE, candidates=[3, 4])["indices"] == [3, 4]
    assert query(client, overlap=2, candidates=[3, 4], exclude=[3])["indices"] == [4]


def test_an_anonymous_label_counts_until_a_named_one_replaces_it(client: FlaskClient, project: str) -> None:
    def is_open() -> bool:
        return query(client, overlap=2, candidates=[0])["indices"] == [0]

    seen = [is_open()]
    for who in (ADA, BOB):
        label(client, who, 0)
        seen.append(is_open())
    assert seen == [True, True, False]


def test_a_sample_that_all_skipped_is_not_asked_again(client: FlaskClient, project: str) -> None:
    skip = {"index": 4, "skip": True, "annotator": ADA}
    post(client, "/label", project_id=project, labels=[skip])
    assert query(client, overlap=2, annotator=BOB, candidates=[4])["indices"] == []


@pytest.mark.parametrize("strategy", ["random", "margin_k_means"])
def test_everybody_together_labels_everything_as_often_as_asked(client: FlaskClient, strategy: str) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), estimator="gaussian_nb")
    people, idle = [ADA, BOB, EVE], 0
    while idle < len(people):
        people.append(people.pop(0))
        asked = query(client, 3, overlap=2, annotator=people[-1], strategy=strategy)["indices"]
        idle = 0 if asked else idle + 1
        if asked:
            label(client, people[-1], *asked)
    records = get(client, "/projects/p/labels")["labels"]
    assert Counter(record["index"] for record in records) == dict.fromkeys(range(20), 2)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"project_id": "p", "overlap": 0}, "/overlap"),
        ({"project_id": "p", "overlap": "2"}, "/overlap"),
        ({"probabilities": [[0.5, 0.5]], "overlap": 2}, "/overlap"),
        ({"probabilities": [[0.5, 0.5]], "strategy": "activelab"}, "/strategy"),
        ({"project_id": "p", "probabilities": [[0.5, 0.5]] * 20, "strategy": "activelab"}, "/strategy"),
    ],
)
def test_wrong_queries_are_refused(client: FlaskClient, project: str, body: Any, pointer: str) -> None:
    problem = post(client, "/query", 422, **body)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


def test_overlap_works_with_sent_probabilities(client: FlaskClient, project: str) -> None:
    label(client, ADA, 3)
    P = [[0.5 + i / 50, 0.5 - i / 50] for i in range(20)]
    reply = query(client, 4, overlap=2, annotator=BOB, probabilities=P, strategy="margin")
    assert reply["indices"] == [0, 19, 3, 1]
