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


def annotate(
    post: Post,
    task: int,
    choice: str | list[str] | None,
    action: str = "ANNOTATION_CREATED",
    user: object = 1,
    number: int = 99,
    config: str = CONFIG,
) -> Any:
    chosen = [choice] if isinstance(choice, str) else choice
    region = {"from_name": "kind", "to_name": "text", "type": "choices", "value": {"choices": chosen}}
    annotation = {
        "id": number,
        "task": task,
        "completed_by": user,
        "result": [] if choice is None else [region],
        "was_cancelled": choice is None,
        "updated_at": "2026-01-01T00:00:00Z",
    }
    project = {"id": 7, "label_config": config, "title": "mails"}
    return post("webhook", {"action": action, "project": project, "task": TASKS[task - 1], "annotation": annotation})


def labels(client: FlaskClient) -> dict[str, Any]:
    records = client.get("/projects/mails/labels").json["labels"]
    return {record["id"]: (record["annotator"], record["label"]) for record in records}


def wait_for_fit(client: FlaskClient) -> None:
    wait_until(lambda: client.get("/projects/mails").json["n_labels_since_fit"] == 0)


def choose_fast_model(client: FlaskClient) -> None:
    client.post("/fit", json={"project_id": "mails", "estimator": "gaussian_nb"})


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


@pytest.mark.slow
def test_annotations_train_the_model_whose_version_changes(client: FlaskClient, post: Post) -> None:
    client.post(
        "/fit",
        json={
            "project_id": "mails",
            "texts": WORDS,
            "ids": ["1", "2", "3", "4", "5", "6"],
            "classes": ["ham", "spam"],
            "estimator": "gaussian_nb",
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
    choose_fast_model(client)
    records = [{"id": "1", "label": "spam"}, {"id": "2", "label": "ham"}]
    client.post("/label", json={"project_id": "mails", "labels": records, "refit": "never"})
    assert post("webhook", {"action": "START_TRAINING", "project": {"id": 7}}) == {"status": "done"}
    wait_for_fit(client)
    assert post("webhook", {"action": "PROJECT_UPDATED", "project": {"id": 7}}) == {"status": "ignored"}


def test_tasks_that_are_created_become_samples(client: FlaskClient, post: Post) -> None:
    project = {"label_config": CONFIG}
    post("webhook", {"action": "TASKS_CREATED", "project": project, "tasks": TASKS[:2]})
    post("webhook", {"action": "TASKS_CREATED", "project": project, "tasks": TASKS})
    assert client.get("/projects/mails").json["n_samples"] == 6


def test_deleted_annotations_are_retracted(client: FlaskClient, post: Post) -> None:
    for number, (task, choice, user) in enumerate([(1, "spam", 1), (1, "ham", 2), (2, "ham", 1), (3, None, 1)], 10):
        annotate(post, task, choice, user=user, number=number)
    annotate(post, 2, "spam", "ANNOTATION_UPDATED", number=12)
    assert post("webhook", {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 11}, {"id": 12}]}) == {
        "status": "done"
    }
    assert labels(client) == {"1": ("1", "spam"), "3": ("1", None)}
    # Label Studio sends numbers alone where an annotation becomes a draft; and 14 is not known.
    post("webhook", {"action": "ANNOTATIONS_DELETED", "annotations": [13, 14]})
    assert labels(client) == {"1": ("1", "spam")}
    version = client.get("/projects/mails").json["version"]
    post("webhook", {"action": "ANNOTATIONS_DELETED", "annotations": [11, 13]})
    assert client.get("/projects/mails").json["version"] == version


def test_samples_of_deleted_tasks_are_removed(client: FlaskClient, post: Post) -> None:
    predict(post)
    annotate(post, 1, "spam")
    for _ in range(2):
        assert post("webhook", {"action": "TASKS_DELETED", "tasks": [{"id": 1}, {"id": 2}, {"id": 77}]}) == {
            "status": "done"
        }
    project = client.get("/projects/mails").json
    assert (project["n_samples"], project["n_removed"], labels(client)) == (6, 2, {})
    assert predict(post)["results"][0]["result"] == []


def test_annotations_of_tasks_without_a_text_are_left_out(client: FlaskClient, post: Post) -> None:
    predict(post)
    region = {"from_name": "kind", "to_name": "text", "type": "choices", "value": {"choices": ["spam"]}}
    annotations = [{"id": n, "task": n, "completed_by": 1, "result": [region]} for n in (1, 7)]
    tasks = [TASKS[0], {"id": 7, "data": {"picture": "a.png"}}]
    body = {"project": {"label_config": CONFIG}, "task": tasks, "annotation": annotations}
    post("webhook", {"action": "ANNOTATIONS_CREATED", **body})
    assert labels(client) == {"1": ("1", "spam")}


