"""A wrong request changes nothing, and its error names the wrong field: one row for each case."""

import gzip
import io
import pickle
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from service.app import create_app
from service.errors import InvalidRequest
from service.settings import Settings
from service.store import Store
from service.strategies import STRATEGIES
from service.usecases.label import Answer, SubmittedLabel, with_labels
from service.usecases.query import query_project
from service.usecases.query_request import QueryRequest
from tests.support.npy import npy, npy_with_header

BOUNDARY = "boundary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
PROJECTS = ("cats", "digits", "flags")
POOL = [[i, i * i % 7] for i in range(8)]


@dataclass(frozen=True)
class Sent:
    """A request."""

    method: str
    path: str
    options: dict = field(default_factory=dict)


def fit(**fields):
    """A new project of two samples, with these fields changed."""
    return Sent("POST", "/fit", {"json": {"project_id": "new", "X": [[1, 2], [3, 4]]} | fields})


def again(project_id="cats", **fields):
    """A fit of an existing project."""
    return Sent("POST", "/fit", {"json": {"project_id": project_id} | fields})


def query(**fields):
    return Sent("POST", "/query", {"json": {"project_id": "cats"} | fields})


def label(*records, project_id="cats", **fields):
    return Sent("POST", "/label", {"json": {"project_id": project_id, "labels": list(records)} | fields})


def answer(**fields):
    return label({"index": 3, "label": "cat"}, **fields)


def labels(value):
    return Sent("POST", "/label", {"json": {"project_id": "cats", "labels": value}})


def raw(path, data, content_type="application/json", **options):
    return Sent("POST", path, {"data": data, "content_type": content_type, **options})


def get(path, **headers):
    return Sent("GET", path, {"headers": {name.replace("_", "-"): value for name, value in headers.items()}})


def with_header(request, name, value):
    return Sent(request.method, request.path, request.options | {"headers": {name: value}})


def without_length(request):
    return Sent(request.method, request.path, request.options | {"environ_overrides": {"CONTENT_LENGTH": None}})


def announcing(request, length):
    return Sent(request.method, request.path, request.options | {"environ_overrides": {"CONTENT_LENGTH": length}})


def form(config='{"project_id": "new"}', end=f"--{BOUNDARY}--\r\n", **parts):
    """A form of a config and parts, each bytes (of .npy), text (of JSON), or both its media type and bytes."""
    parts = {"config": config} | parts
    return raw("/fit", b"".join(part(name, value) for name, value in parts.items()) + end.encode(), MULTIPART)


def part(name, value):
    if not isinstance(value, tuple):
        value = ("application/x-npy", value) if isinstance(value, bytes) else ("application/json", value.encode())
    media_type, data = value
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{name}"'
    return f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: {media_type}\r\n\r\n".encode() + data + b"\r\n"


def header(descr="<f8", shape="(2, 2)", order="False"):
    return f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}}}"


def npz():
    file = io.BytesIO()
    np.savez(file, X=np.zeros((2, 2)))
    return file.getvalue()


X = npy(np.zeros((2, 2)))
NESTED = 10_000


WRONG_BODIES = [
    pytest.param(without_length(raw("/fit", b"")), 411, None, id="no body"),
    pytest.param(announcing(raw("/fit", b""), "0"), 400, None, id="an empty body"),
    pytest.param(raw("/fit", b"{"), 400, None, id="a truncated document"),
    pytest.param(raw("/fit", b'{"project_id": "new", "X": [[1,'), 400, None, id="a truncated matrix"),
    pytest.param(raw("/fit", b"{} {}"), 400, None, id="two documents"),
    pytest.param(raw("/fit", b"{'project_id': 'new'}"), 400, None, id="single quotes"),
    pytest.param(raw("/fit", b"\xff\xfe{\x00}\x00"), 400, None, id="UTF-16"),
    pytest.param(raw("/fit", b"\xef\xbb\xbf{}"), 400, None, id="a byte order mark"),
    pytest.param(raw("/fit", b'{"project_id": "\xff"}'), 400, None, id="bytes that are no UTF-8"),
    pytest.param(raw("/label", rb'{"project_id": "\ud800"}'), 400, None, id="half of a surrogate pair, escaped"),
    pytest.param(raw("/label", b'{"project_id": "\xed\xa0\x80"}'), 400, None, id="half of a surrogate pair, in bytes"),
    pytest.param(raw("/fit", b"[" * NESTED), 400, None, id="deeply nested lists"),
    pytest.param(raw("/fit", b"[" * NESTED + b"]" * NESTED), 400, None, id="deeply nested lists that end"),
    pytest.param(raw("/query", b'{"params":' * NESTED), 400, None, id="deeply nested objects"),
    pytest.param(raw("/fit", b'{"project_id": "new", "X": [[NaN]]}'), 400, None, id="NaN"),
    pytest.param(raw("/fit", b'{"project_id": "new", "X": [[Infinity]]}'), 400, None, id="Infinity"),
    pytest.param(raw("/fit", b'{"project_id": "new", "X": [[-Infinity]]}'), 400, None, id="-Infinity"),
    pytest.param(raw("/fit", b'{"project_id": "new", "X": [[1e999]]}'), 400, None, id="a number beyond float64"),
    pytest.param(raw("/fit", b"null"), 422, "", id="null for a document"),
    pytest.param(raw("/query", b"[]"), 422, "", id="a list for a document"),
    pytest.param(raw("/label", b'"cats"'), 422, "", id="a string for a document"),
    pytest.param(raw("/label", b"1"), 422, "", id="a number for a document"),
    pytest.param(raw("/fit", b" " * 100_001), 413, None, id="too large a document"),
    pytest.param(raw("/query", b" " * 100_001), 413, None, id="too large a question"),
    pytest.param(raw("/label", b" " * 100_001), 413, None, id="too many labels in bytes"),
    pytest.param(raw("/fit", b" " * 300_001, MULTIPART), 413, None, id="too large a form"),
    pytest.param(form(X=" " * 100_001), 413, None, id="too large a part of JSON"),
    pytest.param(form(**{f"part{i}": X for i in range(20)}), 422, "/part0", id="too many parts"),
    pytest.param(without_length(fit()), 411, None, id="no Content-Length"),
    pytest.param(without_length(form(X=X)), 411, None, id="no Content-Length of a form"),
    pytest.param(announcing(fit(), "999"), 400, None, id="a body that is shorter than announced"),
    pytest.param(announcing(form(X=X), "9999"), 400, None, id="a form that is shorter than announced"),
    pytest.param(announcing(fit(), "20"), 400, None, id="a body that is longer than announced"),
    pytest.param(announcing(fit(), "-1"), 400, None, id="a negative Content-Length"),
    pytest.param(announcing(fit(), "1e3"), 400, None, id="a Content-Length that is no number"),
    pytest.param(announcing(fit(), "9" * 30), 413, None, id="a Content-Length of 30 digits"),
    pytest.param(raw("/fit", b"{}", "text/plain"), 415, None, id="text"),
    pytest.param(raw("/fit", b"{}", ""), 415, None, id="no Content-Type"),
    pytest.param(raw("/fit", X, "application/x-npy"), 415, None, id="a bare .npy"),
    pytest.param(raw("/fit", b"a=b", "application/x-www-form-urlencoded"), 415, None, id="a form of a browser"),
    pytest.param(raw("/query", b"{}", "application/x-ndjson"), 415, None, id="a question as NDJSON"),
    pytest.param(raw("/label", b"{}", MULTIPART), 415, None, id="labels as a form"),
    pytest.param(raw("/label", b"", "text/csv"), 415, None, id="labels as CSV"),
    pytest.param(raw("/query", b"{}", "a" * 10_000), 415, None, id="a Content-Type without end"),
    pytest.param(with_header(fit(), "Content-Encoding", "gzip"), 400, None, id="gzip that is none"),
    pytest.param(with_header(query(), "Content-Encoding", "zstd"), 400, None, id="zstd that is none"),
    pytest.param(with_header(form(X=X), "Content-Encoding", "gzip"), 400, None, id="a form that is no gzip"),
    pytest.param(with_header(form(X=X), "Content-Encoding", "br"), 415, None, id="a form in brotli"),
    pytest.param(with_header(fit(), "Content-Encoding", "gzip, zstd"), 415, None, id="encoded twice"),
    pytest.param(
        with_header(raw("/query", gzip.compress(b" " * 100_001)), "Content-Encoding", "gzip"),
        413,
        None,
        id="too large a document in gzip",
    ),
    pytest.param(
        with_header(raw("/query", gzip.compress(b"{}")[:-1]), "Content-Encoding", "gzip"),
        400,
        None,
        id="gzip that breaks off",
    ),
]

