"""`service.client`: each call against a real service, and what it does when the service is busy or away."""

from __future__ import annotations

import ast
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from service import client as module
from service.client import Batch, Client, ServiceError
from tests.support.calls import FAST_ESTIMATOR, end_labels, line_pool
from tests.support.serving import Service

POOL = np.array(line_pool())


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("client")
    service = Service(folder / "data", folder / "log").start()
    yield Client(f"http://127.0.0.1:{service.port}/")
    service.stop()


@pytest.fixture
def project(client: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    """A project with a label at each end of a line."""
    name = request.node.name.translate(str.maketrans("[]-", "___"))[-60:]
    client.fit(name, POOL, end_labels(low="low", high="high"), estimator=FAST_ESTIMATOR)
    yield name
    client.delete(name)


LABELS = [*["low"] * 10, *["high"] * 10]


@pytest.mark.parametrize("kind", ["list", "array", "objects", "csv", "npy"])
def test_a_pool_is_a_list_an_array_or_a_file(client: Client, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"pool.{kind}"
    if kind == "csv":
        file.write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in POOL))
    elif kind == "npy":
        np.save(file, POOL)
    pool = {"list": POOL.tolist(), "array": POOL, "objects": POOL.astype(object)}.get(kind, file)
    y = np.array(LABELS) if kind == "array" else LABELS
    reply = client.fit(kind, pool, y, ids=[f"n{n}" for n in range(20)], X_test=POOL[:2], y_test=["low", "low"])
    assert (reply["n_samples"], reply["n_features"], reply["classes"]) == (20, 2, ["high", "low"])
    assert reply["test_score"]["accuracy"] == 1.0
    assert reply["feature_names"] == (["a", "b"] if kind == "csv" else None)
    assert client.append(kind, POOL[:1], ids=["late"])["n_samples"] == 21
    client.delete(kind)


def test_batches_end_when_nothing_is_left_to_ask(client: Client, project: str) -> None:
    asked = []
    for batch in client.batches(project, 5, strategy="margin"):
        asked += batch.indices
        labels = {index: None if index == 7 else LABELS[index] for index in np.array(batch.indices)}
        client.label(project, labels, annotator="ada", query_id=batch.query_id, refit="never")
    assert sorted(asked) == list(range(1, 19))
    stored = {record["index"]: record for record in client.labels(project)}
    assert (stored[7]["skip"], stored[8]["annotator"], stored[8]["query_id"] is not None) == (True, "ada", True)
    assert (client.project(project)["n_skipped"], client.query(project).indices) == (1, [])


def test_labels_are_given_by_id_or_as_records(client: Client) -> None:
    client.fit("ids", POOL, ids=[f"n{n}" for n in range(20)])
    client.label("ids", {"n0": "low", "n19": "high"}, by="id")
    reply = client.label("ids", [{"index": 1, "label": "low", "annotator": "ada"}, {"id": "n2", "skip": True}])
    assert (reply["n_labeled"], reply["n_skipped"]) == (3, 1)
    assert client.query("ids", 2).ids is not None
    client.delete("ids")


def test_predictions_come_from_all_pages(client: Client, project: str) -> None:
    found = list(client.predictions(project, limit=7, probabilities=True))
    assert [each["index"] for each in found] == list(range(20))
    assert len(found[0]["probabilities"]) == 2


def test_a_project_is_exported_and_imported(client: Client, project: str, tmp_path: Path) -> None:
    archive = client.export(project)
    (tmp_path / "archive.zip").write_bytes(archive)
    assert client.import_archive(archive, "copy-1")["n_samples"] == 20
    assert client.import_archive(tmp_path / "archive.zip", "copy-2")["n_labeled"] == 2
    assert client.labels("copy-1") == client.labels("copy-2") == client.labels(project)
    for name in ("copy-1", "copy-2"):
        client.delete(name)


def test_a_model_of_ones_own_needs_no_project(client: Client) -> None:
    batch = client.query(probabilities=np.array([[0.9, 0.1], [0.5, 0.5]]), strategy="margin")
    assert batch.indices == [1]