@pytest.mark.slow
def test_choices_with_several_answers_are_several_labels(client: FlaskClient, post: Post) -> None:
    several = CONFIG.replace("<Choices ", '<Choices choice="multiple" ')
    post("setup", {"schema": several})
    predict(post, config=several)
    assert client.get("/projects/mails").json["target"] == "labels"
    choose_fast_model(client)
    for task, choice in enumerate([["spam"], ["ham"], ["spam", "ham"], ["new", "ham"]], 1):
        annotate(post, task, choice, config=several, number=task)
    assert labels(client)["4"] == ("1", ["ham", "new"])
    wait_for_fit(client)
    reply = predict(post, config=several)
    given = [each["result"][0]["value"]["choices"] for each in reply["results"] if each["result"]]
    assert given
    assert all(set(chosen) <= {"spam", "ham", "new"} for chosen in given)
    assert all(0 <= each["score"] <= 1 for each in reply["results"])


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


def test_the_path_names_the_field_where_label_studio_drops_the_query(client: FlaskClient) -> None:
    url = f"{PATH}/text_field=the%20b%C3%B6dy"
    for what in ("health", "versions"):
        assert client.get(f"{url}/{what}").status_code == 200
    assert client.post(f"{url}/setup", json={"schema": IMAGES}).status_code == 200
    tasks = [{"id": 1, "data": {"the bödy": "a free prize", "image": "1.png"}}]
    reply = client.post(f"{url}/predict?", json={"tasks": tasks, "label_config": IMAGES})
    asked = client.post("/query", json={"project_id": "mails", "include": ["text"]}).json
    assert (reply.status_code, asked["texts"]) == (200, ["a free prize"])
    late = {"action": "TASKS_CREATED", "project": {"label_config": IMAGES}, "tasks": [{**tasks[0], "id": 2}]}
    assert client.post(f"{url}/webhook", json=late).json == {"status": "done"}
    assert client.get("/projects/mails").json["n_samples"] == 2
    for path in ("text_field=/predict", "field=body/predict", "text_field=a/b/predict"):
        assert client.post(f"{PATH}/{path}", json={}).status_code == 404


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("setup", {"schema": "<View/>"}, "/schema"),
    ("setup", {"schema": 1}, "/schema"),
    ("setup", {}, "/schema"),
    ("predict", {"tasks": [{"id": 1}], "label_config": CONFIG}, "/tasks/0"),
    ("predict", {"tasks": TASKS}, "/label_config"),
    ("webhook", {}, "/action"),
    ("webhook", {"action": "TASKS_CREATED", "project": {}, "tasks": TASKS}, "/project/label_config"),
    ("webhook", {"action": "TASKS_CREATED", "project": {"label_config": CONFIG}, "tasks": [1]}, "/tasks"),
    ("webhook", {"action": "ANNOTATION_CREATED", "project": {"label_config": CONFIG}, "task": TASKS[0],
                 "annotation": {"id": 1}}, "/annotation"),
    ("webhook", {"action": "TASKS_DELETED", "tasks": [{"id": "1"}]}, "/tasks"),
    ("webhook", {"action": "ANNOTATIONS_DELETED"}, "/annotations"),
    ("setup?texts=body", {"schema": CONFIG}, "/query/texts"),
    ("text_field=a/setup?text_field=b", {"schema": CONFIG}, "/query/text_field"),
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

    body = {"tasks": [], "label_config": CONFIG, "schema": CONFIG, "action": "PROJECT_UPDATED"}

    def status(what: str, password: str | None, path: str = PATH) -> int:
        credentials = b64encode(f"label-studio:{password}".encode()).decode()
        headers = {} if password is None else {"Authorization": f"Basic {credentials}"}
        if what in ("health", "versions"):
            return client.get(f"{path}/{what}", headers=headers).status_code
        return client.post(f"{path}/{what}", json=body, headers=headers).status_code

    for what in ("health", "versions", "setup", "predict", "webhook"):
        needs_admin = what in ("predict", "webhook")
        assert status(what, tokens["admin"]) == status(what, tokens["admin"], f"{PATH}/text_field=body") == 200
        assert status(what, tokens["reader"]) == (403 if needs_admin else 200)
        assert status(what, "wrong") == status(what, "") == status(what, None) == 401
        assert status(what, tokens["admin"], "/label-studio/other") == 404
    basic = {"Authorization": "Basic " + b64encode(f"x:{tokens['admin']}".encode()).decode()}
    assert client.get("/projects", headers=basic).status_code == 401
    bearer = {"Authorization": f"Bearer {tokens['admin']}"}
    assert client.get(f"{PATH}/health", headers=bearer).status_code == 200