WRONG_NAMES = [
    pytest.param(Sent("POST", "/fit", {"json": {}}), 422, "/project_id", id="no project"),
    pytest.param(Sent("POST", "/query", {"json": {}}), 422, "/project_id", id="a question without a project"),
    pytest.param(Sent("POST", "/label", {"json": {}}), 422, ("/labels", "/project_id"), id="labels without anything"),
    *(
        pytest.param(request(project_id=name), 422, "/project_id", id=f"{request.__name__} {what} for a project id")
        for request in (fit, query, answer)
        for name, what in [
            (None, "null"),
            (1, "a number"),
            (True, "true"),
            (["cats"], "a list"),
            ("", "nothing"),
            ("../x", "a way out"),
            ("a/b", "a path"),
            ("/etc/passwd", "a whole path"),
            (".hidden", "a hidden file"),
            ("..", "the directory above"),
            ("-rf", "an option"),
            ("a" * 65, "65 characters"),
            ("a\n", "a newline at the end"),
            ("a\0", "a NUL"),
            ("a b", "a space"),
            ("ä", "a letter that is not ASCII"),
            ("٣", "a digit that is not ASCII"),
        ]
    ),
    pytest.param(query(project_id="dogs"), 404, None, id="a question about no project"),
    pytest.param(label({"index": 0, "label": "cat"}, project_id="dogs"), 404, None, id="labels for no project"),
    pytest.param(again("dogs"), 422, "/X", id="training what does not exist"),
    pytest.param(again("CATS"), 422, "/X", id="another case is another project"),
    pytest.param(fit(Y=[1, 2]), 422, "/Y", id="an unknown field"),
    pytest.param(fit(a=1, b=2), 422, ("/a", "/b"), id="two unknown fields"),
    pytest.param(fit(**{"a/b~c": 1}), 422, "/a~1b~0c", id="an unknown field that has to be escaped"),
    pytest.param(fit(**{"": 1}), 422, "/", id="an unknown field without a name"),
    pytest.param(fit(_schema=1), 422, "/_schema", id="an unknown field that means something to marshmallow"),
    pytest.param(query(batchsize=1), 422, "/batchsize", id="an unknown field of a question"),
    pytest.param(query(excluded=[1]), 422, "/excluded", id="the inner name of a field"),
    pytest.param(label({"index": 3, "label": "cat"}, wait=True), 422, "/wait", id="an unknown field beside labels"),
    pytest.param(fit(project_id="", X=[], y=1), 422, ("/X", "/project_id", "/y"), id="three wrong fields"),
]

WRONG_POOLS = [
    pytest.param(fit(X=None), 422, "/X", id="null for X"),
    pytest.param(fit(X="[[1]]"), 422, "/X", id="a string for X"),
    pytest.param(fit(X={"0": [1]}), 422, "/X", id="an object for X"),
    pytest.param(fit(X=7), 422, "/X", id="a number for X"),
    pytest.param(fit(X=[]), 422, "/X", id="no rows"),
    pytest.param(fit(X=[[]]), 422, "/X/0", id="no columns"),
    pytest.param(fit(X=[[], [1, 2], [3, 4]]), 422, "/X/0", id="an empty first row"),
    pytest.param(fit(X=[1, 2]), 422, ("/X/0", "/X/1"), id="rows that are no lists"),
    pytest.param(fit(X=[7, [1, 2], [3, 4]]), 422, "/X/0", id="a first row that is no list"),
    pytest.param(fit(X=[[1, 2], [3]]), 422, "/X/1", id="a short row"),
    pytest.param(fit(X=[[1, 2], [3, 4, 5]]), 422, "/X/1", id="a long row"),
    pytest.param(fit(X=[[1, "2"], [3, 4]]), 422, "/X/0/1", id="a number in quotes"),
    pytest.param(fit(X=[[1, None], [3, 4]]), 422, "/X/0/1", id="null among numbers"),
    pytest.param(fit(X=[[1, "NaN"], [3, 4]]), 422, "/X/0/1", id="NaN in quotes"),
    pytest.param(fit(X=[[1, [2]], [3, 4]]), 422, "/X/0/1", id="a list among numbers"),
    pytest.param(fit(X=[[1, {}], ["3", 4]]), 422, ("/X/0/1", "/X/1/0"), id="two bad cells"),
    pytest.param(fit(X=[[0] * 26] * 40), 422, "/X", id="too many cells"),
    pytest.param(fit(ids=[]), 422, "/ids", id="no ids"),
    pytest.param(fit(ids="ab"), 422, "/ids", id="a string for ids"),
    pytest.param(fit(ids=["a"]), 422, "/ids", id="fewer ids than rows"),
    pytest.param(fit(ids=["a", "b", "c"]), 422, "/ids", id="more ids than rows"),
    pytest.param(fit(ids=["a", "a"]), 422, "/ids/1", id="two equal ids"),
    pytest.param(fit(ids=[1.0, True]), 422, ("/ids/0", "/ids/1"), id="numbers for ids"),
    pytest.param(fit(ids=["a", None]), 422, "/ids/1", id="null for an id"),
    pytest.param(fit(ids=["a", ""]), 422, "/ids/1", id="an empty id"),
    pytest.param(fit(ids=["a", "b" * 257]), 422, "/ids/1", id="an id of 257 characters"),
    pytest.param(again(ids=["a", "b"]), 422, "/ids", id="ids without X"),
    pytest.param(again(X=[[1, 2]]), 409, None, id="a pool for a project that has one"),
    pytest.param(again(X=[[1, 2]], replace=False), 409, None, id="replace false"),
    pytest.param(again(replace=True), 422, "/X", id="replace without X"),
    pytest.param(again("dogs", replace=True), 422, "/X", id="replace of nothing by nothing"),
    pytest.param(again(replace="true", X=[[1, 2]]), 422, "/replace", id="a string for replace"),
    pytest.param(again(replace=1, X=[[1, 2]]), 422, "/replace", id="1 for replace"),
    pytest.param(again(replace=None, X=[[1, 2]]), 422, "/replace", id="null for replace"),
    pytest.param(again(replace=True, X=[[1, 2]], y=[1, 2]), 422, "/y", id="replace with too many labels"),
    pytest.param(again(replace=True, X=[[1, 2], [3]]), 422, "/X/1", id="replace with a ragged pool"),
    pytest.param(fit(), 409, None, id="one project too many"),
]

