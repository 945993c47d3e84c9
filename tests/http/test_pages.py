"""The pages for people: every state of a project, no script, and API keys in a cookie that only the pages accept."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import Client
from werkzeug.wrappers import Response

from service.app import create_app
from service.auth.keyfile import change_keys
from service.auth.keys import new_key, new_token
from service.domain.project import TargetName
from service.http.plots import are_plots_installed
from service.settings import Settings
from service.strategies import check_target, resolve_strategy
from tests.support.calls import get, post
from tests.support.serving import wait_until

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).tolist()
LABELS = ["cat" if row[0] > 0 else "dog" for row in X]
LONG = "n" * 20 + "-" + "m" * 39


class Links(HTMLParser):
    """The tags of a page, and the addresses that it names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.attributes: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action")]


def page(client: FlaskClient, path: str, status: int = 200, **options: Any) -> str:
    """Get a page, and check what holds for each."""
    reply = client.open(path, **options)
    assert (reply.status_code, reply.mimetype) == (status, "text/html")
    found = Links(reply.text)
    assert "script" not in found.tags
    assert not [name for name in found.attributes if name.startswith("on") or name == "style"]
    assert all(re.match(r"data:|\.{1,2}/|#|https?://pictures\.example/", address) for address in found.addresses)
    style = reply.text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    return reply.text


def fit(client: FlaskClient, name: str = "p", **fields: Any) -> None:
    post(client, "/fit", 201, project_id=name, **{"X": X, "estimator": "gaussian_nb"} | fields)


STATES: dict[str, tuple[dict[str, Any], str]] = {
    "cold": ({}, "There is no model yet"),
    "one class": ({"y": ["cat"] * 5 + [None] * 35}, "There is no model yet"),
    "some labels": ({"y": LABELS[:20] + [None] * 20}, "Continue"),
    "finished": ({"y": LABELS}, "Nothing is left to ask"),
    "60 characters": ({"name": LONG, "y": LABELS[:20] + [None] * 20}, LONG),
    "many classes": ({"y": [f"class {i}" for i in range(39)] + [None]}, "27 more classes"),
    "hostile labels": ({"y": ["<script>alert(1)</script>", "b"] * 10 + [None] * 20}, "&lt;script&gt;"),
    "booleans and ids": ({"y": [True, False] * 10 + [None] * 20, "ids": [f"id {i}" for i in range(40)]}, "true"),
    "one feature": ({"X": [[row[0]] for row in X], "y": LABELS[:20] + [None] * 20}, "Next batch"),
    "a single sample": ({"X": [[1.0, 2.0]]}, "Next batch"),
}


@pytest.mark.parametrize(("fields", "text"), STATES.values(), ids=STATES)
def test_every_state_of_a_project_has_its_page(client: FlaskClient, fields: dict[str, Any], text: str) -> None:
    fit(client, **fields)
    assert text in page(client, f"/projects/{fields.get('name', 'p')}/page")


def test_a_project_whose_first_fit_is_not_done_says_so(client: FlaskClient) -> None:
    fit(client)
    records = [{"index": i, "label": LABELS[i]} for i in range(10)]
    post(client, "/label", project_id="p", labels=records, refit="never")
    assert "the first fit is not done" in page(client, "/projects/p/page")


def test_the_page_of_a_project_shows_its_evidence_and_changes_nothing(client: FlaskClient) -> None:
    fit(client, y=LABELS[:10] + [None] * 30)
    asked = post(client, "/query", project_id="p", batch_size=10, strategy="margin")
    records = [{"index": i, "label": LABELS[i], "annotator": "ada"} for i in asked["indices"]]
    post(client, "/label", project_id="p", labels=records, query_id=asked["query_id"])
    post(client, "/label", project_id="p", labels=[{"index": 39, "label": "cat"}], refit="never")
    before = get(client, "/projects/p")
    text = page(client, "/projects/p/page")
    for shown in ("margin", "ada: 10", "not up to date", "Learning curve", "Suspect labels", "<picture>"):
        assert shown in text
    asked = post(client, "/query", project_id="p", batch_size=10)
    assert all(f"Sample {index}<" in text for index in asked["indices"])
    assert get(client, "/projects/p") == before
    assert get(client, "/projects/p/leases") == {"leases": []}


