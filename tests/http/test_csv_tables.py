"""CSV as parts of a form: what spreadsheets and libraries write is read as it is meant, or refused."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from tests.support.calls import get, post
from tests.usecases.test_columns import pool

ROLES = {"id": "id", "label": "label"}
TABLE = "id,age,flag,label\n007,1,true,cat\n8,2.5,False,\n9,3,TRUE,dog\n"
ROWS = [[1, 1], [2.5, 0], [3, 1]]


def send(client: FlaskClient, url: str, config: Any, expect: int, **parts: str | bytes) -> Any:
    """Send a form whose parts are CSV."""
    files = {"config": FileStorage(io.BytesIO(json.dumps(config).encode()), "config", content_type="application/json")}
    for name, text in parts.items():
        data = io.BytesIO(text.encode() if isinstance(text, str) else text)
        files[name] = FileStorage(data, f"{name}.csv", content_type="text/csv")
    boundary, body = encode_multipart(files)
    response = client.post(url, data=body, content_type=f"multipart/form-data; boundary={boundary}")
    assert response.status_code == expect, response.get_data(as_text=True)
    return response.json


def fit(client: FlaskClient, X: str | bytes, expect: int = 201, columns: Any = ROLES, **more: Any) -> Any:
    """Create the project `p` of a table in CSV."""
    parts = {name: more.pop(name) for name in ("y", "ids", "X_test", "y_test") if name in more}
    config = {"project_id": "p", "estimator": "gaussian_nb", **({"columns": columns} if columns else {}), **more}
    return send(client, "/fit", config, expect, X=X, **parts)


def given(client: FlaskClient) -> list[tuple[Any, Any]]:
    """Return the ids and labels of the labelled samples."""
    return [(record["id"], record["label"]) for record in get(client, "/projects/p/labels")["labels"]]


SAME = {
    "as it is": TABLE,
    "with a byte order mark and CRLF": b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode(),
    "without a last line break": TABLE[:-1],
    "quoted": "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in TABLE.split("\n")[:-1]),
    "with empty lines": TABLE + "\n\n",
    "with blanks around numbers": TABLE.replace(",1,", ", 1 ,"),
}


FEW_LABELS = 'classes with fewer than two labels, which the model can hardly learn: "cat" (1), "dog" (1)'


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_a_table_is_a_whole_project(client: FlaskClient, text: str | bytes) -> None:
    reply = fit(client, text)
    assert (reply["feature_names"], reply["classes"], reply["notes"]) == (["age", "flag"], ["cat", "dog"], [FEW_LABELS])
    assert given(client) == [("007", "cat"), ("9", "dog")]
    assert pool(client).tolist() == ROWS
    reply = send(client, "/projects/p/pool", {}, 200, X="label,flag,id,age\ncat,false,12,4\n,true,13,5\n")
    assert reply["n_labeled"] == 3
    assert given(client)[-1] == ("12", "cat")
    assert pool(client)[3:].tolist() == [[4, 0], [5, 1]]


LABELS = {
    "integers": (["1", "", "2"], {}, [1, 2]),
    "integers that pandas wrote": (["1.0", "", "2.0"], {}, [1, 2]),
    "leading zeros": (["01", "", "2"], {}, ["01", "2"]),
    "text and numbers": (["1", "", "b"], {}, ["1", "b"]),
    "booleans": (["True", "", "false"], {}, [True, False]),
    "more than 64 bits": (["9223372036854775808", "", "2"], {}, ["9223372036854775808", "2"]),
    "classes of text": (["1", "", "2"], {"classes": ["1", "2"]}, ["1", "2"]),
    "classes of integers": (["1", "", "2"], {"classes": [1, 2, 3]}, [1, 2]),
    "a missing label of text among integers": (["1", "NA", "2"], {"missing_label": "NA"}, [1, 2]),
    "a missing label that is an integer": (["a", "-1", "b"], {"missing_label": -1}, ["a", "b"]),
    "nan as a class": (["nan", "", "b"], {"missing_label": None}, ["nan", "b"]),
}


@pytest.mark.parametrize(("cells", "config", "labels"), LABELS.values(), ids=LABELS)
def test_labels_get_the_type_that_they_mean(client: FlaskClient, cells: list[str], config: Any, labels: Any) -> None:
    rows = "".join(f"{n},{n},{cell}\n" for n, cell in enumerate(cells))
    fit(client, "id,age,label\n" + rows, **config)
    assert given(client) == [(0, labels[0]), (2, labels[1])]
    fit(
        client,
        "age\n1\n2\n3\n",
        columns=None,
        y="label\n" + "\n".join(cells) + "\n",
        replace=True,
        expect=200,
        **config,
    )
    assert [label for _, label in given(client)] == labels


def test_labels_of_later_tables_get_the_type_of_the_classes(client: FlaskClient) -> None:
    held_out = "age,label\n1,1\n2,1\n"
    reply = fit(client, "age,label\n1,1\n2,one\n", columns={"label": "label"}, X_test=held_out)
    assert (reply["classes"], reply["test_score"]["accuracy"]) == (["1", "one"], 0.5)
    send(client, "/projects/p/pool", {}, 200, X="age,label\n3,2\n")
    assert given(client)[-1] == (None, "2")


@pytest.mark.parametrize(
    ("first", "more", "ids"), [("007", "8", ["007", "8"]), ("7", "8", [7, 8]), ("a", "8", ["a", "8"])]
)
def test_ids_are_text_unless_all_of_them_are_integers(client: FlaskClient, first: str, more: str, ids: Any) -> None:
    fit(client, f"id,age\n{first},1\n", columns={"id": "id"})
    send(client, "/projects/p/pool", {}, 200, X=f"id,age\n{more},2\n")
    assert sorted(post(client, "/query", project_id="p", batch_size=2)["ids"], key=ids.index) == ids


def test_what_pandas_writes_by_default_is_read(client: FlaskClient) -> None:
    frame = pd.DataFrame({"age": [1.5, 2, 3], "label": ["a", None, "b"], "ok": [True, False, True]}, index=[5, 3, 9])
    reply = fit(client, frame.to_csv(), columns={"label": "label"})
    assert (reply["feature_names"], reply["n_labeled"]) == (["age", "ok"], 2)
    assert reply["notes"][0] == "X: the first column, which has no name, was left out as an index"
    array = pd.DataFrame(np.eye(3)).to_csv(index=False)
    reply = fit(client, array, columns=None, y=frame["label"].to_csv(), replace=True, expect=200)
    assert (reply["feature_names"], reply["n_labeled"]) == (["0", "1", "2"], 2)


def test_quoted_fields_may_hold_anything(client: FlaskClient) -> None:
    text = 'id,note,age\n"a,""b""","two\nlines",1\nc,' + "x" * 3_000_000 + ",2\n"
    fit(client, text, columns={"id": "id", "features": ["age"]})
    assert sorted(post(client, "/query", project_id="p", batch_size=2)["ids"]) == ['a,"b"', "c"]
    assert pool(client).tolist() == [[1], [2]]