WRONG_LABELS = [
    pytest.param(fit(y=None), 422, "/y", id="null for y"),
    pytest.param(fit(y="ab"), 422, "/y", id="a string for y"),
    pytest.param(fit(y=[]), 422, "/y", id="an empty y"),
    pytest.param(fit(y=["a"]), 422, "/y", id="y shorter than X"),
    pytest.param(fit(y=["a", "b", "c"]), 422, "/y", id="y longer than X"),
    pytest.param(fit(y=["a"], ids=["a"]), 422, ("/y", "/ids"), id="y and ids shorter than X"),
    pytest.param(fit(y=[1, "1"]), 422, "/y/1", id='1 and "1"'),
    pytest.param(fit(y=["1", 1]), 422, "/y/1", id='"1" and 1'),
    pytest.param(fit(y=[1, True]), 422, "/y/1", id="1 and true"),
    pytest.param(fit(y=[False, 0]), 422, "/y/1", id="false and 0"),
    pytest.param(fit(y=[True, "true"]), 422, "/y/1", id='true and "true"'),
    pytest.param(fit(y=[1, 1.0]), 422, "/y/1", id="1 and 1.0"),
    pytest.param(fit(y=[None, 0.5], target="class"), 422, "/y/1", id="a fraction"),
    pytest.param(fit(y=["", "a"]), 422, "/y/0", id="an empty label"),
    pytest.param(fit(y=["a" * 257, "a"]), 422, "/y/0", id="a label of 257 characters"),
    pytest.param(fit(y=[2**63, 1]), 422, "/y/0", id="a label beyond 64 bits"),
    pytest.param(fit(y=[-(2**63) - 1, 1]), 422, "/y/0", id="a label below 64 bits"),
    pytest.param(fit(y=[2**64, 1]), 422, "/y/0", id="a label far beyond 64 bits"),
    pytest.param(fit(y=[["a"], {}]), 422, "/y/1", id="a list and an object for labels"),
    pytest.param(again(y=["cat"] * 8), 422, "/y", id="y without X"),
    pytest.param(again(y=["cat"], ids=["a"]), 422, ("/ids", "/y"), id="y and ids without X"),
    pytest.param(fit(X_test=[[1, 2]]), 422, "/y_test", id="X_test without y_test"),
    pytest.param(fit(y_test=["a"]), 422, "/X_test", id="y_test without X_test"),
    pytest.param(again(y_test=["cat"]), 422, "/X_test", id="y_test alone"),
    pytest.param(fit(X_test=[[1]], y_test=["a"]), 422, "/X_test", id="X_test narrower than X"),
    pytest.param(again(X_test=[[1, 2, 3]], y_test=["cat"]), 422, "/X_test", id="X_test wider than the pool"),
    pytest.param(fit(X_test=[[1, 2]], y_test=["a", "b"]), 422, "/y_test", id="y_test longer than X_test"),
    pytest.param(fit(X_test=[[1, 2], [1]], y_test=["a", "b"]), 422, "/X_test/1", id="a ragged X_test"),
    pytest.param(fit(X_test=[[1, 2]], y_test=[None]), 422, "/y_test/0", id="a held-out row without a label"),
    pytest.param(again(X_test=[[1, 2]], y_test=[1]), 422, "/y_test/0", id="a held-out label of another type"),
    pytest.param(again("digits", X_test=[[1, 2]], y_test=[9]), 422, "/y_test/0", id="a held-out label of no class"),
    pytest.param(again("flags", X_test=[[1, 2]], y_test=[1]), 422, "/y_test/0", id="1 held out among booleans"),
    pytest.param(fit(X_test=[[0] * 26] * 40, y_test=[1] * 40), 422, "/X_test", id="too many held-out cells"),
    pytest.param(fit(classes=[]), 422, "/classes", id="no classes"),
    pytest.param(fit(classes="ab"), 422, "/classes", id="a string for classes"),
    pytest.param(fit(classes=["a", None]), 422, "/classes/1", id="null for a class"),
    pytest.param(fit(classes=["a", "b", "a"]), 422, "/classes/2", id="a class twice"),
    pytest.param(fit(classes=["a", 1]), 422, "/classes/1", id="classes of two types"),
    pytest.param(fit(classes=[0, False]), 422, "/classes/1", id="0 and false for classes"),
    pytest.param(fit(classes=["a", "b"], y=["a", "c"]), 422, "/y/1", id="a label outside the declared classes"),
    pytest.param(
        fit(classes=["0", "1"], y=[0, 1]), 422, ("/y/0", "/y/1"), id="labels of another type than the classes"
    ),
    pytest.param(again(classes=["cat"]), 422, "/classes", id="classes without one that has labels"),
    pytest.param(again("digits", classes=[0, 1]), 422, "/classes", id="classes that shrink"),
    pytest.param(again("digits", classes=["0", "1", "2"]), 422, "/classes", id="classes that change their type"),
    pytest.param(again("flags", classes=[0, 1]), 422, "/classes", id="0 and 1 for false and true"),
]

WRONG_ESTIMATORS = [
    pytest.param(again(estimator="svm"), 422, "/estimator", id="an unknown estimator"),
    pytest.param(again(estimator=""), 422, "/estimator", id="an empty estimator"),
    pytest.param(again(estimator=None), 422, "/estimator", id="null for an estimator"),
    pytest.param(again(estimator=["svc"]), 422, "/estimator", id="a list for an estimator"),
    pytest.param(again(estimator={}), 422, "/estimator", id="an estimator without a name"),
    pytest.param(again(estimator={"name": 1}), 422, "/estimator", id="a number for an estimator's name"),
    pytest.param(again(estimator={"name": "svm"}), 422, "/estimator/name", id="an unknown name of an estimator"),
    pytest.param(again(estimator={"name": "svc", "C": 1}), 422, "/estimator/C", id="a parameter at the wrong place"),
    pytest.param(again(estimator={"name": "svc", "a/b": 1}), 422, "/estimator/a~1b", id="a field to be escaped"),
    pytest.param(again(estimator={"name": "svc", "params": []}), 422, "/estimator/params", id="a list of parameters"),
    pytest.param(again(estimator={"name": "svc", "params": None}), 422, "/estimator/params", id="null for parameters"),
    *(
        pytest.param(
            again(estimator={"name": name, "params": {parameter: value}}),
            422,
            f"/estimator/params/{parameter}",
            id=f"{name} with {parameter} = {value!r}",
        )
        for name, parameter, value in [
            ("svc", "c", 1),
            ("svc", "C", 0),
            ("svc", "C", -1),
            ("svc", "C", 1e7),
            ("svc", "C", "1"),
            ("svc", "C", True),
            ("svc", "C", None),
            ("svc", "C", [1]),
            ("svc", "kernel", "precomputed"),
            ("svc", "probability", True),
            ("logistic_regression", "n_jobs", -1),
            ("logistic_regression", "scale", 1),
            ("logistic_regression", "max_iter", 10.0),
            ("mlp", "hidden_layer_sizes", []),
            ("mlp", "hidden_layer_sizes", [0]),
            ("mlp", "hidden_layer_sizes", 10),
            ("mlp", "hidden_layer_sizes", [10] * 11),
            ("random_forest", "n_estimators", 10**9),
            ("k_neighbors", "n_neighbors", 0),
        ]
    ),
    *(
        pytest.param(request(random_state=seed), 422, "/random_state", id=f"{request.__name__} with seed {seed!r}")
        for request in (fit, again, query)
        for seed in (-1, 2**32, 1.0, "0", True, None, [0])
    ),
]