def test_samples_are_shown_with_their_text_and_web_address_alone(client: FlaskClient) -> None:
    texts = [f"mail {i} <b>win</b>" for i in range(12)]
    urls = ["https://pictures.example/1.png", "javascript:alert(1)"] + ["https://pictures.example/2.png"] * 10
    reply = client.post("/fit", json={"project_id": "p", "texts": texts, "urls": urls, "text": {"n_features": 256}})
    if reply.status_code == 422:  # the service itself refuses such an address
        urls[1] = urls[0]
        reply = client.post("/fit", json={"project_id": "p", "texts": texts, "urls": urls, "text": {"n_features": 256}})
    assert reply.status_code == 201, reply.text
    text = page(client, "/projects/p/page")
    assert "&lt;b&gt;win" in text and 'href="javascript' not in text and "https://pictures.example/" in text


def test_the_list_of_projects_comes_in_pages(client: FlaskClient) -> None:
    assert "no project yet" in page(client, "/")
    for name in ("a", "b", "c"):
        fit(client, name)
    first = page(client, "/?limit=2")
    assert 'href="./projects/a/page"' in first and "projects/c/page" not in first
    assert 'href="./?after=b"' in first
    assert "projects/c/page" in page(client, "/?after=b")
    assert "<code>limit</code> must be" in page(client, "/?limit=0", 422)
    assert "<code>order</code> &#39;order&#39; is not a field" in page(client, "/?order=name", 422)


def test_a_missing_project_is_a_page_too(client: FlaskClient) -> None:
    assert "Not found" in page(client, "/projects/nowhere/page", 404)


def test_a_busy_service_shows_what_it_knows_already(client: FlaskClient, app: Flask) -> None:
    fit(client, y=LABELS)
    admission = app.extensions["active-query"].admission
    with admission.enter(), admission.enter(), admission.enter(), admission.enter():
        assert "There is no advice at the moment" in page(client, "/projects/p/page")


def test_a_simulation_is_started_and_watched_on_pages(client: FlaskClient) -> None:
    fit(client, y=LABELS)
    assert 'action="./page/simulations"' in page(client, "/projects/p/page")
    form = {"strategies": ["margin"], "batch_size": "5", "budget": "10", "repeats": "1"}
    reply = client.post("/projects/p/page/simulations", data=form)
    assert reply.status_code == 303, reply.text
    path = reply.headers["Location"].removeprefix("../../..")
    wait_until(lambda: "Refresh" not in client.get(path).headers)
    text = page(client, path)
    assert "Done" in text and "Labels saved" in text and "<picture>" in text
    assert get(client, path.removesuffix("/page"))["result"]["recommendation"][:20] in text
    page(client, "/simulations/nothing/page", 404)


def test_a_simulation_that_has_not_ended_loads_again_unless_told_not_to(client: FlaskClient) -> None:
    fit(client, y=LABELS)
    body = {"project_id": "p", "strategies": ["margin"], "estimator": "random_forest", "budget": 20, "repeats": 20}
    path = f"/simulations/{post(client, '/simulate', 202, **body)['simulation_id']}/page"
    assert client.get(path).headers["Refresh"] == "4"
    still = client.get(f"{path}?reload=no")
    assert "Refresh" not in still.headers and 'href="./page"' in still.text
    client.delete(path.removesuffix("/page"))
    assert "Cancelled" in page(client, path)


@pytest.mark.parametrize(
    ("y", "target", "has_classes"),
    [([row[0] for row in X], "number", False), ([["a"] if row[0] > 0 else [] for row in X], "labels", True)],
)
def test_a_page_shows_and_offers_what_its_target_has(
    client: FlaskClient, y: list[Any], target: TargetName, has_classes: bool
) -> None:
    fit(client, y=y, target=target, X_test=X[:10], y_test=y[:10], estimator="k_neighbors")
    text = page(client, "/projects/p/page")
    assert ("Classes</h2>" in text, "Suspect" in text) == (has_classes, has_classes)
    offered = re.findall('name="strategies" value="([^"]+)"', text)
    assert len(offered) == 3
    for name in offered:
        check_target(*resolve_strategy(name, {}), target)
    curve = client.get("/projects/p/learning-curve", headers={"Accept": "image/svg+xml"}).text
    assert (" %" in curve) == (target != "number")


