"""Authorization: every endpoint has a role, hidden projects look missing, and no token is logged."""

from __future__ import annotations

import io
import itertools
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask, g
from flask.testing import FlaskClient
from werkzeug.exceptions import Forbidden

from service.app import create_app
from service.auth.keyfile import change_keys
from service.auth.keys import Caller, Keys, Role, new_key, new_token
from service.client import Client
from service.http import docs
from service.http.contract.operations import Operation
from service.http.middleware import auth
from service.http.routes import OPERATIONS
from service.settings import Settings
from tests.support.calls import FAST_ESTIMATOR, end_labels, line_pool
from tests.support.serving import Service

OPEN = {"get_health", "get_readiness", "get_openapi", "get_docs", "get_guide", "sign_in", "sign_out"}
KEYED = [operation for operation in OPERATIONS.all if operation.name not in OPEN]
OF_A_PROJECT = [operation for operation in KEYED if "<project_id>" in operation.path]
CREATES_ITS_PROJECT = [operation for operation in OF_A_PROJECT if operation.tag == "Label Studio"]
NAME_A_PROJECT = [
    operation
    for operation in KEYED
    if operation.body and "project_id" in operation.body().fields and operation.name != "fit_project"
]
SECRET = "a" * 43
LOGISTIC = {"name": "logistic_regression", "params": {}}


def path_of(operation: Operation, project_id: str = "team-a") -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda found: project_id if found[1] == "project_id" else "0", operation.path)


@dataclass(frozen=True)
class As:
    """A client with a token, or without one."""

    client: FlaskClient
    token: str | None

    def open(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return self.client.open(path, method=method, headers=headers, **options)

    def post(self, path: str, expect: int, **body: Any) -> Any:
        if path == "/fit" and "X" in body:
            body.setdefault("estimator", FAST_ESTIMATOR)
        response = self.open("POST", path, json=body)
        assert response.status_code == expect, response.text
        return response.json


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def someone(keys_file: Path, tmp_path: Path) -> Callable[..., As]:
    """Return a function that creates a key and returns a client with it."""
    change_keys(keys_file, lambda keys: keys.with_key(new_key(new_token(), "first", "admin", [], None)))
    app = create_app(Settings(data_dir=tmp_path / "data", log_level="error", api_keys_file=keys_file))
    numbers = itertools.count()

    def make(role: str | None = None, *projects: str, annotator: str | None = None) -> As:
        if role is None:
            return As(app.test_client(), None)
        token = new_token()
        key = new_key(token, f"{role}-{next(numbers)}", role, projects, annotator)
        change_keys(keys_file, lambda keys: keys.with_key(key))
        return As(app.test_client(), token)

    return make


@pytest.fixture
def admin(someone: Callable[..., As]) -> As:
    """An admin of all projects who has created two."""
    admin = someone("admin", "*")
    for name in ("team-a", "birds"):
        admin.post("/fit", 201, project_id=name, X=line_pool(), y=end_labels())
    return admin


# Every endpoint.


def test_every_endpoint_is_open_or_needs_a_role(app: Flask) -> None:
    assert {operation.name for operation in OPERATIONS.all if operation.role is None} == OPEN
    rules = {rule.endpoint for rule in app.url_map.iter_rules()}
    assert rules == {f"api.{operation.name}" for operation in OPERATIONS.all}


@pytest.mark.parametrize("operation", KEYED, ids=lambda operation: operation.name)
def test_each_endpoint_requires_its_role(operation: Operation, someone: Callable[..., As]) -> None:
    assert someone().open(operation.method, path_of(operation)).status_code == 401
    for role in Role:
        status = someone(str(role), "*").open(operation.method, path_of(operation)).status_code
        assert (status == 403) == (role < operation.role), (role, status)
        assert status != 401


@pytest.mark.parametrize(
    ("operation", "role"),
    [
        *(
            (name, Role.READER)
            for name in ("query_project", "list_projects", "get_project", "get_simulation", "get_metrics")
        ),
        *((name, Role.ANNOTATOR) for name in ("label_project", "retract_label", "simulate", "delete_simulation")),
        *((name, Role.ADMIN) for name in ("fit_project", "append_samples", "delete_project")),
    ],
)
def test_the_roles_of_endpoints_that_change_something(operation: str, role: Role) -> None:
    assert {each.name: each.role for each in OPERATIONS.all}[operation] == role


def test_every_get_is_open_or_a_readers() -> None:
    assert {operation.role for operation in OPERATIONS.all if operation.method == "GET"} == {None, Role.READER}


def test_open_endpoints_need_no_key(someone: Callable[..., As]) -> None:
    for path in ("/healthz", "/readyz", "/openapi.yaml", "/docs", "/docs/training"):
        assert someone().open("GET", path).status_code == 200
    assert someone().open("OPTIONS", "/fit").status_code == 200
    assert someone().open("GET", "/fit").status_code == 405
    assert someone().open("HEAD", "/projects").status_code == 401


def test_a_403_names_the_roles_that_suffice(admin: As, someone: Callable[..., As]) -> None:
    problem = someone("reader", "*").post("/label", 403, project_id="team-a", labels=[{"index": 3, "label": 0}])
    assert "needs a key with role annotator or admin; key 'reader-" in problem["detail"]
    assert admin.open("GET", "/projects/team-a").json["version"] == 1


def test_without_a_key_file_every_request_is_allowed(client: FlaskClient) -> None:
    As(client, None).post("/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    As(client, "nonsense").post("/query", 200, project_id="p")
    assert As(client, None).open("DELETE", "/projects/p").status_code == 204


# The header.


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b" ",
        b"Bearer",
        b"Bearer ",
        b"Bearer  ",
        b"Bearer " + SECRET.encode(),
        b"bearer " + SECRET.encode(),
        b"Bearer <token> ",
        b"Bearer <token> x",
        b"Bearer <token>\t",
        b"Bearer\t<token>",
        b"Bearer <token>,Bearer <token>",
        b"Bearer <token>, Basic YTpi",
        b'Bearer "<token>"',
        b"Bearer token=<token>",
        b"Bearer <token>=",
        b"Bearer \xc3\xa9",
        b"Bearer \xff\xfe\x00",
        b"\xc2\xa0Bearer <token>",
        b"<token>",
        b"Basic YTpi",
        b"Digest username=a",
        b"Bearer " + 100_000 * b"a",
        b"Bearer" + 100_000 * b" ",
    ],
    ids=lambda header: repr(header[:30]),
)
def test_an_invalid_authorization_header_is_refused(header: bytes, someone: Callable[..., As]) -> None:
    caller = someone("admin", "*")
    token = str(caller.token)
    value = header.replace(b"<token>", token.encode()).decode("latin-1")
    began = time.perf_counter()
    response = caller.client.get("/projects", environ_overrides={"HTTP_AUTHORIZATION": value})
    assert time.perf_counter() - began < 0.5
    assert (response.status_code, response.mimetype) == (401, "application/problem+json")
    assert response.headers["WWW-Authenticate"].startswith('Bearer realm="Active Query", error=invalid_')
    assert token not in response.text
    assert SECRET not in response.text


