"""POST /label, and retracting labels."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support.calls import end_labels, get, line_pool, post

IDS = [f"s{i}" for i in range(20)]


@pytest.fixture
def project(client: FlaskClient) -> str:
    """Twenty rows on a line with ids, a label at each end and a held-out row."""
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), ids=IDS, X_test=[[3, 1]], y_test=[0])
    return "p"


def label(client: FlaskClient, *records: dict[str, Any], expect: int = 200, **options: Any) -> Any:
    return post(client, "/label", expect, project_id="p", labels=list(records), **options)


def record(client: FlaskClient, index: int) -> list[dict[str, Any]]:
    return [found for found in get(client, "/projects/p/labels")["labels"] if found["index"] == index]


def test_the_reply_carries_the_new_model(client: FlaskClient, project: str) -> None:
    reply = label(client, {"index": 5, "label": 0}, {"id": "s6", "label": 1})
    assert (reply["n_accepted"], reply["n_changed"], reply["n_labeled"], reply["n_unlabeled"]) == (2, 2, 4, 16)
    assert (reply["model_version"], reply["n_labels_since_fit"]) == (2, 0)
    assert reply["test_score"]["accuracy"] == 1.0
    assert record(client, 6)[0]["id"] == "s6"


def test_never_leaves_the_fit_to_a_later_request(client: FlaskClient, project: str) -> None:
    reply = label(client, {"index": 5, "label": 0}, refit="never")
    assert (reply["model_version"], reply["n_labels_since_fit"]) == (1, 1)
    assert post(client, "/query", project_id=project)["n_labels_since_fit"] == 1
    # The same label again changes nothing, but the fit is due and this request waits for it.
    reply = label(client, {"index": 5, "label": 0})
    assert (reply["n_changed"], reply["model_version"], reply["n_labels_since_fit"]) == (0, 2, 0)


def test_a_sample_relabelled_twice_since_the_fit_counts_once(client: FlaskClient, project: str) -> None:
    four = [{"index": index, "label": 0} for index in (5, 6, 7, 8)]
    label(client, *four, refit="never")
    reply = label(client, *({**record, "label": 1} for record in four[:2]), refit="never")
    assert (reply["n_changed"], reply["n_labels_since_fit"]) == (2, 4)
    assert client.delete("/projects/p/labels/0").status_code == 204
    assert get(client, "/projects/p")["n_labels_since_fit"] == 5
    assert label(client, {"index": 0, "label": 0})["n_labels_since_fit"] == 0


def test_a_repeated_label_changes_nothing(client: FlaskClient, project: str) -> None:
    label(client, {"index": 5, "label": 0, "annotator": "ada"})
    version = get(client, "/projects/p")["version"]
    reply = label(client, {"index": 5, "label": 0, "annotator": "ada"}, {"index": 0, "label": 0})
    assert (reply["n_accepted"], reply["n_changed"]) == (2, 0)
    assert get(client, "/projects/p")["version"] == version


def test_another_label_by_the_same_annotator_replaces_it(client: FlaskClient, project: str) -> None:
    label(client, {"index": 5, "label": 0, "annotator": "ada"})
    reply = label(client, {"index": 5, "label": 1, "annotator": "ada"})
    assert (reply["n_changed"], reply["n_labeled"]) == (1, 3)
    assert [found["label"] for found in record(client, 5)] == [1]


def test_an_anonymous_label_replaces_all_labels(client: FlaskClient, project: str) -> None:
    label(client, {"index": 5, "label": 0, "annotator": "ada"}, {"index": 5, "label": 1, "annotator": "bob"})
    assert len(record(client, 5)) == 2
    label(client, {"index": 5, "label": 1})
    label(client, {"index": 5, "label": 0})
    assert [(found["label"], found["annotator"]) for found in record(client, 5)] == [(0, None)]


def test_the_majority_is_trained_on_and_the_latest_where_it_ties(client: FlaskClient, project: str) -> None:
    assert post(client, "/fit", project_id=project, consensus="majority")["consensus"] == "majority"
    label(client, {"index": 5, "label": 0, "annotator": "ada"})
    label(client, {"index": 5, "label": 1, "annotator": "bob"})
    assert get(client, "/projects/p")["class_counts"] == [1, 2]
    label(client, {"index": 5, "label": 0, "annotator": "eve"})
    assert get(client, "/projects/p")["class_counts"] == [2, 1]


def test_a_class_may_turn_up_in_mid_project(client: FlaskClient, project: str) -> None:
    reply = label(client, {"index": 9, "label": 7}, {"index": 10, "label": 7})
    assert reply["model_version"] == 2
    found = get(client, "/projects/p")
    assert (found["classes"], found["class_counts"]) == ([0, 1, 7], [1, 1, 2])


def test_the_first_two_classes_may_come_by_label(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool())
    assert label(client, {"index": 0, "label": "x"})["model_version"] is None
    assert label(client, {"index": 19, "label": "y"})["model_version"] == 1


def test_a_skipped_sample_is_never_asked_again(client: FlaskClient, project: str) -> None:
    reply = label(client, {"index": 9, "skip": True}, {"id": "s10", "skip": True, "annotator": "ada"})
    assert (reply["n_skipped"], reply["n_unlabeled"], reply["n_labels_since_fit"]) == (2, 16, 0)
    assert reply["model_version"] == 1, "a skip teaches nothing, so nothing is fitted"
    asked = post(client, "/query", project_id="p", batch_size=100)["indices"]
    assert not {9, 10} & set(asked)
    assert label(client, {"index": 9, "skip": True})["n_changed"] == 0


def test_a_label_may_turn_out_to_be_a_skip(client: FlaskClient, project: str) -> None:
    label(client, {"index": 9, "label": 1, "annotator": "ada"})
    reply = label(client, {"index": 9, "skip": True, "annotator": "ada"})
    assert (reply["n_labeled"], reply["n_skipped"], reply["model_version"]) == (2, 1, 3)


def test_a_skip_is_taken_back_before_a_label(client: FlaskClient, project: str) -> None:
    label(client, {"index": 9, "skip": True})
    problem = label(client, {"index": 9, "label": 1}, expect=422)
    assert "DELETE /projects/p/labels/9" in problem["detail"]
    assert client.delete("/projects/p/labels/9").status_code == 204
    assert label(client, {"index": 9, "label": 1})["n_skipped"] == 0


def test_a_retracted_sample_is_unlabelled_again(client: FlaskClient, project: str) -> None:
    label(client, {"index": 5, "label": 0}, {"index": 6, "label": 0})
    response = client.delete("/projects/p/labels/5")
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["ETag"].endswith('-4"')
    found = get(client, "/projects/p")
    assert (found["n_labeled"], found["n_unlabeled"], found["n_labels_since_fit"]) == (3, 17, 1)
    assert record(client, 5) == []
    assert client.delete("/projects/p/labels/5").status_code == 404


def test_a_retraction_that_leaves_one_class_removes_the_model(client: FlaskClient, project: str) -> None:
    client.delete("/projects/p/labels/0")
    assert get(client, "/projects/p")["model_version"] is None
    assert post(client, "/query", project_id="p")["strategy"] == "max_herding"
    assert label(client, {"index": 0, "label": 0})["model_version"] == 2


def test_all_records_or_none(client: FlaskClient, project: str) -> None:
    before = get(client, "/projects/p")
    label(client, {"index": 5, "label": 0}, {"index": 99, "label": 0}, expect=422)
    label(client, {"index": 5, "label": 0}, {"index": 6, "label": "a"}, expect=422)
    assert get(client, "/projects/p") == before


def test_the_query_of_the_request_is_that_of_records_without_their_own(client: FlaskClient, project: str) -> None:
    records = {"index": 9, "label": 1}, {"index": 10, "skip": True}, {"index": 11, "label": 0, "query_id": "other"}
    label(client, *records, query_id="batch")
    label(client, {"index": 12, "label": 0})
    queries = {index: record(client, index)[0]["query_id"] for index in (9, 10, 11, 12)}
    assert queries == {9: "batch", 10: "batch", 11: "other", 12: None}


def test_a_malformed_query_of_the_request_changes_nothing(client: FlaskClient, project: str) -> None:
    problem = label(client, {"index": 9, "label": 1}, query_id="no spaces", expect=422)
    assert [error["pointer"] for error in problem["errors"]] == ["/query_id"]
    assert not record(client, 9)


def test_who_when_and_which_question_are_kept(client: FlaskClient, project: str) -> None:
    query_id = post(client, "/query", project_id="p")["query_id"]
    label(client, {"index": 9, "label": 1, "annotator": "Zoë", "query_id": query_id})
    [found] = record(client, 9)
    assert (found["annotator"], found["query_id"], found["skip"]) == ("Zoë", query_id, False)
    assert found["labeled_at"] <= get(client, "/projects/p")["updated_at"]


def test_a_fit_that_fails_loses_no_label(client: FlaskClient) -> None:
    # Equal rows have no variance for naive Bayes to divide by.
    post(client, "/fit", 201, project_id="p", X=[[5.0, 5.0]] * 20, estimator="gaussian_nb")
    reply = label(client, {"index": 0, "label": 0}, {"index": 1, "label": 1})
    assert (reply["n_labeled"], reply["model_version"], reply["n_labels_since_fit"]) == (2, None, 2)
    assert len(get(client, "/projects/p/labels")["labels"]) == 2
    asked = post(client, "/query", project_id="p", strategy="margin")
    assert (asked["strategy"], len(asked["indices"])) == ("max_herding", 1)


@pytest.mark.slow
def test_a_hundred_thousand_records(client: FlaskClient) -> None:
    n = 100_000
    post(client, "/fit", 201, project_id="p", X=[[float(i % 7)] for i in range(n)])
    records = [{"index": i, "label": i % 2} for i in range(n)]
    reply = post(client, "/label", project_id="p", labels=records, refit="never")
    assert (reply["n_changed"], reply["n_unlabeled"]) == (n, 0)
    assert len(get(client, "/projects/p/labels")["labels"]) == n