@pytest.mark.parametrize("change", [{"budget": "ten"}, {"repeats": "0"}, {"strategies": "entropi"}, {"batch_size": ""}])
def test_a_wrong_simulation_says_what_is_wrong(client: FlaskClient, change: dict[str, str]) -> None:
    fit(client, y=LABELS)
    form = {"strategies": "margin", "batch_size": "5", "budget": "10", "repeats": "1"} | change
    reply = client.post("/projects/p/page/simulations", data=form)
    assert (reply.status_code, reply.mimetype) == (422, "text/html")
    (name,) = change
    assert f'aria-describedby="{name}-problem"' in reply.text  # the field says what is wrong, and the others are kept
    assert all(f'value="{value}"' in reply.text for value in form.values() if value != "entropi")
    assert get(client, "/simulations") == {"simulations": []}


def test_another_site_cannot_start_a_simulation(client: FlaskClient) -> None:
    fit(client, y=LABELS)
    form = {"strategies": "margin", "batch_size": "5", "budget": "10", "repeats": "1"}
    headers = {"Sec-Fetch-Site": "cross-site"}
    text = page(client, "/projects/p/page/simulations", 403, method="POST", data=form, headers=headers)
    assert "Not allowed" in text and "pages of this service" in text


def test_a_simulation_of_too_few_labels_keeps_its_form(client: FlaskClient) -> None:
    fit(client, y=LABELS[:4] + [None] * 36)
    form = {"strategies": "margin", "batch_size": "7", "budget": "10", "repeats": "1"}
    text = page(client, "/projects/p/page/simulations", 422, method="POST", data=form)
    assert "leaves nothing to ask" in text and 'value="7"' in text and 'href="../page"' in text


def test_metrics_count_pages_by_their_route(client: FlaskClient) -> None:
    client.get("/projects/nowhere/page")
    text = client.get("/metrics").text
    assert re.search(r'route="/projects/\{project_id\}/page",status="404"', text)