WRONG_QUESTIONS = [
    *(
        pytest.param(query(batch_size=size), 422, "/batch_size", id=f"a batch of {size!r}")
        for size in (0, -1, 1.5, 1.0, True, "1", None, [1], 51, 2**31, 2**63, 2**64)
    ),
    pytest.param(query(strategy="entropi"), 422, "/strategy", id="an unknown strategy"),
    pytest.param(query(strategy=""), 422, "/strategy", id="an empty strategy"),
    pytest.param(query(strategy=None), 422, "/strategy", id="null for a strategy"),
    pytest.param(query(strategy=1), 422, "/strategy", id="a number for a strategy"),
    pytest.param(query(strategy={"name": "margin"}), 422, "/strategy", id="an object for a strategy"),
    pytest.param(query(strategy="m" * 65), 422, "/strategy", id="a strategy of 65 characters"),
    pytest.param(query(params=None), 422, "/params", id="null for parameters"),
    pytest.param(query(params=[]), 422, "/params", id="a list for parameters"),
    pytest.param(query(params={"sample": 500}), 422, "/params/sample", id="a parameter of another strategy"),
    pytest.param(query(params={"a/b": 500}), 422, "/params/a~1b", id="a parameter that has to be escaped"),
    *(
        pytest.param(query(strategy="k_means", params={"sample": size}), 422, "/params/sample", id=f"sample {size!r}")
        for size in (99, 100_001, -1, 500.0, "500", True, None, 2**64)
    ),
    *(
        pytest.param(query(**{name: value}), 422, f"/{name}{below}", id=f"{name} {value!r}")
        for name in ("exclude", "candidates")
        for value, below in [
            (None, ""),
            (3, ""),
            ("3", ""),
            ({"0": 3}, ""),
            ([-1], "/0"),
            ([0, 8], "/1"),
            ([2**63 - 1], "/0"),
            ([2**63], "/0"),
            ([2**64], "/0"),
            (["3"], "/0"),
            ([True], "/0"),
            ([1.0], "/0"),
            ([None], "/0"),
            ([[1]], "/0"),
            ([0, -1, 1], "/1"),
        ]
    ),
    pytest.param(query(exclude=["s1"]), 422, "/exclude/0", id="an id for an index"),
    pytest.param(query(exclude=[8], candidates=[9]), 422, ("/exclude/0", "/candidates/0"), id="both out of range"),
    pytest.param(query(annotator=""), 422, "/annotator", id="an annotator without a name"),
    pytest.param(query(annotator="a" * 257), 422, "/annotator", id="an annotator of 257 characters"),
    pytest.param(query(annotator=1), 422, "/annotator", id="a number for an annotator"),
    *(
        pytest.param(
            query(lease_seconds=seconds, annotator="ada"), 422, "/lease_seconds", id=f"a lease of {seconds!r} seconds"
        )
        for seconds in (-1, 0.5, 0.0, "0", False, None, 604_801)
    ),
    pytest.param(query(lease_seconds=60), 422, "/annotator", id="a lease without an annotator"),
]

WRONG_ANSWERS = [
    pytest.param(labels(None), 422, "/labels", id="null for labels"),
    pytest.param(labels({"index": 3, "label": "cat"}), 422, "/labels", id="a record for labels"),
    pytest.param(labels([]), 422, "/labels", id="no records"),
    pytest.param(label("cat", 3), 422, ("/labels/0", "/labels/1"), id="records that are no objects"),
    pytest.param(label({}), 422, "/labels/0", id="an empty record"),
    pytest.param(label({"index": 3}), 422, "/labels/0", id="neither label nor skip"),
    pytest.param(label({"index": 3, "skip": False}), 422, "/labels/0", id="no skip and no label"),
    pytest.param(label({"index": 3, "label": "cat", "skip": True}), 422, "/labels/0", id="both label and skip"),
    pytest.param(label({"label": "cat"}), 422, "/labels/0", id="a label of no sample"),
    pytest.param(label({"index": 3, "id": "s3", "label": "cat"}), 422, "/labels/0", id="both index and id"),
    pytest.param(label({"index": 3, "value": "cat"}), 422, "/labels/0/value", id="an unknown field of a record"),
    pytest.param(label({"index": 3, "label": "cat", "a/b": 1}), 422, "/labels/0/a~1b", id="a field to escape"),
    pytest.param(label({"index": 3, "label": "cat", "_schema": 1}), 422, "/labels/0/_schema", id="marshmallow's word"),
    *(
        pytest.param(label({"index": index, "label": "cat"}), 422, "/labels/0/index", id=f"the index {index!r}")
        for index in (8, -1, 1.0, "3", True, None, [3], 2**63 - 1, 2**63, 2**64)
    ),
    *(
        pytest.param(label({"id": name, "label": "cat"}), 422, "/labels/0/id", id=f"the id {str(name)[:9]!r}")
        for name in ("s8", "S1", "s1 ", "s1\0", "", "a" * 257, 1, None, True, ["s1"])
    ),
    pytest.param(label({"id": "s1", "label": 0}, project_id="digits"), 422, "/labels/0/id", id="an id where none are"),
    *(
        pytest.param(label({"index": 3, "label": value}), 422, "/labels/0/label", id=f"the label {str(value)[:9]!r}")
        for value in (0.5, [], {}, "", "a" * 257, 2**63, -(2**63) - 1, 2**64)
    ),
    *(
        pytest.param(
            label({"index": 3, "label": value}, project_id=project),
            422,
            "/labels/0/label",
            id=f"{value!r} in {project}",
        )
        for project, value in [
            ("cats", 1),
            ("cats", True),
            ("digits", "1"),
            ("digits", True),
            ("digits", 3),
            ("digits", 1.0),
            ("flags", 1),
            ("flags", "true"),
        ]
    ),
    *(
        pytest.param(
            label({"index": 3, "label": one}, {"index": 4, "label": other}),
            422,
            "/labels/1/label",
            id=f"{one!r} and {other!r} in one request",
        )
        for one, other in [(1, "1"), (1, True), ("1", 1), (True, 1), (1, 1.0)]
    ),
    *(
        pytest.param(label({"index": 3, "skip": value}), 422, "/labels/0/skip", id=f"skip {value!r}")
        for value in (1, "true", None, [])
    ),
    *(
        pytest.param(
            label({"index": 3, "label": "cat", "annotator": value}), 422, "/labels/0/annotator", id=f"by {value!r:.9}"
        )
        for value in ("", "a" * 257, 1, None, True)
    ),
    *(
        pytest.param(
            label({"index": 3, "label": "cat", "query_id": value}),
            422,
            "/labels/0/query_id",
            id=f"asked by {value!r:.9}",
        )
        for value in ("", "a" * 65, "a b", "a\n", "ä", 1, None)
    ),
    pytest.param(
        label({"index": 3, "label": "cat"}, {"index": 3, "label": "cat"}),
        422,
        ("/labels/0/index", "/labels/1/index"),
        id="the same index twice",
    ),
    pytest.param(
        label({"index": 3, "label": "cat"}, {"index": 3, "skip": True}),
        422,
        ("/labels/0/index", "/labels/1/index"),
        id="a label and a skip of one sample",
    ),
    pytest.param(
        label({"index": 3, "label": "cat"}, {"id": "s3", "label": "cat"}),
        422,
        ("/labels/0/index", "/labels/1/id"),
        id="the same sample by index and by id",
    ),
    pytest.param(
        label({"index": 3, "label": "cat", "annotator": "a"}, {"index": 3, "label": "dog", "annotator": "a"}),
        422,
        "/labels/1/index",
        id="one annotator with two answers",
    ),
    pytest.param(
        label({"index": 3, "label": "cat", "annotator": "a"}, {"index": 3, "label": "dog"}),
        422,
        "/labels/1/index",
        id="a named label and an anonymous one",
    ),
    pytest.param(label({"index": 2, "label": "cat"}), 422, "/labels/0/index", id="a sample that was skipped"),
    pytest.param(label({"id": "s2", "label": "cat"}), 422, "/labels/0/id", id="a sample that was skipped, by id"),
    pytest.param(
        label({"index": 2, "label": "cat", "annotator": "a"}), 422, "/labels/0/index", id="skipped, by an annotator"
    ),
    pytest.param(
        label({"index": 3, "label": "cat"}, {"index": 8, "label": "cat"}),
        422,
        "/labels/1/index",
        id="one good, one bad",
    ),
    pytest.param(
        label({"index": 3, "label": "cat"}, {"index": 2, "label": "cat"}),
        422,
        "/labels/1/index",
        id="one good, one skipped",
    ),
    *(
        pytest.param(label({"index": 3, "label": "cat"}, refit=refit), 422, "/refit", id=f"refit {refit!r}")
        for refit in ("foreground", "later", "WAIT", "", True, False, None, ["wait"])
    ),
]

