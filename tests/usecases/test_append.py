"""POST /projects/{id}/pool: the pool grows, old indices stay the same, and queries work in between."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from scipy import sparse

from service.errors import InvalidRequest
from service.learning import scoring
from service.store import Part, Store
from service.usecases import append
from tests.support.calls import end_labels, get, line_pool, post, post_form
from tests.support.npy import npy

ROWS = [[20.0, 1.0], [21.0, 1.0]]


@pytest.fixture
def project(client: FlaskClient) -> str:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    return "p"


@pytest.fixture
def named(client: FlaskClient) -> str:
    post(client, "/fit", 201, project_id="n", X=line_pool(), y=end_labels(), ids=[f"row {n}" for n in range(20)])
    return "n"


def more(client: FlaskClient, project: str, expect: int = 200, **body: Any) -> Any:
    return post(client, f"/projects/{project}/pool", expect, **body)


def pool_of(client: FlaskClient, project: str) -> Any:
    """The rows of a project on disk, and the number of segments."""
    context: Any = client.application.extensions["active-query"]
    pool = context.store.read(project, Part.POOL).pool
    rows = pool.take(np.arange(len(pool)))
    return (rows.toarray() if sparse.issparse(rows) else rows), len(pool.segments)


WRONG = {
    "no X": ({}, "/X", "is required"),
    "another width": ({"X": [[1.0]]}, "/X", "has 1 columns, but the pool has 2"),
    "no rows": ({"X": []}, "/X", "non-empty list"),
    "text": ({"X": [["a", 1]]}, "/X/0/0", "must be a finite number"),
    "too few labels": ({"X": ROWS, "y": [1]}, "/y", "has 1 entries, but X has 2 rows"),
    "labels of another type": ({"X": ROWS, "y": ["a", None]}, "/y/0", "an integer"),
    "names for a pool without": ({"X": ROWS, "ids": ["a", "b"]}, "/ids", "made without ids"),
    "a field of /fit": ({"X": ROWS, "X_test": ROWS}, "/X_test", "is not a field here"),
    "the project's name": ({"X": ROWS, "project_id": "p"}, "/project_id", "is not a field here"),
}
WRONG_NAMES = {
    "no names": ({"X": ROWS}, "/ids", "is required"),
    "a name that is there": ({"X": ROWS, "ids": ["new", "row 7"]}, "/ids/1", "is in the pool already"),
    "a name twice": ({"X": ROWS, "ids": ["a", "a"]}, "/ids/1", "ids must be unique"),
    "too few names": ({"X": ROWS, "ids": ["a"]}, "/ids", "has 1 entries"),
}


@pytest.mark.parametrize(("body", "pointer", "detail"), WRONG.values(), ids=WRONG)
def test_a_wrong_append_names_the_field_and_changes_nothing(client, project, body, pointer, detail) -> None:
    before = get(client, "/projects/p")
    [error] = more(client, project, 422, **body)["errors"]
    assert (error["pointer"], detail in error["detail"]) == (pointer, True), error
    assert get(client, "/projects/p") == before


@pytest.mark.parametrize(("body", "pointer", "detail"), WRONG_NAMES.values(), ids=WRONG_NAMES)
def test_ids_are_complete_and_unique(client, named, body, pointer, detail) -> None:
    [error] = more(client, named, 422, **body)["errors"]
    assert (error["pointer"], detail in error["detail"]) == (pointer, True), error
    assert get(client, "/projects/n")["n_samples"] == 20


def test_a_missing_project(client) -> None:
    assert "there is no project 'x'" in more(client, "x", 404, X=ROWS)["detail"]


def test_a_pool_beyond_the_limit_is_refused(client, project) -> None:
    context: Any = client.application.extensions["active-query"]
    problem = "would make a pool of 44 cells; AQ_MAX_POOL_CELLS allows 43"
    with context.store.stage() as staging, pytest.raises(InvalidRequest, match=problem):
        rows = staging.rows(np.array(ROWS))
        append.append_samples(context.store, staging, append.AppendRequest("p", rows), 43)


def test_new_samples_follow_the_old_ones(client, project) -> None:
    grown = more(client, project, X=ROWS)
    assert (grown["n_samples"], grown["n_unlabeled"], grown["version"]) == (22, 20, 2)
    assert pool_of(client, project)[0].tolist() == line_pool() + ROWS
    labels = get(client, "/projects/p/labels")["labels"]
    assert [(label["index"], label["label"]) for label in labels] == [(0, 0), (19, 1)]


def test_new_samples_are_queried_with_the_current_model(client, project) -> None:
    far = [[9.6, 1.0]]
    grown = more(client, project, X=far)
    asked = post(client, "/query", project_id=project, strategy="margin", batch_size=3)
    assert 20 in asked["indices"]
    assert asked["model_version"] == grown["model_version"] == 1


def test_new_samples_can_be_labelled_by_index_and_by_id(client, named) -> None:
    more(client, named, X=ROWS, ids=["a", "b"])
    post(client, "/label", project_id=named, labels=[{"id": "b", "label": 1}, {"index": 20, "label": 0}])
    labels = get(client, "/projects/n/labels")["labels"]
    assert [(one["id"], one["label"]) for one in labels[-2:]] == [("a", 0), ("b", 1)]
    assert post(client, "/query", project_id=named, candidates=[3, 7])["ids"][0] in ("row 3", "row 7")


def test_labels_of_new_samples_are_used_by_the_next_fit(client, project) -> None:
    grown = more(client, project, X=ROWS, y=[None, 2])
    assert (grown["classes"], grown["class_counts"], grown["n_labels_since_fit"]) == ([0, 1, 2], [1, 1, 1], 1)
    fitted = post(client, "/fit", project_id=project)
    assert (fitted["model_version"], fitted["n_labels_since_fit"]) == (2, 0)


def test_a_segmented_pool_gives_the_same_replies_as_a_single_one(client) -> None:
    X = np.random.default_rng(0).normal(size=(600, 4)).round(3)
    y = [int(row[0] > 0) if n % 10 == 0 else None for n, row in enumerate(X)]
    post(client, "/fit", 201, project_id="whole", X=X.tolist(), y=y)
    post(client, "/fit", 201, project_id="pieces", X=X[:300].tolist(), y=y[:300])
    for start in (300, 400, 590):
        stop = {300: 400, 400: 590, 590: 600}[start]
        more(client, "pieces", X=X[start:stop].tolist(), y=y[start:stop])
    post(client, "/fit", project_id="pieces")
    asked = [
        post(client, "/query", project_id=name, strategy="margin", batch_size=50, random_state=0)
        for name in ("whole", "pieces")
    ]
    assert asked[0]["indices"] == asked[1]["indices"]
    assert asked[0]["scores"] == pytest.approx(asked[1]["scores"])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u2", "i8"])
def test_npy_parts_without_a_config(client, dtype) -> None:
    X = np.array(line_pool(), dtype)
    post_form(client, config={"project_id": "p"}, X=X)
    form = {"X": (BytesIO(npy(X[:3])), "X.npy"), "y": (BytesIO(npy(np.array([1, 0, 1]))), "y.npy")}
    grown = client.post("/projects/p/pool", data=form)
    assert (grown.status_code, grown.json["n_samples"], grown.json["n_labeled"]) == (200, 23, 3)
    rows, n_segments = pool_of(client, "p")
    assert rows.dtype == X.dtype
    assert np.array_equal(rows, np.concatenate([X, X[:3]]))
    assert n_segments == 2


@pytest.mark.parametrize(
    ("first", "second", "n_segments"),
    [("u1", "f8", 1), ("f4", "f8", 1), ("i4", "f8", 1), ("i1", "i8", 1), ("i8", "f8", 2), ("f8", "u8", 2)],
)
def test_small_segments_are_merged_if_one_dtype_holds_both(client, first, second, n_segments) -> None:
    largest = [[np.iinfo(dtype).max - 1 if dtype[0] in "iu" else 0.1, 2] for dtype in (first, second)]
    one, other = (np.array([row], dtype) for row, dtype in zip(largest, (first, second), strict=True))
    form = {"config": (BytesIO(b'{"project_id": "p"}'), "c", "application/json"), "X": (BytesIO(npy(one)), "X.npy")}
    assert client.post("/fit", data=form).status_code == 201
    assert client.post("/projects/p/pool", data={"X": (BytesIO(npy(other)), "X.npy")}).status_code == 200
    context: Any = client.application.extensions["active-query"]
    segments = context.store.read("p", Part.POOL).pool.segments
    assert len(segments) == n_segments
    cells = [cell for rows in segments for row in rows.tolist() for cell in row]
    assert cells == [*one[0].tolist(), *other[0].tolist()]


def test_the_error_for_too_many_segments_says_what_to_do(client, project, monkeypatch) -> None:
    monkeypatch.setattr(append, "MAX_SEGMENTS", 1)
    [error] = more(client, project, 422, X=ROWS)["errors"]
    assert error["pointer"] == "/X"
    assert "append more rows at a time" in error["detail"]


def test_samples_as_ndjson(client, named) -> None:
    lines = [{"x": [20, 1.5], "id": "a", "y": 1}, {"x": [21.0, 2], "id": "b"}, {"x": [0, 0], "id": "c", "y": None}]
    body = "\n".join(map(json.dumps, lines))
    grown = client.post("/projects/n/pool", data=body, content_type="application/x-ndjson")
    assert (grown.status_code, grown.json["n_samples"], grown.json["n_labeled"]) == (200, 23, 3)
    assert pool_of(client, "n")[0][20:].tolist() == [[20, 1.5], [21, 2], [0, 0]]


def test_appending_single_samples_makes_few_segments(client, named) -> None:
    for n in range(20, 120):
        more(client, named, X=[[float(n), 1.0]], ids=[f"row {n}"])
    rows, n_segments = pool_of(client, named)
    assert rows.tolist() == line_pool(120)
    assert n_segments <= 8
    post(client, "/label", project_id=named, labels=[{"id": "row 77", "label": 0}, {"index": 101, "label": 0}])
    labels = get(client, f"/projects/{named}/labels")["labels"]
    assert [(one["index"], one["id"]) for one in labels[2:]] == [(77, "row 77"), (101, "row 101")]


def test_large_segments_are_not_written_again(client, project, monkeypatch) -> None:
    monkeypatch.setattr(append, "MERGED_ROWS", 30)
    for _ in range(4):
        more(client, project, X=line_pool(25))
    rows, n_segments = pool_of(client, project)
    assert n_segments == 3
    assert rows.tolist() == line_pool() + 4 * line_pool(25)


def form_of(X: Any, **config: Any) -> dict[str, Any]:
    """A form with a sparse matrix of scipy."""
    file = BytesIO()
    sparse.save_npz(file, sparse.csr_array(X))
    file.seek(0)
    parts = {"X": (file, "X.npz", "application/x-npz")}
    return parts | ({"config": (BytesIO(json.dumps(config).encode()), "c", "application/json")} if config else {})


def test_sparse_pools_can_be_extended_and_queried(client) -> None:
    X = np.random.default_rng(0).integers(0, 2, (60, 9)) * np.arange(9.0)
    config = {
        "project_id": "s",
        "estimator": "logistic_regression",
        "y": (X[:40, 3] > 0).astype(int).tolist()[:20] + [None] * 20,
    }
    assert client.post("/fit", data=form_of(X[:40], **config)).status_code == 201
    for rows in (X[40:41], X[41:60]):
        assert client.post("/projects/s/pool", data=form_of(rows)).status_code == 200
    assert np.array_equal(pool_of(client, "s")[0], X)
    asked = post(client, "/query", project_id="s", strategy="margin", batch_size=40)
    assert sorted(asked["indices"]) == list(range(20, 60))


@pytest.mark.parametrize("first", ["dense", "sparse"])
def test_dense_and_sparse_do_not_mix(client, first) -> None:
    X = np.eye(4)
    if first == "dense":
        post(client, "/fit", 201, project_id="p", X=X.tolist())
        reply = client.post("/projects/p/pool", data=form_of(X))
    else:
        assert client.post("/fit", data=form_of(X, project_id="p")).status_code == 201
        reply = client.post("/projects/p/pool", json={"X": X.tolist()})
    assert reply.status_code == 422
    assert reply.json["errors"][0]["pointer"] == "/X"
    assert "dense" in reply.json["detail"]


def test_old_files_are_swept_when_segments_were_merged(client, project) -> None:
    for _ in range(5):
        more(client, project, X=line_pool(20))
    context: Any = client.application.extensions["active-query"]
    named = {f"{segment.number:06d}.joblib" for segment in context.store.read("p").project.segments}
    assert {path.name for path in (context.store.directory("p") / "pool").iterdir()} == named


def test_a_restart_finds_the_pool_as_it_was(client, named) -> None:
    more(client, named, X=ROWS, ids=["a", "b"])
    context: Any = client.application.extensions["active-query"]
    fresh = Store(context.store.root).read("n", Part.POOL, Part.IDS)
    assert fresh.pool is not None
    assert fresh.ids is not None
    assert fresh.ids.names_at([19, 20, 21]) == ["row 19", "a", "b"]
    assert fresh.pool.take(np.array([21, 0])).tolist() == [[21.0, 1.0], [0.0, 1.0]]


def test_scores_of_old_samples_are_not_computed_again(client, project, monkeypatch) -> None:
    post(client, "/query", project_id=project, strategy="margin")
    seen: list[int] = []
    real = scoring.score_rows
    monkeypatch.setattr(scoring, "score_rows", lambda *given: seen.append(given[2].shape[0]) or real(*given))
    more(client, project, X=ROWS)
    post(client, "/query", project_id=project, strategy="margin")
    post(client, "/query", project_id=project, strategy="margin", batch_size=3)
    assert seen == [2]


def kept_and_fresh(client: FlaskClient, **asked: Any) -> tuple[Any, Any]:
    """The replies of a worker with a full cache and of one with an empty cache."""
    context: Any = client.application.extensions["active-query"]
    kept = post(client, "/query", **asked)
    context.store.cache.drop(lambda key: True)
    return kept, post(client, "/query", **asked)


@pytest.mark.parametrize("merged_rows", [0, 2**16], ids=["kept apart", "merged"])
@pytest.mark.parametrize("dtypes", [("f4", "f8"), ("f8", "f4"), ("i1", "f4"), ("f2", "i8")], ids=" then ".join)
def test_cached_scores_equal_those_of_a_new_worker(client, monkeypatch, dtypes, merged_rows) -> None:
    monkeypatch.setattr(append, "MERGED_ROWS", merged_rows)
    rng = np.random.default_rng(0)
    first, second = ((rng.normal(size=(200, 4)) * 9).astype(dtype) for dtype in dtypes)
    config = {
        "project_id": "p",
        "estimator": "logistic_regression",
        "y": [int(row[0] > 0) if n < 50 else None for n, row in enumerate(first)],
    }
    form = {
        "config": (BytesIO(json.dumps(config).encode()), "c", "application/json"),
        "X": (BytesIO(npy(first)), "X.npy"),
    }
    assert client.post("/fit", data=form).status_code == 201
    asked = {"project_id": "p", "strategy": "margin", "batch_size": 300, "random_state": 0}
    post(client, "/query", **asked)
    for rows in (second, first[:150], second[:30]):
        assert client.post("/projects/p/pool", data={"X": (BytesIO(npy(rows)), "X.npy")}).status_code == 200
        kept, fresh = kept_and_fresh(client, **asked)
        assert kept == fresh


def test_an_append_sent_again_is_refused_with_a_few_names_of_many(client) -> None:
    ids = [f"row {n}" for n in range(3000)]
    post(client, "/fit", 201, project_id="n", X=line_pool(3000), ids=ids)
    refused = more(client, "n", 422, X=line_pool(3000), ids=ids)
    assert len(refused["errors"]) == 20
    assert "at least 1 more" in refused["detail"]
