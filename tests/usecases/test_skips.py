"""A skip with an annotator counts for that annotator only."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support.calls import end_labels, get, line_pool, post

ADA, BOB, CY = "ada", "bob", "cy"


def make_project(client: FlaskClient, **fields: Any) -> None:
    """Twenty samples on a line, the two ends labelled without an annotator."""
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), **fields)


def skip(client: FlaskClient, index: int, who: str | None, expect: int = 200) -> Any:
    """Skip one sample."""
    record = {"index": index, "skip": True} | ({} if who is None else {"annotator": who})
    return post(client, "/label", expect, project_id="p", labels=[record])


def label(client: FlaskClient, index: int, value: int, who: str | None, expect: int = 200) -> Any:
    """Label one sample."""
    record = {"index": index, "label": value} | ({} if who is None else {"annotator": who})
    return post(client, "/label", expect, project_id="p", labels=[record])


def asked(client: FlaskClient, who: str | None = None, **query: Any) -> set[int]:
    """All samples that an annotator is asked about."""
    named = {} if who is None else {"annotator": who}
    return set(post(client, "/query", project_id="p", batch_size=20, **named, **query)["indices"])


def test_a_batch_that_another_skipped_from_is_kept_whole(client: FlaskClient) -> None:
    make_project(client)
    batch = sorted(asked(client, BOB))[:4]
    skip(client, batch[0], ADA)
    records = [{"index": i, "label": 0, "annotator": BOB} for i in batch]
    reply = post(client, "/label", project_id="p", labels=records)
    assert (reply["n_changed"], reply["n_labeled"], reply["n_skipped"]) == (4, 6, 0)


def test_a_named_skip_leaves_a_seed_label(client: FlaskClient) -> None:
    make_project(client)
    reply = skip(client, 0, ADA)
    assert (reply["n_labeled"], reply["n_skipped"], reply["n_labels_since_fit"]) == (2, 0, 0)
    assert get(client, "/projects/p")["class_counts"] == [1, 1]
    assert 0 in asked(client, BOB, overlap=2)
    assert 0 not in asked(client, ADA, overlap=2)
    assert label(client, 0, 1, BOB)["n_labeled"] == 2
    assert get(client, "/projects/p")["class_counts"] == [0, 2]


def test_one_skip_drops_an_unlabelled_sample_by_default(client: FlaskClient) -> None:
    make_project(client)
    assert skip(client, 5, ADA)["n_skipped"] == 1
    assert 5 not in asked(client, BOB)
    assert get(client, "/projects/p")["skips_to_drop"] == 1


def test_a_sample_stays_open_to_others_until_enough_have_skipped_it(client: FlaskClient) -> None:
    make_project(client, skips_to_drop=2)
    reply = skip(client, 5, ADA)
    assert (reply["n_skipped"], reply["n_unlabeled"]) == (0, 18)
    assert 5 not in asked(client, ADA)
    assert 5 in asked(client, BOB)
    assert 5 in asked(client)
    assert skip(client, 5, BOB)["n_skipped"] == 1
    assert 5 not in asked(client, CY) | asked(client)
    # A label counts even for a dropped sample.
    assert label(client, 5, 1, CY)["n_skipped"] == 0
    assert get(client, "/projects/p")["n_labeled"] == 3


def test_a_skip_without_an_annotator_drops_the_sample_for_everybody(client: FlaskClient) -> None:
    make_project(client, skips_to_drop=3)
    assert skip(client, 5, None)["n_skipped"] == 1
    assert 5 not in asked(client, BOB)
    assert "was skipped" in label(client, 5, 1, BOB, 422)["detail"]
    assert skip(client, 0, None)["n_labeled"] == 1


def test_the_skips_that_drop_a_sample_can_be_changed(client: FlaskClient) -> None:
    make_project(client, skips_to_drop=2)
    skip(client, 5, ADA)
    assert post(client, "/fit", project_id="p", skips_to_drop=1)["n_skipped"] == 1
    assert post(client, "/fit", project_id="p", skips_to_drop=2)["n_skipped"] == 0
    assert post(client, "/fit", project_id="p")["skips_to_drop"] == 2


@pytest.mark.parametrize("wrong", [0, -1, 1_001, True, "2", 1.5, None])
def test_a_wrong_number_of_skips_is_refused(client: FlaskClient, wrong: Any) -> None:
    problem = post(client, "/fit", 422, project_id="p", X=line_pool(), y=end_labels(), skips_to_drop=wrong)
    assert problem["errors"][0]["pointer"] == "/skips_to_drop"


def test_retracting_removes_the_skips(client: FlaskClient) -> None:
    make_project(client)
    skip(client, 5, ADA)
    assert client.delete("/projects/p/labels/5").status_code == 204
    assert 5 in asked(client, ADA)


def test_a_skip_ends_the_lease_of_its_annotator_alone(client: FlaskClient) -> None:
    make_project(client, skips_to_drop=2)
    held = post(client, "/query", project_id="p", batch_size=3, annotator=BOB, lease_seconds=600)["indices"]
    skip(client, held[0], ADA)
    (lease,) = get(client, "/projects/p/leases")["leases"]
    assert sorted(lease["indices"]) == sorted(held)
    skip(client, held[1], BOB)
    (lease,) = get(client, "/projects/p/leases")["leases"]
    assert sorted(lease["indices"]) == sorted({*held} - {held[1]})
    # The second skip drops the sample, and so ends the lease.
    skip(client, held[0], CY)
    (lease,) = get(client, "/projects/p/leases")["leases"]
    assert lease["indices"] == [held[2]]


def test_a_copy_counts_skips_as_the_original(client: FlaskClient) -> None:
    make_project(client, skips_to_drop=2)
    skip(client, 0, ADA)
    skip(client, 5, ADA)
    archive = client.get("/projects/p/export").data
    url = "/projects/import?project_id=copy"
    assert client.post(url, data=BytesIO(archive), content_type="application/zip").status_code == 201
    copy = get(client, "/projects/copy")
    assert (copy["skips_to_drop"], copy["n_labeled"], copy["n_skipped"]) == (2, 2, 0)
    labels = [get(client, f"/projects/{name}/labels") for name in ("p", "copy")]
    assert labels[0] == labels[1]