WRONG_FORMS = [
    pytest.param(raw("/fit", b"{}", "multipart/form-data"), 400, None, id="a form without a boundary"),
    pytest.param(raw("/fit", b"{}", "multipart/form-data; boundary=a\x80"), 400, None, id="a boundary beyond ASCII"),
    pytest.param(raw("/fit", b"{}", f"multipart/form-data; boundary={'a' * 101}"), 400, None, id="a boundary of 101"),
    pytest.param(raw("/fit", b"\r\n", MULTIPART), 400, None, id="a form of an empty line"),
    pytest.param(raw("/fit", b"{}", MULTIPART), 400, None, id="a form that is none"),
    pytest.param(form(X=X, end=""), 400, None, id="a form without its end"),
    pytest.param(form(X=X, end="--bound"), 400, None, id="a form that breaks off"),
    pytest.param(raw("/fit", b"--boundary--\r\n", MULTIPART), 422, "/config", id="a form of no parts"),
    pytest.param(
        raw("/fit", b"--boundary\r\nX: 1\r\n\r\n\r\n--boundary--", MULTIPART),
        400,
        None,
        id="a part without a disposition",
    ),
    pytest.param(
        raw("/fit", b"--boundary\r\nContent-Disposition: form-data\r\n\r\n\r\n--boundary--", MULTIPART),
        422,
        "",
        id="a part without a name",
    ),
    pytest.param(
        raw("/fit", b"--boundary\r\n" + b"X: 1\r\n" * 48_000 + b"\r\n\r\n--boundary--", MULTIPART),
        413,
        None,
        id="a part with too many headers",
    ),
    pytest.param(form(config="{"), 400, None, id="a config that is not JSON"),
    pytest.param(form(config="[]"), 422, "/config", id="a config that is a list"),
    pytest.param(form(config="null"), 422, "/config", id="a config that is null"),
    pytest.param(form(config=X), 422, "/config", id="a config that is a matrix"),
    pytest.param(form(config='{"project_id": "../x"}', X=X), 422, "/project_id", id="a config with an evil project"),
    pytest.param(form(config='{"project_id": "cats"}', X=X), 409, None, id="a form for a project that has a pool"),
    pytest.param(form(config='{"project_id": "new", "a": 1}', X=X), 422, "/a", id="a config with an unknown field"),
    pytest.param(form(config='{"project_id": "new", "X": [[1]]}', X=X), 422, "/X", id="X twice"),
    pytest.param(form(config='{"project_id": "new", "y": [1, 2]}', X=X, y="[1, 2]"), 422, "/y", id="y twice"),
    pytest.param(form(Z=X), 422, "/Z", id="an unknown part"),
    pytest.param(form(classes='["a"]'), 422, "/classes", id="a field that is no part"),
    pytest.param(form(**{"a/b": X}), 422, "/a~1b", id="an unknown part that has to be escaped"),
    pytest.param(form(X=X, end=part("X", X).decode("latin-1") + "--boundary--"), 422, "/X", id="a part twice"),
    pytest.param(form(y="[1, 2]"), 422, "/y", id="a form with y and without X"),
    pytest.param(form(X="[[1, 2], [3]]"), 422, "/X/1", id="a ragged part"),
    pytest.param(form(X="[[1, 2], "), 400, None, id="a truncated part"),
    pytest.param(form(X=""), 400, None, id="an empty part of JSON"),
    pytest.param(form(X=b""), 422, "/X", id="an empty .npy"),
    pytest.param(form(X=X, y="[1]"), 422, "/y", id="y shorter than X as parts"),
    pytest.param(form(X=("application/vnd.apache.arrow.stream", b"ARROW1")), 422, "/X", id="no Arrow"),
    pytest.param(form(X=("application/vnd.apache.parquet", b"PAR1")), 422, "/X", id="no Parquet"),
    pytest.param(form(X=("application/octet-stream", npz())), 422, "/X", id="npz of a dense matrix"),
    pytest.param(form(X=("application/zip", npz())), 422, "/X", id="npz of a dense matrix, as zip"),
    pytest.param(form(X=X, y=("application/octet-stream", npz())), 422, "/y", id="npz for y"),
    pytest.param(form(config=("application/x-npy", X), X=X), 422, "/config", id="npy for config"),
    pytest.param(form(X=("application/x-ndjson", b"[1]\n[1, 2]\n")), 422, "/X/1", id="ragged NDJSON"),
    pytest.param(form(X=("application/x-ndjson", b"[1]\n[\n")), 400, None, id="NDJSON that is none"),
    pytest.param(form(X=npz()), 422, "/X", id="npz that pretends to be npy"),
    pytest.param(form(X=("text/csv", b"1,2\n3,4")), 422, "/X", id="CSV"),
    pytest.param(form(X=("application/gzip", b"\x1f\x8b")), 422, "/X", id="gzip for a part"),
    pytest.param(form(X=pickle.dumps([[1.0]])), 422, "/X", id="a pickle for a .npy"),
    pytest.param(form(X=("application/octet-stream", pickle.dumps(1))), 422, "/X", id="a pickle for a part"),
]

