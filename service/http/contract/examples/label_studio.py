"""Examples of Label Studio, which uses the service as an ML backend."""

from __future__ import annotations

from service.http.contract.examples.example import Example

PATH = {"project_id": "mails-in-label-studio"}
CONFIG = (
    '<View><Text name="text" value="$body"/><Choices name="kind" toName="text">'
    '<Choice value="ham"/><Choice value="spam"/></Choices></View>'
)
TASKS = [{"id": 1, "data": {"body": "win a free prize"}}, {"id": 2, "data": {"body": "meeting at ten"}}]
PROJECT = {"id": 7, "label_config": CONFIG}
UNKNOWN = {"result": [], "score": 0.0, "model_version": "aq-0"}


def annotation(task: int, choice: str) -> dict[str, object]:
    """Return an annotation of a task by the first user."""
    region = {"from_name": "kind", "to_name": "text", "type": "choices", "value": {"choices": [choice]}}
    return {"task": task, "completed_by": 1, "result": [region], "was_cancelled": False}


EXAMPLES = (
    Example(
        "check_ml_backend", "The service is up", 200, path=PATH, reply={"status": "UP", "model_class": "ActiveQuery"}
    ),
    Example(
        "set_up_ml_backend",
        "Connect the model",
        200,
        path=PATH,
        body={"project": "7.1767600000", "schema": CONFIG},
        reply={"model_version": "aq-0"},
    ),
    Example(
        "predict_tasks",
        "Tasks before the first label",
        200,
        path=PATH,
        body={"tasks": TASKS, "label_config": CONFIG, "project": "7.1767600000"},
        reply={"results": [UNKNOWN, UNKNOWN], "model_version": "aq-0"},
    ),
    Example(
        "receive_label_studio_webhook",
        "An annotation",
        200,
        path=PATH,
        body={
            "action": "ANNOTATION_CREATED",
            "project": PROJECT,
            "task": TASKS[0],
            "annotation": annotation(1, "spam"),
        },
        reply={"status": "done"},
    ),
    Example("list_ml_backend_versions", "The current version", 200, path=PATH, reply={"versions": ["aq-0"]}),
    Example("delete_project", "The project of Label Studio", 204, path=PATH),
)