def test_a_later_fraction_is_read_and_later_text_is_refused(client: FlaskClient) -> None:
    many = "age,ok\n" + "1,true\n" * 700_000  # more than the first block
    fit(client, many + "1.5,false\n", columns=None)
    assert pool(client)[-1].tolist() == [1.5, 0]
    problem = fit(client, many + "old,true\n", 422, columns=None, replace=True)
    error = {"pointer": "/X/700000", "detail": "column 'age' holds 'old', which is not a number"}
    assert problem["errors"] == [error]


WRONG = {
    "an empty cell": ("id,age\n1,\n", "/X/0/0", "must be a finite number"),
    "text among numbers": ("id,age\n1,2\n2,old\n", "/X", "has a column 'age' of string"),
    "text": ("id,city,age\n1,Rome,2\n", "/X", '"columns": {"features"'),
    "dates": ("id,born\n1,2020-02-28\n", "/X", "has a column 'born' of date32"),
    "infinity": ("id,age\n1,1e999\n", "/X/0/0", "must be a finite number"),
    "a long row": ("id,age\n1,2\n1,2,3\n", "/X", "Row #3: Expected 2 columns, got 3"),
    "a short row": ("id,age\n1\n", "/X", "Row #2: Expected 2 columns, got 1"),
    "repeated names": ("id,age,age\n1,2,3\n", "/X", "repeats column names: 'age'"),
    "a header alone": ("id,age\n", "/X", "has no rows"),
    "no header": ("1.5,2.5\n3.5,4.5\n", "/X", "must begin with a line of column names"),
    "an open quote": ('id,age\n1,"2\n3,4\n', "/X", "has an odd number of quotes"),
    "UTF-16": ("x,age\n1,2\n".encode("utf-16"), "/X", "is UTF-16; save it as UTF-8"),
    "Latin-1": ("id,age\ncafé,2\n".encode("latin-1"), "/X", "is not UTF-8"),
    "a huge row": ("id,note,age\n1," + "x" * 9_000_000 + ",2\n", "/X", "has a row of more than 4194304 bytes"),
    "no id": ("id,age\n,2\n", "/ids/0", "must be a string of 1 to 256 characters"),
}


@pytest.mark.parametrize(("text", "pointer", "detail"), WRONG.values(), ids=WRONG)
def test_wrong_tables_are_refused(client: FlaskClient, text: str | bytes, pointer: str, detail: str) -> None:
    columns = {"id": "id"} if str(text).startswith("id") else None
    error = fit(client, text, 422, columns=columns)["errors"][0]
    assert error["pointer"] == pointer
    assert detail in error["detail"]
    get(client, "/projects/p", 404)


def test_spellings_of_a_missing_label_are_refused(client: FlaskClient) -> None:
    error = fit(client, "id,age,label\n1,2,a\n2,3,NaN\n", 422)["errors"][0]
    assert error["pointer"] == "/y/1"
    assert '"missing_label": "NaN"' in error["detail"]
