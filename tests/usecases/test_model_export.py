"""The model as skops and ONNX: loaded in a process without this package, it predicts the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.http.routes import model as routes
from service.settings import Settings
from tests.support.calls import get, post
from tests.support.estimators import CLASSIFIERS

QUICK = {
    "auto": {"n_estimators": 10},
    "random_forest": {"n_estimators": 10},
    "extra_trees": {"n_estimators": 10},
    "hist_gradient_boosting": {"max_iter": 10},
    "mlp": {"max_iter": 20},
}
# skl2onnx reads attributes of SVC that scikit-learn has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute `prob[AB]_` was deprecated:FutureWarning")

FORESTS = ("random_forest", "extra_trees")
N = 45
RNG = np.random.default_rng(0)
CODES = np.arange(N) % 3
X = (RNG.normal(size=(N, 4)) * [1, 100, 0.01, 5] + CODES[:, np.newaxis] * [1, 0, 0.02, 3] + [0, 50, 0, 0]).round(4)
GAPPY = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
LABELS: dict[str, list[Any]] = {
    "text": [["ant", "bee", "cat"][code] for code in CODES],
    "integers": [[-2, 7, 30][code] for code in CODES],
    "booleans": [bool(code) for code in CODES],
}

# Reads [format, file, X] for each model, without the packages of this directory, and writes what they predict.
READER = """
import json, sys
import numpy as np
sys.path[:] = [path for path in sys.path if path not in ("", {root!r})]
found = []
for kind, file, X in json.load(sys.stdin):
    X = np.array(X, np.float64)
    if kind == "skops":
        import skops.io
        types = skops.io.get_untrusted_types(file=file)
        model = skops.io.load(file, trusted=types)
        found.append([model.predict(X).tolist(), model.predict_proba(X).tolist(), types])
    else:
        import onnxruntime
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        label, probabilities = session.run(None, {{"X": X.astype(np.float32)}})
        found.append([label.tolist(), probabilities.tolist(), []])
assert "service" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"), log_level="error")).test_client()


def load_elsewhere(models: list[tuple[str, Path, Any]]) -> list[Any]:
    """Return labels, probabilities and untrusted types of models that another process loads."""
    code = READER.format(root=str(Path(__file__).parents[2]))
    rows = [(kind, str(file), np.asarray(X).tolist()) for kind, file, X in models]
    process = subprocess.run(
        [sys.executable, "-I", "-c", code], input=json.dumps(rows), capture_output=True, text=True, check=True
    )
    found: list[Any] = json.loads(process.stdout)
    return found


def make(client: FlaskClient, name: str, rows: Any, y: list[Any], estimator: str, **fields: Any) -> Any:
    spec = {"name": estimator, "params": QUICK.get(estimator, {})}
    rows = np.where(np.isnan(rows), None, rows).tolist()
    return post(client, "/fit", 201, project_id=name, X=rows, y=y, estimator=spec, **fields)


def predictions(client: FlaskClient, name: str) -> tuple[list[Any], Any]:
    found = get(client, f"/projects/{name}/predictions?probabilities=true")["predictions"]
    return [each["label"] for each in found], np.array([each["probabilities"] for each in found])


@pytest.mark.slow
def test_every_model_predicts_the_same_in_another_process(client: FlaskClient, tmp_path: Path) -> None:
    cases = []
    for estimator in CLASSIFIERS:
        more = [(X, "integers"), (X, "booleans")] if estimator in ("logistic_regression", "mlp") else []
        gappy = [(GAPPY, "text")] if estimator in ("gaussian_nb", "random_forest") else []
        for rows, labels in ((X, "text"), *gappy, *more):
            name = f"{estimator}-{labels}-{rows is GAPPY}"
            make(client, name, rows, LABELS[labels], estimator, missing_values="allow" if rows is GAPPY else "refuse")
            for kind in ("skops", "onnx"):
                response = client.get(f"/projects/{name}/model?format={kind}")
                is_inexact = estimator == "hist_gradient_boosting" or (rows is GAPPY and estimator in FORESTS)
                if kind == "onnx" and is_inexact:
                    assert (response.status_code, "skops takes all" in response.json["detail"]) == (422, True)
                    continue
                assert response.status_code == 200, (name, response.json)
                (tmp_path / f"{name}.{kind}").write_bytes(response.data)
                cases.append((name, (kind, tmp_path / f"{name}.{kind}", rows)))
    for (name, (kind, _, _)), (labels, shares, types) in zip(cases, load_elsewhere([c for _, c in cases]), strict=True):
        wanted, P = predictions(client, name)
        assert np.abs(np.array(shares) - P).max() < (1e-6 if kind == "skops" else 1e-4), (name, kind)
        assert labels == [int(label) if kind == "onnx" and label in (True, False) else label for label in wanted]
        assert all(each.startswith(("sklearn.", "numpy.")) for each in types)


def test_a_model_that_has_no_such_format_is_refused_with_the_reason(client: FlaskClient) -> None:
    make(client, "few", X[:6], LABELS["text"][:6], "svc")
    assert "svc can be exported once" in client.get("/projects/few/model").json["detail"]
    post(client, "/fit", 201, project_id="words", texts=["a b", "b c", "c d", "d e"], y=["x", "z", None, None])
    assert "reads texts" in client.get("/projects/words/model").json["detail"]
    post(client, "/fit", 201, project_id="cold", X=X.tolist())
    assert client.get("/projects/cold/model").status_code == 409
    assert client.get("/projects/none/model").status_code == 404
    assert client.get("/projects/few/model?format=pickle").json["errors"][0]["pointer"] == "/query/format"
    assert client.get("/projects/few/model", headers={"Accept": "text/csv"}).status_code == 406


def test_a_format_is_chosen_by_accept_and_has_an_etag_of_its_own(client: FlaskClient) -> None:
    make(client, "etag", X, LABELS["text"], "gaussian_nb")
    skops = client.get("/projects/etag/model", headers={"Accept": "application/octet-stream"})
    onnx = client.get("/projects/etag/model", headers={"Accept": "application/x-onnx"})
    assert [reply.mimetype for reply in (skops, onnx)] == ["application/octet-stream", "application/x-onnx"]
    assert skops.headers["Content-Disposition"] == 'attachment; filename="etag.skops"'
    assert skops.headers["ETag"] != onnx.headers["ETag"]
    again = client.get("/projects/etag/model", headers={"If-None-Match": skops.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("kind", ["skops", "onnx"])
def test_a_format_without_its_library_is_not_offered(client: FlaskClient, monkeypatch: Any, kind: str) -> None:
    monkeypatch.setattr(routes, "find_spec", lambda name: None)
    response = client.get(f"/projects/any/model?format={kind}")
    assert (response.status_code, f"active-query[{kind}]" in response.json["detail"]) == (406, True)
