"""The ML-backend protocol of Label Studio, with the requests that Label Studio sends."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.auth.keyfile import change_keys
from service.auth.keys import new_key, new_token
from service.settings import Settings
from tests.support.serving import wait_until

CONFIG = """<View><Text name="text" value="$body"/><Choices name="kind" toName="text">
<Choice value="ham"/><Choice value="spam"/></Choices></View>"""
IMAGES = CONFIG.replace('<Text name="text" value="$body"/>', '<Image name="text" value="$image"/>')
WORDS = ["prize pills", "meeting minutes", "free pills", "minutes agenda", "prize free", "agenda meeting"]
TASKS = [{"id": number, "data": {"body": words, "other": "x"}} for number, words in enumerate(WORDS, 1)]
PATH = "/label-studio/mails"

Post = Callable[..., Any]


@pytest.fixture
def post(client: FlaskClient) -> Post:
    """Return a function that posts to the backend, and returns the reply, whose status must be the one expected."""

    def post(what: str, body: dict[str, Any], expect: int = 200) -> Any:
        response = client.post(f"{PATH}/{what}", json=body)
        assert response.status_code == expect, response.get_data(as_text=True)
        return response.json

    return post


def predict(post: Post, tasks: list[Any] = TASKS, query: str = "", config: str = CONFIG) -> Any:
    return post(f"predict{query}", {"tasks": tasks, "label_config": config, "project": "1.2", "params": {}})


def annotate(post: Post, task: int, choice: str | None, action: str = "ANNOTATION_CREATED", user: object = 1) -> Any:
    region = {"from_name": "kind", "to_name": "text", "type": "choices", "value": {"choices": [choice]}}
    annotation = {
        "id": 99,
        "task": task,
        "completed_by": user,
        "result": [] if choice is None else [region],
        "was_cancelled": choice is None,
        "updated_at": "2026-01-01T00:00:00Z",
    }
    project = {"id": 7, "label_config": CONFIG, "title": "mails"}
    return post("webhook", {"action": action, "project": project, "task": TASKS[task - 1], "annotation": annotation})


def labels(client: FlaskClient) -> dict[str, Any]:
    records = client.get("/projects/mails/labels").json["labels"]
    return {record["id"]: (record["annotator"], record["label"]) for record in records}


def wait_for_fit(client: FlaskClient) -> None:
    wait_until(lambda: client.get("/projects/mails").json["n_labels_since_fit"] == 0)


def test_a_backend_is_there_before_its_project(client: FlaskClient, post: Post) -> None:
    assert client.get(f"{PATH}/health").json == {"status": "UP", "model_class": "ActiveQuery"}
    setup = {
        "project": "7.1",
        "schema": CONFIG,
        "hostname": "http://localhost",
        "access_token": "x",
        "extra_params": None,
    }
    for _ in range(2):
        assert post("setup", setup) == {"model_version": "aq-0"}
    assert client.get(f"{PATH}/versions?").json == {"versions": ["aq-0"]}
    assert client.get("/projects").json["projects"] == []


def test_tasks_make_the_project_with_the_classes_of_the_config(client: FlaskClient, post: Post) -> None:
    for _ in range(2):
        reply = predict(post)
        assert reply["results"] == [{"result": [], "score": 0.0, "model_version": "aq-0"}] * 6
    project = client.get("/projects/mails").json
    assert (project["n_samples"], project["classes"]) == (6, ["ham", "spam"])
    predict(post, [{"id": 7, "data": {"body": "lunch"}}])
    assert client.get("/projects/mails").json["n_samples"] == 7


def test_annotations_train_the_model_whose_version_changes(client: FlaskClient, post: Post) -> None:
    client.post(
        "/fit",
        json={
            "project_id": "mails",
            "texts": WORDS,
            "ids": ["1", "2", "3", "4", "5", "6"],
            "classes": ["ham", "spam"],
            "estimator": "logistic_regression",
        },
    )
    versions = []
    annotate(post, 1, "spam")
    for task, choice in ((2, "ham"), (3, "spam"), (4, "ham")):
        assert annotate(post, task, choice) == {"status": "done"}
        wait_for_fit(client)
        versions.append(client.get(f"{PATH}/versions").json["versions"][0])
    assert len(set(versions)) == 3
    reply = predict(post)
    chosen = [each["result"][0]["value"]["choices"] for each in reply["results"]]
    assert chosen == [["spam"], ["ham"]] * 3
    assert all(each["score"] == pytest.approx(each["result"][0]["score"], abs=1e-4) for each in reply["results"])
    assert {each["model_version"] for each in reply["results"]} == {reply["model_version"]} == {versions[-1]}
    assert post("setup", {"schema": CONFIG})["model_version"] == versions[-1]


def test_changes_skips_and_new_classes_arrive(client: FlaskClient, post: Post) -> None:
    annotate(post, 1, "spam")
    annotate(post, 1, "ham", "ANNOTATION_UPDATED")
    annotate(post, 2, None, user={"id": 2, "email": "bob@example.org"})
    annotate(post, 3, "Ham")
    assert labels(client) == {"1": ("1", "ham"), "2": ("2", None), "3": ("1", "Ham")}
    assert client.get("/projects/mails").json["classes"] == ["ham", "spam", "Ham"]


def test_start_training_fits_in_the_background(client: FlaskClient, post: Post) -> None:
    predict(post)
    records = [{"id": "1", "label": "spam"}, {"id": "2", "label": "ham"}]
    client.post("/label", json={"project_id": "mails", "labels": records, "refit": "never"})
    assert post("webhook", {"action": "START_TRAINING", "project": {"id": 7}}) == {"status": "done"}
    wait_for_fit(client)
    for action in ("ANNOTATIONS_DELETED", "PROJECT_UPDATED"):
        assert post("webhook", {"action": action, "annotations": [{"id": 1}]}) == {"status": "ignored"}


def test_tasks_that_are_created_become_samples(client: FlaskClient, post: Post) -> None:
    project = {"label_config": CONFIG}
    post("webhook", {"action": "TASKS_CREATED", "project": project, "tasks": TASKS[:2]})
    post("webhook", {"action": "TASKS_CREATED", "project": project, "tasks": TASKS})
    assert client.get("/projects/mails").json["n_samples"] == 6


@pytest.mark.parametrize(
    ("query", "config", "data", "kind"),
    [
        ("?text_field=other", CONFIG, {"body": "a", "other": "b"}, "n_texts"),
        ("?text_field=image", IMAGES, {"image": "a.png"}, "n_texts"),
        ("", IMAGES, {"image": "a.png", "v": [1, 2.5]}, "n_features"),
        ("?vector_field=v", CONFIG, {"body": "a", "w": [3], "v": [1, 2]}, "n_features"),
    ],
)
def test_the_query_names_the_field_of_the_tasks(
    client: FlaskClient, post: Post, query: str, config: str, data: dict[str, Any], kind: str
) -> None:
    predict(post, [{"id": 1, "data": data}, {"id": 2, "data": {}}], query, config)
    project = client.get("/projects/mails").json
    assert project["n_samples"] == 1
    assert (project["n_features"] == 2) == (kind == "n_features")


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("setup", {"schema": "<View/>"}, "/schema"),
    ("setup", {"schema": 1}, "/schema"),
    ("setup", {}, "/schema"),
    ("setup", {"schema": CONFIG.replace("<Choices ", '<Choices choice="multiple" ')}, "/schema"),
    ("predict", {"tasks": [{"id": 1}], "label_config": CONFIG}, "/tasks/0"),
    ("predict", {"tasks": TASKS}, "/label_config"),
    ("webhook", {}, "/action"),
    ("webhook", {"action": "TASKS_CREATED", "project": {}, "tasks": TASKS}, "/project/label_config"),
    ("webhook", {"action": "TASKS_CREATED", "project": {"label_config": CONFIG}, "tasks": [1]}, "/tasks"),
    ("webhook", {"action": "ANNOTATION_CREATED", "project": {"label_config": CONFIG}, "task": TASKS[0],
                 "annotation": {"id": 1}}, "/annotation"),
    ("setup?texts=body", {"schema": CONFIG}, "/query/texts"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "body", "pointer"), WRONG)
def test_a_wrong_request_names_its_field(post: Post, what: str, body: dict[str, Any], pointer: str) -> None:
    problem = post(what, body, expect=422)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


def test_the_key_is_the_password(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    tokens = {role: new_token() for role in ("admin", "reader")}
    for role, token in tokens.items():
        change_keys(
            keys,
            lambda all_keys, role=role, token=token: all_keys.with_key(new_key(token, role, role, ("mails",), None)),
        )
    client = create_app(Settings(data_dir=tmp_path / "data", api_keys_file=keys, log_level="error")).test_client()

    def status(what: str, password: str, path: str = PATH) -> int:
        credentials = b64encode(f"label-studio:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        if what == "health":
            return client.get(f"{path}/health", headers=headers).status_code
        return client.post(f"{path}/{what}", json={"tasks": [], "label_config": CONFIG}, headers=headers).status_code

    assert status("health", tokens["reader"]) == status("predict", tokens["admin"]) == 200
    assert status("health", "wrong") == client.get(f"{PATH}/health").status_code == 401
    assert status("predict", tokens["reader"]) == 403
    assert status("health", tokens["admin"], "/label-studio/other") == 404
    basic = {"Authorization": "Basic " + b64encode(f"x:{tokens['admin']}".encode()).decode()}
    assert client.get("/projects", headers=basic).status_code == 401
    bearer = {"Authorization": f"Bearer {tokens['admin']}"}
    assert client.get(f"{PATH}/health", headers=bearer).status_code == 200
