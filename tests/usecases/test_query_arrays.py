"""POST /query with the probabilities of the caller's own model: without a project, or instead of a project's model."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.errors import InvalidRequest
from service.learning.committees import BaggedCommittee
from service.learning.external_predictions import ExternalPredictions
from service.settings import Settings
from service.store import Part, Store
from service.strategies import STRATEGIES, Need
from tests.support.calls import end_labels, line_pool, post
from tests.support.npy import npy
from tests.support.strategies import FOR_CLASSES

P = [[0.9, 0.1], [0.5, 0.5], [0.7, 0.3], [0.6, 0.4]]
"""Queried in the order 1, 3, 2, 0."""

NPY = "application/x-npy"
RNG = np.random.default_rng(0)
N = 200
X = RNG.normal(size=(N, 4))
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
Y = [int(label) if row < 30 else None for row, label in enumerate(LABELS)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def client(data_dir: Path) -> FlaskClient:
    """A client of a service with a project of 200 samples and a model of three classes."""
    settings = Settings(data_dir=data_dir, log_level="error", max_pool_cells=10_000)
    client = create_app(settings).test_client()
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=Y)
    post(client, "/fit", 201, project_id="line", X=line_pool(4), y=end_labels(4))
    return client


@pytest.fixture(scope="module")
def said(client: FlaskClient, data_dir: Path) -> dict[str, Any]:
    """The probabilities of the project's model, and of the members of a committee."""
    snapshot = Store(data_dir).read("p", Part.MODEL)
    members = BaggedCommittee.of([snapshot.model] * 3).member_probabilities(X) ** [[[1.0]], [[2.0]], [[0.5]]]
    members /= members.sum(axis=2, keepdims=True)
    return {
        "probabilities": snapshot.model.predict_proba(X).tolist(),
        "member_probabilities": members.tolist(),
    }


def as_form(**fields: Any) -> dict[str, Any]:
    """A query as a form: arrays as .npy, bytes unchanged, and everything else in the config."""
    parts = {name: value for name, value in fields.items() if isinstance(value, np.ndarray | bytes)}
    config = {name: value for name, value in fields.items() if name not in parts}
    files = {name: io.BytesIO(part if isinstance(part, bytes) else npy(part)) for name, part in parts.items()}
    data = {name: (file, name, NPY) for name, file in files.items()}
    return {"data": {"config": (io.BytesIO(json.dumps(config).encode()), "config", "application/json"), **data}}


def test_the_reply_has_no_project(client: FlaskClient) -> None:
    reply = post(client, "/query", probabilities=P, batch_size=3, strategy="margin")
    assert reply.pop("query_id") == post(client, "/query", probabilities=P, batch_size=3, strategy="margin")["query_id"]
    assert reply.pop("scores") == pytest.approx([1.0, 0.8, 0.6])
    assert reply == {
        "project_id": None,
        "indices": [1, 3, 2],
        "ids": None,
        "texts": None,
        "urls": None,
        "features": None,
        "strategy": "margin",
        "fallback_reason": None,
        "reason": None,
        "model_version": None,
        "n_labeled": 0,
        "n_unlabeled": 4,
        "n_labels_since_fit": 0,
        "classes": None,
        "explanations": None,
        "lease_expires_at": None,
    }


