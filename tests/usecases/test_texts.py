"""Texts in place of features: the same result however the pool was cut, texts and addresses that come back."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from flask.testing import FlaskClient
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from service.app import create_app
from service.learning.term_weights import ROW_NORM
from service.learning.texts import MAX_TEXT_LENGTH
from service.settings import Settings
from service.store import Part
from service.store.check import check_project
from tests.support.calls import get, post, post_form
from tests.support.npy import npy

FRUIT = ["ripe red apple", "green apple pie", "yellow banana split", "banana bread", "sour cherry", "cherry tart"]
TOOLS = ["steel hammer", "claw hammer head", "rusty hand saw", "saw blade", "box of nails", "nails and screws"]
TEXTS = [text for pair in zip(FRUIT, TOOLS, strict=True) for text in pair]
LABELS = ["fruit", "tool"] * 2 + [None] * 8
URLS = [f"https://example.org/{n}" for n in range(12)]
SMALL = {"n_features": 1024}
TEST = {"X_test": ["apple tart", "hammer and nails"], "y_test": ["fruit", "tool"]}
EMOJI, LONG = "\N{SNOWMAN} \N{PILE OF POO}", "long word " * (MAX_TEXT_LENGTH // 10)
ODD = ["", "a", LONG, EMOJI, "nul \0 inside", "the of and", " \n\t "]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """Return a client of one application for all tests, each of which names its own projects."""
    data_dir = tmp_path_factory.mktemp("texts") / "data"
    return create_app(Settings(data_dir=data_dir, log_level="error")).test_client()


def store_of(client: FlaskClient) -> Any:
    return client.application.extensions["active-query"].store


def rows_of(client: FlaskClient, name: str, *parts: Part) -> Any:
    """The features of a project as models see them."""
    pool = store_of(client).read(name, Part.POOL, *parts).pool
    return pool.take(np.arange(len(pool)))


def make(client: FlaskClient, name: str, pieces: list[int] | None = None, **more: Any) -> Any:
    """Make a project of TEXTS, cut at some positions, and fit it at the end."""
    cuts = [0, *(pieces or []), len(TEXTS)]
    for number, (begin, end) in enumerate(pairwise(cuts)):
        body = {name: column[begin:end] for name, column in {"texts": TEXTS, "y": LABELS, "urls": URLS}.items()}
        if number == 0:
            post(client, "/fit", 201, project_id=name, **body, **{"text": SMALL} | more)
        else:
            post(client, f"/projects/{name}/pool", **body)
    return post(client, "/fit", project_id=name, **TEST)


def test_the_features_are_those_of_scikit_learn(client):
    made = make(client, "features", text={"characters": 0, "n_features": 4096, "idf": 1})
    assert (made["n_features"], made["feature_names"], made["text"]["words"]) == (4096, None, 2)
    counts = HashingVectorizer(ngram_range=(1, 2), n_features=4096, norm=None, alternate_sign=False)
    expected = TfidfTransformer(sublinear_tf=True).fit_transform(counts.transform(TEXTS))
    np.testing.assert_allclose(rows_of(client, "features").toarray(), ROW_NORM * expected.toarray(), rtol=1e-5)


@pytest.mark.parametrize(("pieces", "idf"), [([6], 1), ([2, 3, 4, 7], 0), (list(range(1, 12)), 0.5)])
def test_the_result_does_not_depend_on_how_the_pieces_were_cut(client, pieces, idf):
    whole, cut = f"whole-{len(pieces)}", f"cut-{len(pieces)}"
    text = {**SMALL, "idf": idf}
    results = [make(client, name, where, text=text) for name, where in ((whole, None), (cut, pieces))]
    assert results[0]["test_score"] == results[1]["test_score"]
    same = {"random_state": 1, "batch_size": 8, "include": ["text", "url"]}
    for strategy in ("margin", "badge", "k_center"):
        first, second = (post(client, "/query", project_id=name, strategy=strategy, **same) for name in (whole, cut))
        assert [first[key] for key in KEYS] == [second[key] for key in KEYS]
    first, second = (rows_of(client, name) for name in (whole, cut))
    assert first.data.tobytes() == second.data.tobytes()
    assert (first.indices == second.indices).all()
    first, second = (get(client, f"/projects/{name}/predictions") for name in (whole, cut))
    assert first["predictions"] == second["predictions"]


KEYS = ("indices", "scores", "texts", "urls", "strategy")


def test_words_that_no_earlier_piece_had_count(client):
    post(client, "/fit", 201, project_id="new-words", texts=["old words"] * 4, text=SMALL)
    more = ["quokka here", "quokka there", "wombat here", "wombat there"]
    post(client, "/projects/new-words/pool", texts=more, y=["q", "q", "w", "w"])
    fitted = post(client, "/fit", project_id="new-words", X_test=["a quokka", "a wombat"], y_test=["q", "w"])
    assert fitted["test_score"]["accuracy"] == 1.0


def test_a_model_keeps_its_weights_until_the_next_fit(client):
    make(client, "weights", [6], text={**SMALL, "idf": 1})
    before = rows_of(client, "weights", Part.WEIGHTS_OF_MODEL)
    scores = post(client, "/query", project_id="weights", strategy="margin", batch_size=8)["scores"]
    larger = post(client, "/projects/weights/pool", texts=["apple", "saw"] * 20, urls=["a"] * 40)
    assert (larger["fit"]["due"], larger["n_labels_since_fit"], larger["model_version"]) == (True, 0, 2)
    after = rows_of(client, "weights", Part.WEIGHTS_OF_MODEL)
    assert after.data[: before.nnz].tobytes() == before.data.tobytes()
    known = {"candidates": list(range(12)), "strategy": "margin", "batch_size": 8}
    assert post(client, "/query", project_id="weights", **known)["scores"] == scores
    fitted = post(client, "/fit", project_id="weights")
    assert (fitted["fit"]["due"], fitted["model_version"]) == (False, 3)
    assert rows_of(client, "weights", Part.WEIGHTS_OF_MODEL).data[0] != before.data[0]


def test_texts_and_addresses_come_back_on_request(client):
    make(client, "include", [5])
    chosen = post(client, "/query", project_id="include", batch_size=4, include=["url", "text"])
    assert chosen["texts"] == [TEXTS[index] for index in chosen["indices"]]
    assert chosen["urls"] == [URLS[index] for index in chosen["indices"]]
    plain = post(client, "/query", project_id="include", batch_size=4)
    assert (plain["texts"], plain["urls"], plain["query_id"]) == (None, None, chosen["query_id"])
    leased = {"annotator": "ada", "lease_seconds": 60, "include": ["text"]}
    assert len(post(client, "/query", project_id="include", **leased)["texts"]) == 1


def test_addresses_are_stored_beside_numbers_too(client):
    post(client, "/fit", 201, project_id="images", X=[[0.0], [1.0]], urls=["img/0.png", "/img/1.png?size=2"])
    post(client, "/projects/images/pool", X=[[2.0]], urls=["http://example.org/"])
    chosen = post(client, "/query", project_id="images", batch_size=3, candidates=[1, 2], include=["url"])
    assert sorted(chosen["urls"]) == ["/img/1.png?size=2", "http://example.org/"]


REFUSED_PARTS = {
    "texts that were not kept": ({"texts": TEXTS, "keep_texts": False}, ["text"], 0, "'keep_texts': false"),
    "texts of a pool of numbers": ({"X": [[1], [2]]}, ["text"], 0, "made of numbers"),
    "addresses that were never sent": ({"texts": TEXTS}, ["text", "url"], 1, "without urls"),
    "an unknown part": ({"texts": TEXTS}, ["texts"], 0, "did you mean 'text'"),
    "no list": ({"texts": TEXTS}, "text", None, "must be a list"),
}


@pytest.mark.parametrize(("body", "include", "at", "problem"), REFUSED_PARTS.values(), ids=REFUSED_PARTS)
def test_what_is_not_stored_is_refused_with_the_reason(client, body, include, at, problem):
    client.post("/fit", json={"project_id": "not-stored", "replace": True, **body})
    refused = post(client, "/query", 422, project_id="not-stored", include=include)["errors"][0]
    assert refused["pointer"] == ("/include" if at is None else f"/include/{at}")
    assert problem in refused["detail"]


WRONG = {
    "both": ({"X": [[1.0]], "texts": ["a"]}, "/texts", "must be omitted with X"),
    "texts as X": ({"X": ["a", "b"]}, "/X", "sent as 'texts'"),
    "no texts": ({"texts": []}, "/texts", "non-empty list"),
    "a number": ({"texts": ["a", 1]}, "/texts/1", "must be a string"),
    "null": ({"texts": [None]}, "/texts/0", "must be a string"),
    "too long": ({"texts": ["x" * (MAX_TEXT_LENGTH + 1)]}, "/texts/0", f"at most {MAX_TEXT_LENGTH}"),
    "an unknown parameter": ({"texts": ["a"], "text": {"word": 1}}, "/text/word", "did you mean 'words'"),
    "a wrong parameter": ({"texts": ["a"], "text": {"words": 9}}, "/text/words", "from 0 up to 5"),
    "no terms": ({"texts": ["a"], "text": {"words": 0, "characters": 0}}, "/text/words", "no text would have"),
    "parameters without texts": ({"X": [[1.0]], "text": {}}, "/text", "only together with texts"),
    "keep_texts without texts": ({"X": [[1.0]], "keep_texts": False}, "/keep_texts", "only together with texts"),
    "names of columns": ({"texts": ["a"], "feature_names": ["a"]}, "/feature_names", "only together with X"),
    "too few addresses": ({"texts": ["a", "b"], "urls": ["a"]}, "/urls", "has 1 entries, but texts has 2"),
    "too many labels": ({"texts": ["a"], "y": [1, 2]}, "/y", "has 2 entries, but texts has 1"),
    "a script": ({"texts": ["a"], "urls": ["javascript:alert(1)"]}, "/urls/0", "http:// or https://"),
    "a file": ({"texts": ["a"], "urls": ["ftp://host/etc/passwd"]}, "/urls/0", "http:// or https://"),
    "another host": ({"texts": ["a"], "urls": ["//example.org"]}, "/urls/0", "http:// or https://"),
    "a blank in an address": ({"texts": ["a"], "urls": ["a b"]}, "/urls/0", "without blanks"),
    "numbers held out": ({"texts": ["a"], "X_test": [[1]], "y_test": [1]}, "/X_test", "must be texts"),
    "texts held out": ({"X": [[1]], "X_test": ["a"], "y_test": [1]}, "/X_test", "must be numbers"),
    "a dense estimator": ({"texts": ["a"], "estimator": "gaussian_nb"}, "/estimator", "needs a dense pool"),
}


@pytest.mark.parametrize(("body", "pointer", "problem"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_names_the_field_and_makes_no_project(client, body, pointer, problem):
    refused = post(client, "/fit", 422, project_id="wrong", **body)["errors"][0]
    assert refused["pointer"] == pointer
    assert problem in refused["detail"]
    get(client, "/projects/wrong", 404)


def test_a_pool_takes_only_samples_of_its_own_kind(client):
    post(client, "/fit", 201, project_id="of-texts", texts=TEXTS)
    post(client, "/fit", 201, project_id="of-numbers", X=[[1.0], [2.0]])
    for name, body, pointer in (
        ("of-texts", {"X": [[1.0]]}, "/X"),
        ("of-numbers", {"texts": ["a"]}, "/texts"),
        ("of-texts", {"texts": ["a"], "urls": ["a"]}, "/urls"),
        ("of-texts", {}, "/X"),
    ):
        assert post(client, f"/projects/{name}/pool", 422, **body)["errors"][0]["pointer"] == pointer
    refused = post(client, "/fit", 422, project_id="of-texts", text={"words": 1})
    assert refused["errors"][0]["pointer"] == "/text"


@pytest.mark.parametrize("odd", ODD, ids=["empty", "short", "long", "emoji", "nul", "stop words", "blanks"])
def test_odd_texts_are_stored_as_they_are(client, odd):
    body = {"texts": [odd, *TEXTS], "y": [None, *LABELS], "text": {**SMALL, "characters": 0, "stop_words": "english"}}
    made = client.post("/fit", json={"project_id": "odd", "replace": True, **body})
    assert (made.status_code, made.json["model_version"] is not None) in [(201, True), (200, True)]
    chosen = post(client, "/query", project_id="odd", candidates=[0], include=["text"])
    assert chosen["texts"] == [odd]


def test_half_a_surrogate_pair_is_refused_in_every_format(client):
    raw = client.post("/fit", data=b'{"project_id": "s", "texts": ["\\ud800"]}', content_type="application/json")
    assert raw.status_code == 400
    column = np.array(["a", "b"])
    column.view("u4")[0] = 0xD800
    refused = post_form(client, 422, config={"project_id": "s"}, texts=column)
    assert (refused["errors"][0]["pointer"], "not valid Unicode" in refused["detail"]) == ("/texts", True)


def parquet(values: list[str]) -> bytes:
    file = BytesIO()
    pa.parquet.write_table(pa.table({"text": values}), file)
    return file.getvalue()


def arrow(values: list[str]) -> bytes:
    table = pa.table({"text": pa.array(values).dictionary_encode()})
    file = BytesIO()
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


FORMATS = {
    "application/json": lambda values: json.dumps(values).encode(),
    "application/x-ndjson": lambda values: "\n".join(map(json.dumps, values)).encode(),
    "application/x-npy": lambda values: npy(np.array(values)),
    "application/vnd.apache.parquet": parquet,
    "application/vnd.apache.arrow.stream": arrow,
}


@pytest.mark.parametrize("media_type", FORMATS)
def test_texts_and_addresses_come_in_every_format_of_a_column(client, media_type):
    encode, name = FORMATS[media_type], media_type.replace("/", "-")[:60].replace("+", "-")
    long_text = "word " * 400  # longer than a label may be
    columns = {"texts": [long_text, *TEXTS[1:]], "urls": URLS}
    parts = {field: (BytesIO(encode(column)), field, media_type) for field, column in columns.items()}
    config = json.dumps({"project_id": name, "text": SMALL}).encode()
    response = client.post("/fit", data={"config": (BytesIO(config), "config", "application/json"), **parts})
    assert response.status_code == 201, response.get_data(as_text=True)
    parts = {field: (BytesIO(encode(column)), field, media_type) for field, column in columns.items()}
    assert client.post(f"/projects/{name}/pool", data=parts).status_code == 200
    chosen = post(client, "/query", project_id=name, candidates=[12], include=["text", "url"])
    assert (chosen["texts"], chosen["urls"]) == ([long_text], [URLS[0]])


def csv_file(columns: dict[str, list[Any]]) -> bytes:
    file = BytesIO()
    pa.csv.write_csv(pa.table(columns), file)
    return file.getvalue()


def parquet_file(columns: dict[str, list[Any]]) -> bytes:
    file = BytesIO()
    pa.parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def send_table(client: FlaskClient, path: str, config: dict[str, Any], field: str, data: bytes, kind: str) -> Any:
    """Send a table as a part of a form."""
    config_part = (BytesIO(json.dumps(config).encode()), "config", "application/json")
    return client.post(path, data={"config": config_part, field: (BytesIO(data), field, kind)})


@pytest.mark.parametrize(("write", "kind"), [(csv_file, "text/csv"), (parquet_file, "application/vnd.apache.parquet")])
def test_one_table_is_the_whole_project(client, write, kind):
    name = "table-" + kind.replace("/", "-")
    words = ['a "quoted", red\napple', *TEXTS[1:]]
    mails = {"row": list(range(12)), "body": words, "link": URLS, "class": ["fruit", "tool"] * 6}
    columns = {"text": "body", "url": "link", "label": "class", "id": "row"}
    config = {"project_id": name, "columns": columns, "text": SMALL}
    made = send_table(client, "/fit", config, "X", write(mails), kind)
    assert made.status_code == 201, made.get_data(as_text=True)
    assert (made.json["n_labeled"], made.json["n_features"], made.json["columns"]["text"]) == (12, 1024, "body")
    later = {"body": ["sour plum"], "link": ["x"], "row": [77], "noise": [0.5]}
    assert send_table(client, f"/projects/{name}/pool", {}, "X", write(later), kind).status_code == 200
    test = {"body": TEST["X_test"], "class": TEST["y_test"], "row": [1, 2]}
    fitted = send_table(client, "/fit", {"project_id": name}, "X_test", write(test), kind)
    assert fitted.status_code == 200, fitted.get_data(as_text=True)
    assert fitted.json["test_score"]["accuracy"] == 1.0
    shown = {"overlap": 2, "annotator": "ada", "candidates": [0], "include": ["text", "url"]}
    chosen = post(client, "/query", project_id=name, **shown)
    assert (chosen["ids"], chosen["texts"], chosen["urls"]) == ([0], [words[0]], [URLS[0]])
    chosen = post(client, "/query", project_id=name, include=["text"])
    assert (chosen["ids"], chosen["texts"]) == ([77], ["sour plum"])


def npy_texts(texts: list[str]) -> bytes:
    file = BytesIO()
    np.save(file, np.array(texts))
    return file.getvalue()


HELD_OUT = {
    "npy": (npy_texts, "application/x-npy"),
    "lines": (lambda texts: "\n".join(map(json.dumps, texts)).encode(), "application/x-ndjson"),
    "lines of objects": (lambda texts: "\n".join(json.dumps({"b": t}) for t in texts).encode(), "application/x-ndjson"),
    "csv": (lambda texts: csv_file({"body": texts}), "text/csv"),
    "parquet": (lambda texts: parquet_file({"body": texts}), "application/vnd.apache.parquet"),
    "json": (lambda texts: json.dumps(texts).encode(), "application/json"),
}


@pytest.mark.parametrize(("write", "kind"), HELD_OUT.values(), ids=HELD_OUT)
def test_held_out_texts_come_in_each_format_of_a_column(client, write, kind):
    config = {"project_id": "held-out", "texts": TEXTS, "y": ["fruit", "tool"] * 6, "text": SMALL, "replace": True}
    config["y_test"] = TEST["y_test"]
    made = send_table(client, "/fit", config, "X_test", write(TEST["X_test"]), kind)
    assert made.status_code in (200, 201), made.get_data(as_text=True)
    assert made.json["test_score"]["accuracy"] == 1.0
    config = {"project_id": "held-out", "y_test": ["fruit", "fruit"]}  # the project knows that it has texts
    fitted = send_table(client, "/fit", config, "X_test", write(TEST["X_test"]), kind)
    assert fitted.status_code == 200, fitted.get_data(as_text=True)
    assert fitted.json["test_score"]["accuracy"] == 0.5


@pytest.mark.parametrize("kind", ["npy", "lines", "csv", "parquet"])
def test_held_out_texts_of_a_pool_of_numbers_are_refused(client, kind):
    write, media_type = HELD_OUT[kind]
    config = {"project_id": "numbers", "X": [[1], [2]], "y": ["a", "b"], "y_test": ["a", "b"]}
    refused = send_table(client, "/fit", config, "X_test", write(["a", "b"]), media_type)
    assert (refused.status_code, refused.json["errors"][0]["pointer"]) == (422, "/X_test")


WRONG_TABLES = {
    "no such column": ({"text": "mail"}, {}, "/columns/text", "'mail' is not a column; there are 'body', 'n', 'gap'"),
    "numbers": ({"text": "n"}, {}, "/texts", "non-empty list of strings"),
    "a null": ({"text": "gap"}, {}, "/texts/1", "must be a string"),
    "features as well": ({"text": "body", "features": ["n"]}, {}, "/columns/features", "must be omitted with 'text'"),
    "texts as well": ({"text": "body"}, {"texts": ["a", "b"]}, "/texts", "is the column 'body' of X, too"),
    "one column twice": ({"text": "body", "label": "body"}, {}, "/columns/text", "is named in 'label', too"),
    "no role": ({"id": "n"}, {}, "/X", '"text": name'),
}


@pytest.mark.parametrize(("columns", "more", "pointer", "problem"), WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_a_wrong_column_of_texts_is_named(client, columns, more, pointer, problem):
    data = parquet_file({"body": ["a", "b"], "n": [1, 2], "gap": ["a", None]})
    config = {"project_id": "wrong-table", "columns": columns, **more}
    refused = send_table(client, "/fit", config, "X", data, "application/vnd.apache.parquet")
    assert refused.status_code == 422
    assert refused.json["errors"][0]["pointer"] == pointer
    assert problem in refused.json["detail"]


def test_lines_of_texts_are_appended(client):
    make(client, "lines")
    lines = [{"text": "plum jam", "url": "jam", "y": "fruit"}, {"text": "drill", "url": "/drill"}]
    sent = "\n".join(map(json.dumps, lines))
    made = client.post("/projects/lines/pool", data=sent, content_type="application/x-ndjson")
    assert (made.status_code, made.json["n_samples"], made.json["class_counts"]) == (200, 14, [3, 2])
    chosen = post(client, "/query", project_id="lines", candidates=[13], include=["text", "url"])
    assert (chosen["texts"], chosen["urls"]) == (["drill"], ["/drill"])


WRONG_LINES = {
    "a number": ([{"text": 1}], "/0/text", "must be a string"),
    "none in a later line": ([{"text": "a"}, {"x": [1]}], "/1/x", "must be omitted with 'text'"),
    "both": ([{"text": "a", "x": [1]}], "/0/x", "must be omitted with 'text'"),
    "an address in a later line": ([{"text": "a"}, {"text": "b", "url": "c"}], "/1/url", "line 0 has none"),
}


@pytest.mark.parametrize(("lines", "pointer", "problem"), WRONG_LINES.values(), ids=WRONG_LINES)
def test_a_wrong_line_is_named(client, lines, pointer, problem):
    client.post("/fit", json={"project_id": "wrong-lines", "texts": TEXTS})
    sent = "\n".join(map(json.dumps, lines))
    response = client.post("/projects/wrong-lines/pool", data=sent, content_type="application/x-ndjson")
    assert response.status_code == 422
    assert pointer in [error["pointer"] for error in response.json["errors"]]
    assert problem in response.json["detail"]


def test_a_query_without_a_project_takes_texts(client):
    body = {"texts": TEXTS, "strategy": "k_center", "batch_size": 3, "random_state": 1}
    chosen = post(client, "/query", **body)
    assert chosen["indices"] == post(client, "/query", **body)["indices"]
    assert len(set(chosen["indices"])) == 3
    post(client, "/fit", 201, project_id="same-pool", texts=TEXTS)
    of_project = {"strategy": "k_center", "batch_size": 3, "random_state": 1}
    assert chosen["indices"] == post(client, "/query", project_id="same-pool", **of_project)["indices"]
    for wrong, pointer in (
        ({"texts": ["a"], "X": [[1]]}, "/texts"),
        ({"texts": ["a"], "include": ["text"]}, "/include"),
        ({"texts": ["a", "b"], "y": [1]}, "/y"),
        ({"texts": ["a"], "text": {"idf": True}}, "/text/idf"),
        ({"texts": ["a"], "project_id": "same-pool"}, "/texts"),
    ):
        assert post(client, "/query", 422, strategy="k_center", **wrong)["errors"][0]["pointer"] == pointer


def test_an_export_keeps_texts_addresses_and_parameters(client):
    make(client, "exported", [6], text={**SMALL, "words": 1, "idf": 1})
    data = client.get("/projects/exported/export").data
    response = client.post("/projects/import?project_id=imported", data=data, content_type="application/zip")
    assert response.status_code == 201, response.get_data(as_text=True)
    first, second = (get(client, f"/projects/{name}") for name in ("exported", "imported"))
    assert all(first[key] == second[key] for key in ("text", "keep_texts", "n_samples", "test_score", "version"))
    asked = {"batch_size": 8, "include": ["text", "url"]}
    first, second = (post(client, "/query", project_id=name, **asked) for name in ("exported", "imported"))
    assert [first[key] for key in KEYS] == [second[key] for key in KEYS]
    assert check_project(store_of(client).projects / "imported") == []


def test_an_import_refuses_wrong_texts(client):
    make(client, "sound", [6])
    data = client.get("/projects/sound/export").data
    with zipfile.ZipFile(BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    facts = json.loads(members["manifest.json"])
    facts["project"]["text"]["n_features"] = 512
    members["manifest.json"] = json.dumps(facts).encode()
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    response = client.post("/projects/import?project_id=bad", data=out.getvalue(), content_type="application/zip")
    assert response.status_code == 422
    assert "/manifest.json/project/text/n_features" in response.json["detail"]


def test_a_refit_keeps_the_texts_and_a_replacement_resets_them(client):
    made = make(client, "kept", text={**SMALL, "words": 1})
    fitted = post(client, "/fit", project_id="kept", random_state=3)
    assert [fitted[key] for key in ("text", "keep_texts")] == [made["text"], True]
    replaced = post(client, "/fit", project_id="kept", replace=True, X=[[1.0], [2.0]])
    assert [replaced[key] for key in ("text", "keep_texts")] == [None, False]
    assert check_project(store_of(client).projects / "kept") == []


def test_a_damaged_text_file_is_found(client):
    make(client, "damaged")
    file = store_of(client).projects / "damaged" / "pool" / "000001.texts.joblib"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    found = check_project(store_of(client).projects / "damaged")
    assert [finding.file for finding in found] == ["pool/000001.texts.joblib"]
    assert client.get("/projects/damaged/export").status_code == 500


def test_the_model_is_evaluated_on_texts(client):
    texts = [f"{TEXTS[n % 12]} {n}" for n in range(40)]
    labels = [["fruit", "tool"][n % 2] for n in range(40)]
    post(client, "/fit", 201, project_id="evaluated", texts=texts, y=labels, text=SMALL)
    measured = get(client, "/projects/evaluated/evaluation")
    assert measured["accuracy"]["value"] > 0.9