def test_pages_say_where_pictures_are_missing(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    are_plots_installed.cache_clear()
    try:
        fit(client, y=LABELS[:30] + [None] * 10)
        text = page(client, "/projects/p/page")
    finally:
        are_plots_installed.cache_clear()
    assert "pip install 'active-query[plots]'" in text
    assert "<picture>" not in text and "The curve in numbers" in text


# API keys.


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[tuple[FlaskClient, Callable[..., str]]]:
    """A client of a service with API keys, and a function that makes a key."""
    file = tmp_path / "keys.json"
    app = create_app(Settings(data_dir=tmp_path / "data", log_level="error", api_keys_file=file))
    change_keys(file, lambda keys: keys)

    def make(role: str, *projects: str) -> str:
        token = new_token()
        change_keys(file, lambda keys: keys.with_key(new_key(token, f"{role}-{len(keys.all)}", role, projects, None)))
        return token

    yield app.test_client(), make


def sign_in(client: FlaskClient, key: str, **headers: str) -> Any:
    return client.post("/sign-in", data={"key": key}, headers=headers)


def test_a_key_opens_the_pages_and_nothing_else(keyed: tuple[FlaskClient, Callable[..., str]]) -> None:
    client, make = keyed
    key = make("admin", "*")
    client.post("/fit", json={"project_id": "p", "X": X}, headers={"Authorization": f"Bearer {key}"})
    assert 'action="./sign-in"' in page(client, "/", 401)
    assert 'action="../../sign-in"' in page(client, "/projects/p/page", 401)
    reply = sign_in(client, key)
    assert (reply.status_code, reply.headers["Location"]) == (303, "./")
    cookie = reply.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path" not in cookie and "Max-Age" not in cookie
    assert "projects/p/page" in page(client, "/")
    assert "Sign out admin-0" in page(client, "/projects/p/page")
    for path in ("/projects", "/projects/p", "/projects/p/report", "/metrics"):
        assert client.get(path).status_code == 401
    assert client.delete("/projects/p").status_code == 401
    assert client.post("/query", json={"project_id": "p"}).status_code == 401
    client.post("/sign-out")
    page(client, "/", 401)


def test_a_key_shows_its_own_projects_alone(keyed: tuple[FlaskClient, Callable[..., str]]) -> None:
    client, make = keyed
    admin = {"Authorization": f"Bearer {make('admin', '*')}"}
    for name in ("team-a", "other"):
        client.post("/fit", json={"project_id": name, "X": X}, headers=admin)
    sign_in(client, make("reader", "team-*"))
    text = page(client, "/")
    page(client, "/projects/team-a/page/simulations", 403, method="POST", data={"strategies": "margin"})
    assert "projects/team-a/page" in text and "other" not in text
    missing, hidden = (page(client, f"/projects/{name}/page", 404) for name in ("nowhere", "other"))
    assert missing.replace("nowhere", "other") == hidden


@pytest.mark.parametrize("forwarded", [{}, {"X-Forwarded-Prefix": "/aq"}], ids=["plain", "X-Forwarded-Prefix"])
def test_pages_work_behind_the_path_prefix_of_a_proxy(
    keyed: tuple[FlaskClient, Callable[..., str]], forwarded: dict[str, str]
) -> None:
    direct, make = keyed
    key = make("admin", "*")
    body = {"project_id": "p", "X": X, "y": LABELS, "estimator": "gaussian_nb"}
    direct.post("/fit", json=body, headers={"Authorization": f"Bearer {key}"})

    def proxy(environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        assert path.startswith("/aq/"), path
        headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in forwarded.items()}
        return direct.application(environ | {"PATH_INFO": path[3:]} | headers, start_response)

    client = Client(proxy, Response)
    address = "/aq/projects/p/page"

    def follow(link: str) -> str:
        return urljoin(address, link)

    def action(reply: Any, name: str) -> str:
        (found,) = [link for link in Links(reply.text).addresses if name in link]
        return follow(found)

    reply = client.get(address)
    assert reply.status_code == 401
    address = action(reply, "sign-in")
    reply = client.post(address, data={"key": key})
    assert reply.status_code == 303
    address = follow(reply.headers["Location"])
    assert address == "/aq/"
    address = action(client.get(address), "projects/p/page")
    reply = client.get(address)
    assert reply.status_code == 200
    form = {"strategies": "margin", "batch_size": "5", "budget": "10", "repeats": "1"}
    reply = client.post(action(reply, "simulations"), data=form)
    address = urljoin("/aq/projects/p/page/simulations", reply.headers["Location"])
    reply = client.get(address)
    assert reply.status_code == 200 and action(reply, "projects/p/page") == "/aq/projects/p/page"
    assert client.post(action(reply, "sign-out")).status_code == 303
    assert client.get(address).status_code == 401


def test_wrong_forms_are_refused(keyed: tuple[FlaskClient, Callable[..., str]]) -> None:
    client, make = keyed
    reply = sign_in(client, "wrong")
    assert reply.status_code == 401 and "Set-Cookie" not in reply.headers and "mistyped" in reply.text
    key = make("reader", "*")
    assert sign_in(client, key, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert sign_in(client, key, **{"Sec-Fetch-Site": "same-origin"}).status_code == 303
    assert sign_in(client, key, **{"Idempotency-Key": "once"}).status_code == 303
    assert client.post("/sign-in", json={"key": key}).status_code == 415
    assert client.post("/sign-in", data={"token": key}).status_code == 400
    assert client.post("/sign-in", data={"key": "k" * 5_000}).status_code == 413
    client.set_cookie("active_query_key", "stale")
    assert "mistyped" in page(client, "/", 401)
    secure = sign_in(client, key, **{"X-Forwarded-Proto": "https"})
    assert "Secure" in secure.headers["Set-Cookie"]