WRONG_ARRAYS = [
    pytest.param(form(X=npy(np.array([[{}]], object))), 422, "/X", id="X pickled"),
    pytest.param(form(X=X, y=npy(np.array(["a", None], object))), 422, "/y", id="y pickled"),
    pytest.param(form(X=X, ids=npy(np.array(["a", "b"], object))), 422, "/ids", id="ids pickled"),
    pytest.param(form(X=X[:5]), 422, "/X", id="a magic string that breaks off"),
    pytest.param(form(X=X[:40]), 422, "/X", id="a header that breaks off"),
    pytest.param(form(X=X[:-1]), 422, "/X", id="a .npy that breaks off"),
    pytest.param(form(X=X[:-32]), 422, "/X", id="a .npy without data"),
    pytest.param(form(X=X + b"\0"), 422, "/X", id="a .npy with a byte too many"),
    pytest.param(form(X=npy_with_header(header(), version=(3, 0))), 422, "/X", id="version 3.0"),
    pytest.param(form(X=npy_with_header(header(), version=(1, 0), length=60_000)), 422, "/X", id="a header of 60 kB"),
    pytest.param(form(X=npy_with_header(header(), version=(2, 0), length=2**32 - 1)), 422, "/X", id="a header of 4 GB"),
    pytest.param(form(X=npy_with_header("")), 422, "/X", id="an empty header"),
    pytest.param(form(X=npy_with_header("(((")), 422, "/X", id="a header of open brackets"),
    pytest.param(form(X=npy_with_header("(" * 9_000)), 422, "/X", id="a header of 9,000 brackets"),
    pytest.param(form(X=npy_with_header("-" * 9_000)), 422, "/X", id="a header of 9,000 signs"),
    pytest.param(form(X=npy_with_header("__import__('os')")), 422, "/X", id="a header that calls"),
    pytest.param(form(X=npy_with_header("\xff\xfe")), 422, "/X", id="a header beyond ASCII"),
    pytest.param(form(X=npy_with_header(header(shape="(-2, 2)"))), 422, "/X", id="a negative shape"),
    pytest.param(form(X=npy_with_header(header(shape="(2.0, 2)"))), 422, "/X", id="a fraction in a shape"),
    pytest.param(form(X=npy_with_header(header(shape="('2', 2)"))), 422, "/X", id="a string in a shape"),
    pytest.param(form(X=npy_with_header(header(shape="(True, 2)"))), 422, "/X", id="true in a shape"),
    pytest.param(form(X=npy_with_header(header(shape=f"({10**6}, {10**6})"))), 422, "/X", id="8 TB announced"),
    pytest.param(
        form(X=npy_with_header(header(shape=f"(0x{'f' * 8000}, 2)"))), 422, "/X", id="a row count of 9,600 digits"
    ),
    pytest.param(form(X=npy_with_header(header(shape="(" + "1," * 4_000 + ")"))), 422, "/X", id="4,000 dimensions"),
    pytest.param(form(X=npy_with_header(header("<c8"), bytes(32))), 422, "/X", id="X of complex numbers"),
    pytest.param(form(X=npy_with_header(header("<f16"), bytes(64))), 422, "/X", id="X of long doubles"),
    pytest.param(form(X=npy_with_header(header("<U1"), bytes(16))), 422, "/X", id="X of text"),
    pytest.param(form(X=npy_with_header(header("<M8[s]"), bytes(32))), 422, "/X", id="X of dates"),
    pytest.param(form(X=npy_with_header(header([("a", "<f8")]), bytes(32))), 422, "/X", id="X of records"),
    pytest.param(form(X=npy_with_header(header("(2,)<f8"), bytes(64))), 422, "/X", id="X of pairs"),
    pytest.param(form(X=npy(np.zeros(4))), 422, "/X", id="X of one dimension"),
    pytest.param(form(X=npy(np.zeros((1, 2, 3)))), 422, "/X", id="X of three dimensions"),
    pytest.param(form(X=npy(np.zeros(()))), 422, "/X", id="X of no dimension"),
    pytest.param(form(X=npy(np.zeros((0, 2)))), 422, "/X", id="X without rows"),
    pytest.param(form(X=npy(np.zeros((2, 0)))), 422, "/X", id="X without columns"),
    pytest.param(form(X=npy(np.array([[1, 2], [np.nan, 4]]))), 422, "/X/1/0", id="NaN in X"),
    pytest.param(form(X=npy(np.array([[1, 2], [3, -np.inf]], "f4"))), 422, "/X/1/1", id="-inf in X"),
    pytest.param(form(X=npy(np.array([[1, 2], [np.inf, 4]], order="F"))), 422, "/X/1/0", id="inf in X by columns"),
    pytest.param(form(X=npy(np.zeros((40, 26)))), 422, "/X", id="too many cells in X"),
    pytest.param(
        form('{"project_id": "new", "target": "class"}', X=X, y=npy(np.array([0.5, 1]))),
        422,
        "/y/0",
        id="y of fractions",
    ),
    pytest.param(form(X=X, y=npy(np.array([1, np.inf]))), 422, "/y/1", id="y with inf"),
    pytest.param(form(X=X, y=npy(np.array([1, 1e300]))), 422, "/y/1", id="y beyond 64 bits"),
    pytest.param(form(X=X, y=npy(np.array([1, 2**63], "u8"))), 422, "/y/1", id="y beyond 64 bits, unsigned"),
    pytest.param(form(X=X, y=npy(np.array([1, 2j]))), 422, "/y", id="y of complex numbers"),
    pytest.param(form(X=X, y=npy(np.array([b"a", b"b"]))), 422, "/y", id="y of bytes"),
    pytest.param(form(X=X, y=npy(np.array(["2020-01-01"] * 2, "M8[D]"))), 422, "/y", id="y of dates"),
    pytest.param(form(X=X, y=npy(np.zeros((2, 1)))), 422, "/y", id="y of two dimensions"),
    pytest.param(form(X=X, y=npy(np.zeros(0))), 422, "/y", id="y of nothing"),
    pytest.param(form(X=X, y=npy(np.zeros(3))), 422, "/y", id="y longer than X as .npy"),
    pytest.param(form(X=X, y=npy_with_header(header("(2,)<f8", "(2,)"), bytes(32))), 422, "/y", id="y of pairs"),
    pytest.param(
        form(X=X, y=npy_with_header(header("(2,)<U1", "(2,)"), bytes(16))), 422, "/y", id="y of pairs of text"
    ),
    pytest.param(
        form(X=X, y=npy_with_header(header("<U0", f"({10**12},)"))), 422, "/y", id="y of a trillion empty texts"
    ),
    pytest.param(form(X=X, y=npy_with_header(header("|V0", f"({10**12},)"))), 422, "/y", id="y of a trillion nothings"),
    pytest.param(form(X=X, y=npy_with_header(header("<i8", f"({10**12},)"))), 422, "/y", id="y of 8 TB"),
    pytest.param(
        form(X=X, y=npy_with_header(header("<U1", "(2,)"), b"\0\xd8\0\0" * 2)), 422, "/y", id="y with a surrogate"
    ),
    pytest.param(form(X=X, y=npy_with_header(header("<U1", "(2,)"), b"\xff" * 8)), 422, "/y", id="y with no character"),
    pytest.param(form(X=X, y=npy(np.array(["a", "b" * 257]))), 422, "/y/1", id="y with a text of 257 characters"),
    pytest.param(form(X=X, ids=npy(np.array([1.0, 2.0]))), 422, "/ids", id="ids of numbers"),
    pytest.param(form(X=X, ids=npy(np.array(["a", "a"]))), 422, "/ids/1", id="two equal ids as .npy"),
    pytest.param(form(X=X, ids=npy(np.array(["a", ""]))), 422, "/ids/1", id="an empty id as .npy"),
    pytest.param(form(X=X, X_test=X), 422, "/y_test", id="X_test without y_test as parts"),
    pytest.param(
        form(X=X, X_test=X, y_test=npy(np.array([np.nan, 1]))),
        422,
        "/y_test/0",
        id="a held-out row without a label, .npy",
    ),
]