def test_without_a_header_the_challenge_names_no_error(someone: Callable[..., As]) -> None:
    response = someone().open("GET", "/projects")
    assert response.headers.getlist("WWW-Authenticate") == ['Bearer realm="Active Query"']
    assert "'Authorization: Bearer <key>'" in response.json["detail"]


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR "])
def test_the_scheme_is_case_insensitive(scheme: str, someone: Callable[..., As]) -> None:
    caller = someone("reader", "*")
    assert caller.client.get("/projects", headers={"Authorization": f"{scheme} {caller.token}"}).status_code == 200


class Untouched(io.RawIOBase):
    """A body that must not be read."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: Any) -> int:
        raise AssertionError("the body was read")


@pytest.mark.parametrize("role", [None, "reader", "annotator"])
@pytest.mark.parametrize("operation", ["/fit", "/projects/team-a/pool"])
def test_a_refused_request_is_not_read(
    operation: str, role: str | None, someone: Callable[..., As], tmp_path: Path
) -> None:
    caller = someone(role, "*")
    before = (tmp_path / "data/staging").stat().st_mtime_ns
    body = {"wsgi.input": Untouched(), "CONTENT_LENGTH": "1000000000", "CONTENT_TYPE": "application/json"}
    response = caller.open("POST", operation, environ_overrides=body)
    assert response.status_code == (403 if role else 401)
    assert (tmp_path / "data/staging").stat().st_mtime_ns == before


def test_no_token_is_logged(someone: Callable[..., As], caplog: pytest.LogCaptureFixture) -> None:
    caller, stranger = someone("reader", "*"), someone()
    logging.getLogger("service").setLevel(logging.DEBUG)
    logging.getLogger("service").addHandler(caplog.handler)
    caller.open("GET", "/projects")
    As(stranger.client, SECRET).open("GET", "/projects")
    assert [record.fields["route"] for record in caplog.records if hasattr(record, "fields")] == 2 * ["/projects"]
    assert caller.token not in caplog.text
    assert SECRET not in caplog.text


def test_an_unreadable_key_file_is_an_internal_error(keys_file: Path, tmp_path: Path) -> None:
    keys_file.write_text("{")
    app = create_app(Settings(data_dir=tmp_path / "data", log_level="error", api_keys_file=keys_file))
    caller = As(app.test_client(), new_token())
    response = caller.open("GET", "/projects")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert caller.open("GET", "/healthz").status_code == 200


# Projects.


def masked(response: Any, project_id: str) -> tuple[int, str, dict[str, str]]:
    """A reply without the parts that differ between any two requests."""
    headers = {
        name: value for name, value in response.headers.items() if name not in ("X-Request-ID", "Content-Length")
    }
    text = re.sub(r'"request_id":"\w+"', "", response.text)
    return response.status_code, text.replace(project_id, "<name>"), headers


BODIES: dict[str, Any] = {
    "query_project": {},
    "label_project": {"labels": [{"index": 3, "label": 0}]},
    "append_samples": {"X": [[0.5, 1.0]]},
    "simulate": {"strategies": ["random"]},
    "rename_project_classes": {"rename": {"0": 1}},
    "replace_labels": {"labels": []},
    "remove_samples": {"indices": [0]},
    "restore_samples": {"indices": [0]},
}


@pytest.mark.parametrize(
    "operation",
    OF_A_PROJECT + NAME_A_PROJECT,
    ids=lambda operation: operation.name,
)
def test_a_hidden_project_looks_like_a_missing_one(operation: Operation, admin: As, someone: Callable[..., As]) -> None:
    caller = someone("admin", "team-*")
    replies = []
    for project_id in ("birds", "stone", "team-z"):  # hidden, hidden if there were one, might be seen if there were one
        body = BODIES.get(operation.name)
        if operation in NAME_A_PROJECT:
            body = {"project_id": project_id, **BODIES[operation.name]}
        reply = caller.open(operation.method, path_of(operation, project_id), json=body)
        replies.append(masked(reply, project_id))
    assert replies[0][0] == 404
    assert replies[0] == replies[1]
    assert replies[2] == replies[0] or operation in CREATES_ITS_PROJECT
    assert admin.open("GET", "/projects/birds").json["version"] == 1


def test_pages_are_full_although_hidden_projects_are_left_out(admin: As, someone: Callable[..., As]) -> None:
    for name in ("ant", "team-b", "team-c", "zebra"):
        admin.post("/fit", 201, project_id=name, X=line_pool(2))
    caller = someone("reader", "team-*", "ant")
    found, after = [], ""
    while after is not None:
        page = caller.open("GET", f"/projects?limit=2{after and '&after=' + after}").json
        found.append([project["project_id"] for project in page["projects"]])
        after = page["next"]
    assert found == [["ant", "team-a"], ["team-b", "team-c"]]


def test_a_simulation_is_seen_by_the_keys_of_its_project_or_by_the_key_that_sent_it(
    admin: As, someone: Callable[..., As]
) -> None:
    caller, other, reader = someone("annotator", "team-*"), someone("annotator", "team-*"), someone("reader", "birds")
    rest = {
        "strategies": ["random"],
        "estimator": FAST_ESTIMATOR,
        "n_initial": 1,
        "repeats": 1,
        "budget": 1,
        "test_size": 0.3,
    }
    own = caller.post("/simulate", 202, X=line_pool(), y=[0, 1] * 10, **rest)["simulation_id"]
    admin.post("/label", 200, project_id="birds", labels=[{"index": 5, "label": 0}, {"index": 6, "label": 1}])
    of_birds = admin.post("/simulate", 202, project_id="birds", **rest)["simulation_id"]
    seen = {
        name: {each["simulation_id"] for each in who.open("GET", "/simulations").json["simulations"]}
        for name, who in (("caller", caller), ("other", other), ("reader", reader), ("admin", admin))
    }
    assert seen == {"caller": {own}, "other": set(), "reader": {of_birds}, "admin": {own, of_birds}}
    assert other.open("GET", f"/simulations/{own}").status_code == 404
    assert other.open("DELETE", f"/simulations/{own}").status_code == 404
    assert reader.open("DELETE", f"/simulations/{of_birds}").status_code == 403
    for simulation_id in seen["admin"]:
        assert admin.open("DELETE", f"/simulations/{simulation_id}").status_code == 204


def test_a_key_of_no_project_sees_none(admin: As, someone: Callable[..., As]) -> None:
    caller = someone("reader")
    assert caller.open("GET", "/projects").json == {"projects": [], "next": None}
    assert caller.open("GET", "/metrics").status_code == 200


@pytest.mark.parametrize("project_id", ["birds", "stone"])
@pytest.mark.parametrize("body", [{"X": line_pool(3)}, {"X": line_pool(3), "replace": True}, {}])
def test_a_key_cannot_create_or_train_other_projects(
    project_id: str, body: dict[str, Any], admin: As, someone: Callable[..., As]
) -> None:
    problem = someone("admin", "team-*", "ant").post("/fit", 403, project_id=project_id, **body)
    assert f"may not create or train project '{project_id}'; it may access: team-*, ant" in problem["detail"]
    assert [each["project_id"] for each in admin.open("GET", "/projects").json["projects"]] == ["birds", "team-a"]
    assert admin.open("GET", "/projects/birds").json["version"] == 1


def test_a_key_can_create_query_and_delete_its_projects(someone: Callable[..., As]) -> None:
    caller = someone("admin", "team-*")
    caller.post("/fit", 201, project_id="team-x", X=line_pool(), y=end_labels())
    caller.post("/query", 200, project_id="team-x")
    assert caller.open("DELETE", "/projects/team-x").status_code == 204


# Annotators.


def labels(caller: As) -> dict[int, str | None]:
    """The annotator of each label of team-a."""
    records = caller.open("GET", "/projects/team-a/labels").json["labels"]
    return {record["index"]: record["annotator"] for record in records}


def test_labels_count_as_the_annotators_of_the_key(admin: As, someone: Callable[..., As]) -> None:
    ada = someone("annotator", "*", annotator="ada")
    records = [{"index": 3, "label": 0}, {"index": 4, "label": 1, "annotator": "ada"}, {"index": 5, "skip": True}]
    ada.post("/label", 200, project_id="team-a", labels=records)
    assert {index: name for index, name in labels(ada).items() if name} == {3: "ada", 4: "ada", 5: "ada"}


def test_a_key_of_an_annotator_cannot_name_another(admin: As, someone: Callable[..., As]) -> None:
    ada = someone("annotator", "*", annotator="ada")
    records = [{"index": 3, "label": 0}, {"index": 4, "label": 0, "annotator": "bob"}]
    problem = ada.post("/label", 403, project_id="team-a", labels=records)
    assert problem["detail"].startswith("/labels/1/annotator: must be 'ada' or left out")
    problem = ada.post("/query", 403, project_id="team-a", annotator="bob")
    assert problem["detail"].startswith("/annotator: must be 'ada' or left out")
    assert admin.open("GET", "/projects/team-a").json["version"] == 1


def test_a_key_of_an_annotator_retracts_only_its_own_labels(admin: As, someone: Callable[..., As]) -> None:
    ada, bob = (someone("annotator", "*", annotator=name) for name in ("ada", "bob"))
    ada.post("/label", 200, project_id="team-a", labels=[{"index": 3, "label": 0}, {"index": 4, "label": 0}])
    bob.post("/label", 200, project_id="team-a", labels=[{"index": 4, "label": 1}])
    assert ada.open("DELETE", "/projects/team-a/labels/3").status_code == 204
    for others in (0, 4):
        problem = ada.open("DELETE", f"/projects/team-a/labels/{others}")
        assert (problem.status_code, "annotators other than 'ada'" in problem.json["detail"]) == (403, True)
    assert labels(admin).keys() == {0, 4, 19}
    assert someone("annotator", "*").open("DELETE", "/projects/team-a/labels/4").status_code == 204


@pytest.mark.parametrize(("role", "may"), [(Role.READER, False), (Role.ANNOTATOR, True), (Role.ADMIN, True)])
def test_a_reader_cannot_lease_samples(role: Role, may: bool, app: Flask) -> None:
    with app.test_request_context():
        g.caller = Caller("k", role, ("*",))
        asked = {"lease_seconds": 60, "annotator": "ada"}
        if may:
            assert auth.with_query_annotator(asked) == asked
        else:
            with pytest.raises(Forbidden, match="role annotator or admin"):
                auth.with_query_annotator(asked)


def test_a_lease_belongs_to_the_annotator_of_the_key(app: Flask) -> None:
    with app.test_request_context():
        g.caller = Caller("k", Role.ANNOTATOR, ("*",), "ada")
        assert auth.with_query_annotator({"lease_seconds": 60})["annotator"] == "ada"


def test_a_key_of_an_annotator_cannot_change_leases_of_others(admin: As, someone: Callable[..., As]) -> None:
    ada, bob = (someone("annotator", "*", annotator=name) for name in ("ada", "bob"))
    lease = ada.post("/query", 200, project_id="team-a", lease_seconds=60)
    path = f"/projects/team-a/leases/{lease['query_id']}"
    assert bob.post(f"{path}/renew", 403)["detail"].startswith("this lease belongs to 'ada'")
    assert bob.open("DELETE", path).status_code == 403
    assert someone("reader", "*").open("GET", "/projects/team-a/leases").json["leases"][0]["annotator"] == "ada"
    assert ada.post(f"{path}/renew", 200)["indices"] == lease["indices"]
    assert someone("annotator", "*").open("DELETE", path).status_code == 204


# The contract.


def test_the_page_describes_keys_and_roles() -> None:
    page = docs.reference_page()
    assert "Authorization: Bearer $KEY" in page
    assert page.count("Lowest role of a key: ") == len(KEYED)
    assert page.count("Needs no key.") == len(OPEN)


# A real server.


@pytest.fixture
def served(serve: Callable[..., Service], keys_file: Path) -> Iterator[tuple[Service, str]]:
    token = new_token()
    change_keys(keys_file, lambda keys: keys.with_key(new_key(token, "ada", "admin", ["*"], None)))
    yield serve(AQ_API_KEYS_FILE=str(keys_file), AQ_LOG_LEVEL="debug"), token


def exchange(port: int, *head: str, body: bytes = b"") -> tuple[bytes, int]:
    """Send a head and a repeated body of up to 64 MB; return the reply, and the bytes that were accepted."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join([*head, "Host: localhost", "", ""]).encode("latin-1"))
        reply, n_sent = connection.recv(4000), 0
        try:
            while body and n_sent < 2**26:
                n_sent += connection.send(body)
        except OSError:
            pass
        return reply, n_sent


