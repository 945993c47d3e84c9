"""Texts embedded by a model in AQ_EMBEDDINGS_DIR: a table of vectors, or ONNX."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from flask.testing import FlaskClient
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from service.app import create_app
from service.learning import embeddings
from service.settings import Settings
from service.store import Part
from tests.support.calls import get, post

WORDS = ["apple", "cherry", "banana", "hammer", "saw", "nails"]
TABLE = np.random.default_rng(0).normal(size=(1 + len(WORDS), 4)).astype(np.float32)
TABLE[1:4, 0] += 5
TABLE[4:, 0] -= 5
TEXTS = ["apple cherry", "hammer saw", "", "banana", "nails nails saw", "cherry banana apple"]
LABELS = ["fruit", "tool", None, None, None, None]


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer with a token for each of WORDS, and 0 for all others."""
    folder.mkdir(parents=True)
    vocabulary = {"?": 0} | {word: number for number, word in enumerate(WORDS, 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))  # noqa: S106 - not a password
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def write_onnx(path: Path, table: np.ndarray) -> None:
    """Write a model that returns the row of a table for each token."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["vectors"])],
        "lookup",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", "tokens", 4])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of models: a table, the same as ONNX, a damaged one, and one that returns infinity."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("table", "onnx", "damaged", "infinite"):
        write_tokenizer(folder / name)
    np.save(folder / "table" / "embeddings.npy", TABLE)
    write_onnx(folder / "onnx" / "model.onnx", TABLE)
    (folder / "damaged" / "model.onnx").write_bytes(b"not a model")
    np.save(folder / "infinite" / "embeddings.npy", np.full((7, 4), np.inf))
    return folder


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> FlaskClient:
    """Return a client of one application for all tests, each of which names its own projects."""
    data_dir = tmp_path_factory.mktemp("embedded") / "data"
    return create_app(Settings(data_dir=data_dir, log_level="error", embeddings_dir=models_dir)).test_client()


def rows_of(client: FlaskClient, name: str) -> Any:
    pool = client.application.extensions["active-query"].store.read(name, Part.POOL).pool
    return pool.take(np.arange(len(pool)))


def mean_vector(text: str) -> np.ndarray:
    tokens = [1 + WORDS.index(word) if word in WORDS else 0 for word in text.split()]
    return TABLE[tokens].mean(axis=0) if tokens else np.zeros(4, np.float32)


@pytest.mark.parametrize("model", ["table", "onnx"])
def test_a_text_is_the_mean_of_the_vectors_of_its_tokens(client, model):
    name = f"mean-{model}"
    test = {"X_test": ["saw", "apple unheard"], "y_test": ["tool", "fruit"]}
    made = post(client, "/fit", 201, project_id=name, texts=TEXTS, y=LABELS, text={"embeddings": model}, **test)
    assert (made["n_features"], made["text"]["embeddings"], made["test_score"]["accuracy"]) == (4, model, 1.0)
    np.testing.assert_allclose(rows_of(client, name), [mean_vector(text) for text in TEXTS], rtol=1e-5)
    chosen = post(client, "/query", project_id=name, strategy="margin", include=["text"], batch_size=2)
    assert chosen["texts"] == [TEXTS[index] for index in chosen["indices"]]


def test_the_rows_do_not_depend_on_how_the_pieces_were_cut(client):
    whole = {"texts": TEXTS, "y": LABELS, "text": {"embeddings": "onnx"}}
    post(client, "/fit", 201, project_id="whole", **whole)
    post(client, "/fit", 201, project_id="cut", **{**whole, "texts": TEXTS[:2], "y": LABELS[:2]})
    for text in TEXTS[2:]:
        larger = post(client, "/projects/cut/pool", texts=[text])
    assert not larger["fit"]["due"]
    assert rows_of(client, "whole").tobytes() == rows_of(client, "cut").tobytes()


def test_an_export_needs_no_model_to_be_imported(client, tmp_path):
    post(client, "/fit", 201, project_id="moved", texts=TEXTS, y=LABELS, text={"embeddings": "table"})
    data = client.get("/projects/moved/export").data
    elsewhere = create_app(Settings(data_dir=tmp_path / "data", log_level="error")).test_client()
    made = elsewhere.post("/projects/import", data=data, content_type="application/zip")
    assert (made.status_code, made.json["text"]) == (201, get(client, "/projects/moved")["text"])
    refused = post(elsewhere, "/projects/moved/pool", 422, texts=["apple"])["errors"][0]
    assert refused["pointer"] == "/texts"
    assert "set AQ_EMBEDDINGS_DIR" in refused["detail"]


def test_a_query_without_a_project_embeds_its_texts(client):
    body = {"texts": TEXTS, "text": {"embeddings": "table"}, "strategy": "k_center", "batch_size": 2}
    assert len(set(post(client, "/query", **body)["indices"])) == 2


WRONG = {
    "an unknown model": ({"embeddings": "tables"}, "/text/embeddings", "AQ_EMBEDDINGS_DIR has 'damaged', 'infinite'"),
    "a path": ({"embeddings": "../models/table"}, "/text/embeddings", "must be the name of a model"),
    "a number": ({"embeddings": 1}, "/text/embeddings", "must be the name of a model"),
    "another parameter": ({"embeddings": "table", "words": 1}, "/text/words", "must be omitted with 'embeddings'"),
    "a damaged model": ({"embeddings": "damaged"}, "/texts", "'damaged' cannot be loaded"),
    "infinity": ({"embeddings": "infinite"}, "/texts/0", "not finite"),
}


@pytest.mark.parametrize(("text", "pointer", "problem"), WRONG.values(), ids=WRONG)
def test_a_wrong_model_is_refused(client, text, pointer, problem):
    refused = post(client, "/fit", 422, project_id="wrong", texts=["apple", "saw"], text=text)["errors"][0]
    assert refused["pointer"] == pointer
    assert problem in refused["detail"]
    get(client, "/projects/wrong", 404)


def test_a_model_that_changed_is_refused(client, models_dir):
    write_tokenizer(models_dir / "changing")
    np.save(models_dir / "changing" / "embeddings.npy", TABLE)
    post(client, "/fit", 201, project_id="changing", texts=TEXTS, text={"embeddings": "changing"})
    np.save(models_dir / "changing" / "embeddings.npy", np.vstack([TABLE, TABLE]))
    refused = post(client, "/projects/changing/pool", 422, texts=["apple"])["errors"][0]
    assert (refused["pointer"], "has changed" in refused["detail"]) == ("/texts", True)


def test_the_progress_is_logged(client, monkeypatch, caplog):
    monkeypatch.setattr(embeddings, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(embeddings, "BLOCK_TEXTS", 4)
    with caplog.at_level(logging.INFO, "service.learning.embeddings"):
        post(client, "/query", texts=TEXTS, text={"embeddings": "table"}, strategy="k_center")
    assert [record.getMessage().split(" by ")[0] for record in caplog.records if "embedded" in record.getMessage()] == [
        "embedded 4 of 6 texts",
        "embedded 6 of 6 texts",
    ]