WRONG_ADDRESSES = [
    *(
        pytest.param(Sent(method, path), 405, None, id=f"{method} {path}")
        for method, path in [
            ("GET", "/fit"),
            ("PUT", "/fit"),
            ("DELETE", "/fit"),
            ("GET", "/query"),
            ("PATCH", "/label"),
            ("POST", "/projects"),
            ("DELETE", "/projects"),
            ("POST", "/projects/cats"),
            ("PUT", "/projects/cats"),
            ("PATCH", "/projects/cats"),
            ("DELETE", "/projects/cats/labels"),
            ("POST", "/projects/cats/labels"),
            ("GET", "/projects/cats/labels/0"),
            ("POST", "/strategies"),
            ("POST", "/healthz"),
            ("DELETE", "/metrics"),
            ("TRACE", "/fit"),
            ("BREW", "/fit"),
        ]
    ),
    *(
        pytest.param(Sent(method, path), 404, None, id=f"{method} {path[:40]}")
        for method, path in [
            ("GET", "/nothing"),
            ("POST", "/Fit"),
            ("POST", "/fit/"),
            ("GET", "/projects/"),
            ("GET", "/projects/dogs"),
            ("GET", "/projects/CATS"),
            ("DELETE", "/projects/dogs"),
            ("GET", "/projects/dogs/labels"),
            ("DELETE", "/projects/dogs/labels/0"),
            ("GET", "/projects/.."),
            ("GET", "/projects/%2e%2e"),
            ("GET", "/projects/..%2Fprojects%2Fcats"),
            ("DELETE", "/projects/..%2F..%2Fx"),
            ("GET", "/projects/%2Fetc%2Fpasswd"),
            ("DELETE", "/projects/.hidden"),
            ("GET", "/projects/cats%0A"),
            ("GET", "/projects/cats%00"),
            ("DELETE", "/projects/cats%20"),
            ("GET", "/projects/c%C3%A4ts"),
            ("GET", "/projects/%FF"),
            ("GET", "/projects/" + "a" * 65),
            ("GET", "/projects/" + "a" * 10_000),
            ("DELETE", "/projects/cats/labels/3"),
            ("DELETE", "/projects/cats/labels/8"),
            ("DELETE", "/projects/cats/labels/-1"),
            ("DELETE", "/projects/cats/labels/s0"),
            ("DELETE", "/projects/cats/labels/0.0"),
            ("DELETE", "/projects/cats/labels/0x0"),
            ("DELETE", "/projects/cats/labels/%D9%A0"),
            ("DELETE", "/projects/cats/labels/" + "9" * 18),
            ("DELETE", "/projects/cats/labels/" + "9" * 10_000),
            ("DELETE", "/projects/cats/labels/"),
        ]
    ),
    *(
        pytest.param(get(f"/projects?{text}"), 422, pointer, id=f"?{text[:40]}")
        for text, pointer in [
            ("limit=0", "/query/limit"),
            ("limit=1001", "/query/limit"),
            ("limit=-1", "/query/limit"),
            ("limit=1.0", "/query/limit"),
            ("limit=ten", "/query/limit"),
            ("limit=", "/query/limit"),
            ("limit=%D9%A1", "/query/limit"),
            ("limit=1%0A", "/query/limit"),
            ("limit=" + "9" * 5_000, "/query/limit"),
            ("limit=1&limit=2", "/query/limit"),
            ("after=../x", "/query/after"),
            ("after=", "/query/after"),
            ("after=%00", "/query/after"),
            ("after=a&after=b", "/query/after"),
            ("page=2", "/query/page"),
            ("page=2&page=3", "/query/page"),
            ("limit=0&after=/", ("/query/after", "/query/limit")),
        ]
    ),
    pytest.param(get("/projects/cats/labels", Accept="image/png"), 406, None, id="labels as a picture"),
    *(
        pytest.param(with_header(request, header, value), status, pointer, id=f"{header} {value.encode()!r} {what}")
        for header, value, status, pointer in [
            ("If-Match", '"6-1"', 412, None),
            ("If-Match", 'W/"6-1", "*"', 412, None),
            ("If-None-Match", "*", 412, None),
            ("If-Match", "", 422, "/headers/If-Match"),
            ("If-Match", "1", 422, "/headers/If-Match"),
            ("If-Match", '"1', 422, "/headers/If-Match"),
            ("If-Match", '"1" "2"', 422, "/headers/If-Match"),
            ("If-Match", '*, "1"', 422, "/headers/If-Match"),
            ("If-None-Match", 'w/"1"', 422, "/headers/If-None-Match"),
            ("If-None-Match", ", " * 4_000 + "x", 422, "/headers/If-None-Match"),
        ]
        for request, what in [
            (fit(project_id="cats"), "of an existing project"),
            (again(), "of a fit"),
            (label({"index": 3, "label": "cat"}), "of labels"),
            (Sent("DELETE", "/projects/cats"), "of a project to delete"),
            (Sent("DELETE", "/projects/cats/labels/0"), "of a label to retract"),
        ]
    ),
]

TABLE = [
    *WRONG_BODIES,
    *WRONG_NAMES,
    *WRONG_POOLS,
    *WRONG_LABELS,
    *WRONG_ESTIMATORS,
    *WRONG_QUESTIONS,
    *WRONG_ANSWERS,
    *WRONG_FORMS,
    *WRONG_ARRAYS,
    *WRONG_ADDRESSES,
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def client(data_dir):
    """A client of a service with three projects, its maximum: labels are strings (with ids), integers and booleans."""
    small = Settings(
        data_dir=data_dir,
        log_level="error",
        max_body_bytes=300_000,
        max_json_bytes=100_000,
        max_pool_cells=1_000,
        max_batch=50,
        max_projects=3,
    )
    client = create_app(small).test_client()
    rest = [None] * 6
    projects = {
        "cats": {"ids": [f"s{i}" for i in range(8)], "y": ["cat", "dog", *rest]},
        "digits": {"classes": [0, 1, 2], "y": [0, 1, *rest]},
        "flags": {"y": [False, True, *rest], "X_test": POOL[:2], "y_test": [False, True]},
    }
    for name, fields in projects.items():
        body = {"project_id": name, "X": POOL, "estimator": "logistic_regression", **fields}
        assert client.post("/fit", json=body).status_code == 201
    skip = {"project_id": "cats", "labels": [{"index": 2, "skip": True}]}
    assert client.post("/label", json=skip).status_code == 200
    return client


@dataclass(frozen=True)
class Seen:
    """The projects' versions, and all files and directories except the locks."""

    versions: dict
    files: dict

    @classmethod
    def now(cls, client, data_dir):
        versions = {name: client.get(f"/projects/{name}").json["version"] for name in PROJECTS}
        paths = [path for path in sorted(data_dir.rglob("*")) if path.name not in ("lock", "fit.lock")]
        return cls(versions, {path: path.read_bytes() if path.is_file() else None for path in paths})


@pytest.fixture(scope="module")
def seen(client, data_dir):
    """The snapshot after the previous test, in a list of one."""
    return [Seen.now(client, data_dir)]


@pytest.mark.parametrize(("request_", "status", "pointers"), TABLE)
def test_a_wrong_request(client, data_dir, seen, request_, status, pointers):
    reply = client.open(request_.path, method=request_.method, **request_.options)
    before, seen[:] = seen[0], [Seen.now(client, data_dir)]
    assert_problem(reply, status, pointers)
    assert seen[0].versions == before.versions
    assert seen[0].files.keys() == before.files.keys()
    assert seen[0].files == before.files


def assert_problem(reply, status, pointers):
    assert (reply.status_code, reply.mimetype) == (status, "application/problem+json"), reply.text
    body = reply.json
    keys = {"type", "title", "status", "detail", "request_id"}
    assert body.keys() == (keys if pointers is None else keys | {"errors"})
    assert body["status"] == status
    assert body["request_id"] == reply.headers["X-Request-ID"]
    assert len(reply.data) < 10_000
    if pointers is not None:
        assert all(error.keys() == {"pointer", "detail"} and error["detail"] for error in body["errors"])
        expected = (pointers,) if isinstance(pointers, str) else pointers
        assert tuple(error["pointer"] for error in body["errors"]) == expected, body["errors"]
    if status == 405:
        assert reply.headers["Allow"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(fit(), 201, id="a new project"),
        pytest.param(form(X=X), 201, id="a form"),
        pytest.param(again(), 200, id="a fit"),
        pytest.param(query(), 200, id="a question"),
        pytest.param(answer(), 200, id="a label"),
        pytest.param(label({"id": "s3", "label": "cat", "annotator": "a", "query_id": "q"}), 200, id="a label by id"),
        pytest.param(get("/projects?limit=1&after=a"), 200, id="a page of projects"),
    ],
)
def test_the_corrected_requests_succeed(tmp_path, request_, status):
    client = create_app(Settings(data_dir=tmp_path, log_level="error")).test_client()
    cats = {
        "project_id": "cats",
        "estimator": "logistic_regression",
        "X": POOL,
        "ids": [f"s{i}" for i in range(8)],
        "y": ["cat", "dog"] + [None] * 6,
    }
    client.post("/fit", json=cats)
    assert client.open(request_.path, method=request_.method, **request_.options).status_code == status