def test_bodies_without_a_key_are_not_read_and_keys_reload(
    served: tuple[Service, str], keys_file: Path, tmp_path: Path
) -> None:
    service, token = served
    form = "Content-Type: multipart/form-data; boundary=x"
    for framing in ("Content-Length: 1000000000", "Transfer-Encoding: chunked"):
        reply, n_taken = exchange(
            service.port, "POST /fit HTTP/1.1", form, framing, body=b"10000\r\n" + b"a" * 2**16 + b"\r\n"
        )
        assert reply.startswith(b"HTTP/1.1 401 ")
        assert n_taken < 2**24, "more than a socket holds was taken from a stranger"
    assert {path.name for path in (tmp_path / "data/staging").iterdir()} <= {"lock"}

    Client(f"http://127.0.0.1:{service.port}", token).fit("p", np.eye(2), [0, 1], estimator=LOGISTIC)
    bearer = f"Authorization: Bearer {token}"
    assert exchange(service.port, "GET /projects HTTP/1.1", bearer)[0].startswith(b"HTTP/1.1 200 ")
    assert exchange(service.port, "GET /projects HTTP/1.1", bearer, bearer)[0].startswith(b"HTTP/1.1 401 ")
    assert exchange(service.port, "GET /projects HTTP/1.1", f"{bearer} {'a' * 10**5}")[0].startswith(b"HTTP/1.1 4")
    assert exchange(service.port, "GET /projects HTTP/1.1", f"{bearer}\xe9")[0].startswith(b"HTTP/1.1 40")
    assert exchange(service.port, f"GET /projects HTTP/1.1\r\nAuthorization:\x00{token}")[0].startswith(b"HTTP/1.1 40")

    assert service.call("POST", "/query", {"project_id": "p"}, {"Authorization": f"Bearer {token}"}).status == 200
    change_keys(keys_file, lambda _: Keys([new_key(new_token(), "bob", "admin", ["*"], None)]))
    headers = {"Authorization": f"Bearer {token}"}
    assert {service.call("GET", "/projects", headers=headers).status for _ in range(20)} == {401}
    assert service.stop() == 0
    assert token not in service.log.read_text()