def test_a_refused_request_names_the_wrong_field(client: Client) -> None:
    with pytest.raises(ServiceError, match=r"POST /query: 422 .*'entropi' is not a strategy.*'entropy'") as refused:
        client.query("nothing", strategy="entropi")
    assert (refused.value.status, refused.value.errors[0]["pointer"]) == (422, "/strategy")
    with pytest.raises(ServiceError, match=r"its name must end in \.arrow"):
        client.fit("p", Path("pool.xlsx"))


@pytest.mark.slow
def test_a_loop_goes_on_when_the_service_is_killed_and_started_again(serve: Callable[..., Service]) -> None:
    service = serve(AQ_WORKERS="1")
    client = Client(f"http://127.0.0.1:{service.port}", retries=20)
    client.fit("p", POOL, end_labels(low="low", high="high"), estimator=FAST_ESTIMATOR)
    asked, restart = [], threading.Thread(target=service.start)
    for nth, batch in enumerate(client.batches("p", 6)):
        if nth == 1:
            service.kill()
            restart.start()
        client.label("p", {index: LABELS[index] for index in batch.indices}, refit="never")
        asked += batch.indices
    restart.join()
    assert sorted(asked) == list(range(1, 19))
    assert [event["kind"] for event in client.events("p")].count("label") == 3
    assert [sample["status"] for sample in client.samples("p")] == ["labeled"] * 20


def test_samples_are_removed_and_put_back_and_labels_taken_back(client: Client, project: str) -> None:
    assert client.remove(project, [3, 19])["n_labeled"] == 1
    assert [sample["index"] for sample in client.samples(project, "removed")] == [3, 19]
    assert client.restore(project, [3, 19])["n_labeled"] == 2
    assert client.retract(project, [0], refit="never")["n_labeled"] == 1
    assert client.report(project)["verdict"]


class Busy(BaseHTTPRequestHandler):
    """Answers with the statuses of a list, one after the other, and records the requests; 0 = no answer."""

    statuses: ClassVar[list[int]] = []
    seen: ClassVar[list[tuple[str, str | None, bytes]]] = []

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.command, self.headers["Idempotency-Key"], body))
        status = self.statuses.pop(0)
        if status == 0:
            self.close_connection = True
            return
        reply = json.dumps({"detail": "busy", "query_id": "q", "indices": [], "ids": None}).encode()
        self.send_response(status)
        if status in (409, 503):
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def busy() -> Iterator[Client]:
    server = HTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Busy.seen.clear()
    yield Client(f"http://127.0.0.1:{server.server_port}", retries=2)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("statuses", [[200], [503, 200], [0, 503, 200], [409, 200]])
def test_a_request_is_sent_again_with_the_same_key(busy: Client, statuses: list[int]) -> None:
    Busy.statuses[:] = statuses
    busy.label("p", {1: "a"})
    assert len(Busy.seen) == len(statuses)
    assert len(set(Busy.seen)) == 1
    assert Busy.seen[0][1]
    Busy.statuses[:] = [200]
    busy.label("p", {1: "a"})
    assert Busy.seen[-1][1] != Busy.seen[0][1]


@pytest.mark.parametrize(("statuses", "error"), [([503] * 3, "503"), ([422], "422"), ([0] * 3, "does not answer")])
def test_a_request_that_fails_for_good_is_an_error(busy: Client, statuses: list[int], error: str) -> None:
    Busy.statuses[:] = statuses
    with pytest.raises(ServiceError, match=error):
        busy.query("p")
    assert Busy.statuses == []


def test_a_delete_that_may_have_arrived_is_not_sent_again(busy: Client) -> None:
    Busy.statuses[:] = [0]
    with pytest.raises(ServiceError, match="does not answer"):
        busy.delete("p")


def test_a_batch_has_the_whole_reply() -> None:
    assert Batch("q", [1], None, {"strategy": "margin"}).reply["strategy"] == "margin"


def test_the_client_imports_only_numpy() -> None:
    nodes = [node for node in ast.walk(ast.parse(Path(module.__file__).read_text())) if isinstance(node, ast.stmt)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {each.split(".")[0] for each in modules} - sys.stdlib_module_names == {"numpy"}


def test_a_url_without_a_scheme_is_an_error() -> None:
    with pytest.raises(ServiceError, match="http://"):
        Client("localhost:8000")