# Requests that do not fit in the table.


def test_too_many_annotators_are_refused(client, data_dir, monkeypatch):
    monkeypatch.setattr("service.usecases.label.MAX_ANNOTATORS", 10)
    project = Store(data_dir).read("cats").project
    full = replace(project, annotators=tuple(map(str, range(10))))
    known, new = SubmittedLabel(3, None, "cat", "7"), SubmittedLabel(4, None, "cat", "new")
    assert with_labels(full, [Answer(0, 3, known)])[1] == 1
    with pytest.raises(InvalidRequest) as caught:
        with_labels(full, [Answer(0, 3, known), Answer(1, 4, new)])
    assert [error.pointer for error in caught.value.errors] == ["/labels/1/annotator"]


@pytest.mark.parametrize("name", ["exclude", "candidates"])
def test_of_a_million_wrong_indices_the_first_few_are_collected(client, data_dir, name):
    asked = {"strategy": STRATEGIES["random"], "params": {}, name: np.arange(10**6)}
    with pytest.raises(InvalidRequest) as caught:
        query_project(Store(data_dir), QueryRequest("cats", **asked))
    assert [error.pointer for error in caught.value.errors] == [f"/{name}/{index}" for index in range(8, 29)]


@pytest.mark.parametrize(
    ("request_", "excerpt"),
    [
        (query(strategy="entropi"), "'entropi' is not a strategy: did you mean 'entropy'? GET /strategies lists all"),
        (query(strategy="x"), "'x' is not a strategy: GET /strategies lists all"),
        (again(estimator="svm"), "'svm' is not an estimator: did you mean 'svc'? GET /estimators lists all"),
        (again(estimator={"name": "svc", "params": {"gama": 1}}), "did you mean 'gamma'?"),
        (query(batch_size=51), "from 1 to 50 (AQ_MAX_BATCH)"),
        (query(lease_seconds=60), "it says who gets the lease"),
        (label({"index": 3, "label": "cat"}, refit="foreground"), "'wait' or 'background' or 'never'"),
        (with_header(again(), "If-Match", '"1"'), "project 'cats' has the ETag \""),
        (with_header(query(), "If-Match", '"1"'), "must be left out"),
        (with_header(fit(), "Content-Encoding", "br"), "send gzip or zstd, or none"),
        (form(X=("image/png", b"1,2")), "send application/x-npy or application/json or application/x-npz"),
        (form(y=("image/png", b"1,2")), "send application/x-npy or application/json or application/x-ndjson"),
        (form(X=npy(np.array([[{}]], object))), "nothing is unpickled"),
        (form(Z=X), "'Z' is not a part: X, X_test, config, ids, "),
        (form(y="[1,"), "part 'y' is not JSON"),
        (raw("/fit", b" " * 100_001), "send a large pool as multipart/form-data with .npy parts"),
        (fit(X=[[1, 2], [3]]), "has 1 numbers, but row 0 has 2"),
        (fit(X=[[0] * 26] * 40), "has 40 x 26 cells; AQ_MAX_POOL_CELLS allows 1000"),
        (fit(y=[1, "1"]), "is a string, but the first label is an integer"),
        (fit(ids=["a", "a"]), "is the same as entry 0"),
        (fit(), "as many as AQ_MAX_PROJECTS allows"),
        (again("dogs"), "there is no project 'dogs' yet"),
        (again("digits", classes=[0, 1]), "must include all classes of the project; 2 missing"),
        (label({"index": 3, "label": 3}, project_id="digits"), "not among the declared classes (0, 1, 2)"),
        (
            label({"index": 3, "label": True}, project_id="digits"),
            "true is a boolean; each label of this project is an",
        ),
        (label({"index": 2, "label": "cat"}), "DELETE /projects/cats/labels/2 retracts the skip"),
        (label({"index": 8, "label": "cat"}), "must be from 0 to 7"),
        (label({"index": 3, "labl": "cat"}), "did you mean 'label'?"),
        (fit(estimater="svc"), "'estimater' is not a field here: X, X_test, calibration, "),
        (fit(estimater="svc"), "did you mean 'estimator'?"),
        (fit(**{f"estimater{i}": 1 for i in range(200)}), "did you mean 'estimator'?"),
        (again(estimator={"name": "svc", "parms": {}}), "did you mean 'params'?"),
        (form(config='{"project_id": "new", "estimater": "svc"}', X=X), "did you mean 'estimator'?"),
        (query(batchSize=1), "did you mean 'batch_size'?"),
        (query(excluded=[1]), "did you mean 'exclude'?"),
        (answer(refitt="wait"), "did you mean 'refit'?"),
        (Sent("POST", "/projects/cats/pool", {"json": {"X": [[1, 2]], "idz": ["a"]}}), "did you mean 'ids'?"),
        (get("/projects?limits=1"), "did you mean 'limit'?"),
        (Sent("POST", "/projects/cats/pool", {"json": {"x": [[1, 2]]}}), "did you mean 'X'?"),
        (form(config='{"project_id": "new"}', x=X), "did you mean 'X'?"),
        (Sent("PUT", "/fit"), "use OPTIONS, POST"),
        (get("/projects/dogs"), "POST /fit with X creates one"),
    ],
)
def test_an_error_says_what_would_be_right(client, request_, excerpt):
    reply = client.open(request_.path, method=request_.method, **request_.options)
    assert excerpt in reply.json["detail"]