def test_labelled_and_excluded_samples_are_not_selected(client: FlaskClient) -> None:
    reply = post(client, "/query", probabilities=P, y=[None, "a", None, None], exclude=[3], batch_size=9, explore=0)
    assert reply["indices"] == [2, 0]
    assert (reply["n_labeled"], reply["n_unlabeled"]) == (1, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_may_be_npy_of_any_precision_and_order(client: FlaskClient, dtype: type, order: Any) -> None:
    logits = np.random.default_rng(1).normal(size=(50, 40))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    members = np.stack([softmax, softmax[::-1]])
    sent = {"probabilities": softmax, "member_probabilities": members, "X": logits}
    arrays = {name: np.asarray(array, dtype, order=order) for name, array in sent.items()}
    reply = client.post("/query", **as_form(**arrays, batch_size=50, strategy="bald")).json
    as_json = {name: array.tolist() for name, array in arrays.items()}
    assert reply["indices"] == post(client, "/query", **as_json, batch_size=50, strategy="bald")["indices"]


def test_nothing_is_left_on_disk(client: FlaskClient, data_dir: Path) -> None:
    before = sorted(data_dir.rglob("*"))
    assert client.post("/query", **as_form(probabilities=np.array(P), X=np.eye(4))).status_code == 200
    assert [path for path in sorted(data_dir.rglob("*")) if path.name != "lock"] == [
        path for path in before if path.name != "lock"
    ]


@pytest.mark.parametrize("name", FOR_CLASSES)
def test_the_reply_equals_that_of_a_project_with_the_same_probabilities(
    client: FlaskClient, said: dict[str, Any], name: str
) -> None:
    asked = {"strategy": name, "batch_size": 12, "random_state": 5}
    if Need.MODEL in STRATEGIES[name].needs:
        assert post(client, "/query", 422, X=X.tolist(), y=Y, **said, **asked)["errors"][0]["pointer"] == "/strategy"
        return
    alone = post(client, "/query", X=X.tolist(), y=Y, **said, **asked)
    within = post(client, "/query", project_id="p", **said, **asked)
    assert (alone["indices"], alone["scores"]) == (within["indices"], within["scores"])
    assert len(set(alone["indices"])) == 12
    if Need.MEMBERS not in STRATEGIES[name].needs:  # the project's own committee has other members
        assert alone["indices"] == post(client, "/query", project_id="p", **asked)["indices"]


def test_sent_probabilities_replace_the_projects_for_one_query(client: FlaskClient) -> None:
    own = post(client, "/query", project_id="line", strategy="margin")
    sent = post(client, "/query", project_id="line", strategy="margin", probabilities=P)
    other = post(client, "/query", project_id="line", strategy="margin", probabilities=[P[0], P[2], P[1], P[3]])
    assert (sent["indices"], other["indices"]) == ([1], [2])
    assert len({own["query_id"], sent["query_id"], other["query_id"]}) == 3
    assert (sent["model_version"], own["model_version"]) == (None, 1)
    assert post(client, "/query", project_id="line", strategy="margin") == own


@pytest.mark.parametrize("strategy", ["margin", "power", "clue", "badge"])
def test_sent_probabilities_work_with_a_segmented_pool(client: FlaskClient, strategy: str) -> None:
    post(client, "/fit", 201, project_id=strategy, X=line_pool(3))
    post(client, f"/projects/{strategy}/pool", X=[[9.0, 1.0]])
    asked = {"probabilities": P, "strategy": strategy, "batch_size": 2, "random_state": 0}
    within = post(client, "/query", project_id=strategy, **asked)
    assert within["indices"] == post(client, "/query", X=[*line_pool(3), [9.0, 1.0]], **asked)["indices"]


def test_without_probabilities_the_mean_of_the_members_is_used(client: FlaskClient) -> None:
    members = [[[1, 0], [0.5, 0.5], [1, 0]], [[0, 1], [0.5, 0.5], [0.8, 0.2]]]
    reply = post(client, "/query", member_probabilities=members, strategy="least_confidence", batch_size=3)
    assert sorted(zip(reply["indices"], reply["scores"], strict=True)) == [
        (0, pytest.approx(0.5)),
        (1, pytest.approx(0.5)),
        (2, pytest.approx(0.1)),
    ]
    assert post(client, "/query", member_probabilities=members, strategy="bald")["indices"] == [0]


def test_a_single_class_has_no_entropy(client: FlaskClient) -> None:
    reply = post(client, "/query", probabilities=[[1], [1]], strategy="entropy", batch_size=2)
    assert reply["scores"] == [0.0, 0.0]


SENT: list[tuple[dict[str, Any], int, str]] = [
    ({"probabilities": P}, 1, "margin"),
    ({"probabilities": P}, 3, "power"),
    ({"X": line_pool(4)}, 1, "max_herding"),
    ({"X": line_pool(4)}, 3, "max_herding"),
    ({"probabilities": P, "X": line_pool(4)}, 1, "uherding"),
    ({"probabilities": P, "y": end_labels(4)}, 2, "power"),
    ({"member_probabilities": [P, P]}, 1, "margin"),
    ({"member_probabilities": [P, P], "X": line_pool(4)}, 1, "uherding"),
]


@pytest.mark.parametrize(("sent", "batch_size", "ran"), SENT)
def test_auto_uses_the_arrays_that_were_sent(
    client: FlaskClient, sent: dict[str, Any], batch_size: int, ran: str
) -> None:
    reply = post(client, "/query", **sent, batch_size=batch_size)
    assert (reply["strategy"], len(reply["indices"])) == (ran, batch_size)


@pytest.mark.parametrize("sent", [{"probabilities": P}, {"X": line_pool(4)}, {"X": line_pool(4), "probabilities": P}])
def test_the_error_names_the_strategies_that_can_run(client: FlaskClient, sent: dict[str, Any]) -> None:
    detail = post(client, "/query", 422, **sent, strategy="bald")["errors"][0]["detail"]
    named = detail.split("what was sent: ")[1].split(", ")
    for name in FOR_CLASSES:
        post(client, "/query", 200 if name in named else 422, **sent, strategy=name, batch_size=2)


def json_of(**fields: Any) -> dict[str, Any]:
    return {"json": fields}


def header(shape: str, descr: str = "<f8") -> bytes:
    """A .npy file that is only a header."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "nothing": (json_of(batch_size=2), ("/project_id",)),
    "labels alone": (json_of(y=["a"]), ("/project_id",)),
    "an unknown field": (json_of(probabilities=P, probability=P), ("/probability",)),
    "a pool beside a project": (json_of(project_id="line", X=line_pool(4)), ("/X",)),
    "a pool and labels beside a project": (json_of(project_id="line", X=line_pool(4), y=end_labels(4)), ("/X", "/y")),
    "a row too many for the project": (json_of(project_id="line", probabilities=[*P, [1, 0]]), ("/probabilities",)),
    "members of another project": (
        json_of(project_id="line", member_probabilities=[P[:3]]),
        ("/member_probabilities",),
    ),
    "rows that disagree": (json_of(X=line_pool(5), probabilities=P, y=[1]), ("/probabilities", "/y")),
    "members that disagree": (json_of(member_probabilities=[P, P[:2]]), ("/member_probabilities/1",)),
    "columns that disagree": (
        json_of(probabilities=P, member_probabilities=[[[1, 0, 0]] * 4]),
        ("/member_probabilities",),
    ),
    "sums": (json_of(probabilities=[[0.5, 0.48], [0.5, 0.5], [0.6, 0.5]]), ("/probabilities/0", "/probabilities/2")),
    "a negative one": (json_of(probabilities=[[1.1, -0.1], [0.5, 0.5]]), ("/probabilities/0/0",)),
    "a little negative": (json_of(probabilities=[[1, -1e-9]]), ("/probabilities/0/1",)),
    "a sum of a member": (
        json_of(member_probabilities=[P, [[0.3, 0.3]] * 4]),
        tuple(f"/member_probabilities/1/{i}" for i in range(4)),
    ),
    "very many sums": (json_of(probabilities=[[0.3, 0.3]] * 1000), tuple(f"/probabilities/{i}" for i in range(20))),
    "text": (json_of(probabilities=[["0.5", 0.5]]), ("/probabilities/0/0",)),
    "no rows": (json_of(probabilities=[]), ("/probabilities",)),
    "empty rows": (json_of(probabilities=[[], []]), ("/probabilities/0", "/probabilities/1")),
    "a matrix for members": (json_of(member_probabilities=P), tuple(f"/member_probabilities/0/{i}" for i in range(2))),
    "members that are no list": (json_of(member_probabilities=1), ("/member_probabilities",)),
    "no members": (json_of(member_probabilities=[]), ("/member_probabilities",)),
    "too many cells": (json_of(probabilities=[[1]] * 10_001), ("/probabilities",)),
    "too many cells of members": (json_of(member_probabilities=[[[1]] * 5001] * 2), ("/member_probabilities",)),
    "an index beyond the samples": (json_of(probabilities=P, exclude=[3, 4]), ("/exclude/1",)),
    "badge without features": (json_of(probabilities=P, strategy="badge"), ("/X",)),
    "badge without probabilities": (json_of(X=line_pool(4), strategy="badge"), ("/probabilities",)),
    "bald without members": (json_of(probabilities=P, strategy="bald"), ("/member_probabilities",)),
    "bald without members in a project": (
        json_of(project_id="line", probabilities=P, strategy="bald"),
        ("/member_probabilities",),
    ),
    "quire without labels": (json_of(X=line_pool(4), strategy="quire"), ("/y",)),
    "quire without anything": (json_of(probabilities=P, strategy="quire"), ("/X", "/y")),
    "a strategy that asks a model": (
        json_of(X=line_pool(4), probabilities=P, y=end_labels(4), strategy="drop_query"),
        ("/strategy",),
    ),
    "a strategy that trains, in a project": (
        json_of(project_id="line", probabilities=P, strategy="expected_error_reduction"),
        ("/strategy",),
    ),
    "NaN": (as_form(probabilities=np.array([[0.5, 0.5], [np.nan, 1]])), ("/probabilities/1/0",)),
    "infinity of a member": (
        as_form(member_probabilities=np.array([[[1.0, 0.0]], [[0.0, np.inf]]])),
        ("/member_probabilities/1/0/1",),
    ),
    "infinity in Fortran's order": (
        as_form(member_probabilities=np.asfortranarray([[[1.0, 0.0]], [[0.0, np.inf]]])),
        ("/member_probabilities/1/0/1",),
    ),
    "a cube for a matrix": (as_form(probabilities=np.ones((2, 2, 1))), ("/probabilities",)),
    "a matrix for a cube": (as_form(member_probabilities=np.ones((2, 1))), ("/member_probabilities",)),
    "an empty cube": (as_form(member_probabilities=np.ones((2, 0, 1))), ("/member_probabilities",)),
    "terabytes": (as_form(member_probabilities=header("(100000, 100000, 1000)")), ("/member_probabilities",)),
    "more than fits 64 bits": (
        as_form(member_probabilities=header(f"({10**17}, {10**17}, {10**17})")),
        ("/member_probabilities",),
    ),
    "a cube that is cut short": (
        as_form(member_probabilities=header("(2, 2, 1)") + b"1234567"),
        ("/member_probabilities",),
    ),
    "texts": (as_form(member_probabilities=header("(2, 2, 1)", "<U1") + bytes(16)), ("/member_probabilities",)),
    "objects": (as_form(probabilities=header("(2, 2)", "|O") + bytes(32)), ("/probabilities",)),
    "labels in two dimensions": (as_form(probabilities=np.ones((2, 1)), y=np.ones((2, 1))), ("/y",)),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_query_names_the_field_and_leaves_no_files(client: FlaskClient, data_dir: Path, what: str) -> None:
    sent, pointers = WRONG[what]
    reply = client.post("/query", **sent)
    assert reply.status_code == 422, reply.text
    assert tuple(error["pointer"] for error in reply.json["errors"]) == pointers, reply.text
    assert [path.name for path in (data_dir / "staging").iterdir()] in ([], ["lock"])


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        (ExternalPredictions(np.ones((1, 10_001)), None), "/probabilities"),
        (ExternalPredictions(None, np.ones((1, 1, 10_001))), "/member_probabilities"),
        (ExternalPredictions(None, np.full((66, 1, 1_000), 0.001)), "/member_probabilities"),
    ],
)
def test_classes_and_members_are_limited(given: ExternalPredictions, pointer: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        given.check()
    assert [error.pointer for error in caught.value.errors] == [pointer]


def test_the_error_for_missing_arrays_names_alternatives(client: FlaskClient) -> None:
    [error] = post(client, "/query", 422, probabilities=P, strategy="badge")["errors"]
    assert error["detail"] == (
        "is required for strategy 'badge'; strategies that work with what was sent: "
        "auto, entropy, falcun, least_confidence, margin, power, random, ratio"
    )


def test_nothing_is_left_if_all_samples_are_labelled_or_excluded(client: FlaskClient) -> None:
    reply = post(client, "/query", X=[[0.0], [1.0], [2.0]], y=["a", "b", None], exclude=[2], strategy="k_center")
    assert (reply["indices"], reply["reason"]) == ([], None)
    assert reply["fallback_reason"] == "nothing is left to ask: 1 left out by the request, 2 labelled"
