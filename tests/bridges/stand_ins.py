"""Small servers with as much of the interfaces of labelling tools as the bridges call."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "0" * 40
PERSONAL_TOKEN = "head.body.signature"  # noqa: S105 - of the stand-in
CONFIG = """<View><Text name="text" value="$body"/><Choices name="kind" toName="text">
<Choice value="ham"/><Choice value="spam"/></Choices></View>"""


class Refused(Exception):
    """A request is refused with a status."""


class FakeLabelStudio:
    """One project of Label Studio, number 7."""

    def __init__(self, config: str = CONFIG) -> None:
        self.project = {
            "label_config": config,
            "maximum_annotations": 1,
            "sampling": "Sequential sampling",
            "model_version": "",
        }
        self.tasks: dict[int, dict[str, Any]] = {}
        self.predictions: list[dict[str, Any]] = []
        self.bearers: list[str] = []
        self.result_status = 201
        """Of an import with results: 201, or 400, or 0 if they are dropped without a word."""
        self.is_away = False
        self.deleted_in_import: int | None = None
        self.requests: list[str] = []
        self.clock = datetime(2026, 1, 1, tzinfo=UTC)
        self._n_tasks = 0

    def touch(self, task: dict[str, Any]) -> None:
        self.clock += timedelta(minutes=1)
        task["updated_at"] = self.clock.isoformat().replace("+00:00", "Z")

    def add(self, *data: dict[str, Any]) -> list[int]:
        """Import tasks and return their ids."""
        first = self._n_tasks + 1
        for each in data:
            self._n_tasks += 1
            self.tasks[self._n_tasks] = {"id": self._n_tasks, "data": each, "annotations": [], "is_labeled": False}
            self.touch(self.tasks[self._n_tasks])
        return list(range(first, self._n_tasks + 1))

    def annotate(self, task: int, choice: str | list[str] | None, user: int = 1) -> None:
        """Annotate a task as a user, or skip it; an annotation of the same user is replaced."""
        self.retract(task, user)
        chosen = [choice] if isinstance(choice, str) else choice
        region = {"from_name": "kind", "to_name": "text", "type": "choices", "value": {"choices": chosen}}
        target = self.tasks[task]
        self.touch(target)
        target["annotations"].append(
            {
                "completed_by": user,
                "result": [] if choice is None else [region],
                "was_cancelled": choice is None,
                "updated_at": target["updated_at"],
            }
        )
        self.count_labels(target)

    def retract(self, task: int, user: int = 1) -> None:
        """Delete the annotation of a user."""
        target = self.tasks[task]
        target["annotations"] = [each for each in target["annotations"] if each["completed_by"] != user]
        self.count_labels(target)
        self.touch(target)

    def count_labels(self, task: dict[str, Any]) -> None:
        """A task is done once it has as many annotations as the project asks for; skips do not count."""
        given = sum(not each["was_cancelled"] for each in task["annotations"])
        task["is_labeled"] = given >= self.project["maximum_annotations"]

    def next_tasks(self) -> list[int]:
        """Return the tasks that "Label All Tasks" shows, in its order: none if it would be random."""
        version = self.project["model_version"]
        shown = [each for each in self.predictions if each["model_version"] == version]
        if self.project["sampling"] != "Uncertainty sampling":
            return []
        ids = [each["task"] for each in sorted(shown, key=lambda each: each["score"])]
        return [task for task in ids if task in self.tasks and not self.tasks[task]["annotations"]]

    def handle(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        base = "/api/projects/7"
        match method, path:
            case "POST", "/api/token/refresh/":
                if body["refresh"] != PERSONAL_TOKEN:
                    raise Refused(401)
                self.bearers.append(f"bearer-{len(self.bearers)}")
                return {"access": self.bearers[-1]}
            case "GET", "/api/tasks/":
                return self.list_tasks(query)
            case "GET", path if path == f"{base}/":
                return {**self.project, "task_number": len(self.tasks)}
            case "PATCH", path if path == f"{base}/":
                self.project |= body
                return self.project
            case "GET", path if path == f"{base}/model-versions/":
                versions = [each["model_version"] for each in self.predictions]
                return {version: versions.count(version) for version in versions}
            case "DELETE", path if path == f"{base}/model-versions/":
                self.predictions = [p for p in self.predictions if p["model_version"] != body["model_version"]]
                return {}
            case "POST", path if path == f"{base}/import/predictions":
                return self.import_predictions(body)
        raise Refused(404)

    def import_predictions(self, items: list[dict[str, Any]]) -> dict[str, int]:
        if self.deleted_in_import is not None:
            del self.tasks[self.deleted_in_import]
            self.deleted_in_import = None
        has_results = any(each["result"] for each in items)
        if any(each["task"] not in self.tasks for each in items) or (has_results and self.result_status == 400):
            raise Refused(400)
        taken = [each for each in items if not each["result"] or self.result_status]
        self.predictions += taken
        return {"created": len(taken)}

    def list_tasks(self, query: dict[str, str]) -> dict[str, Any]:
        found = list(self.tasks.values())
        for item in json.loads(query.get("query", "{}")).get("filters", {}).get("items", []):
            if item["filter"] == "filter:tasks:updated_at":
                since = datetime.fromisoformat(item["value"])
                found = [task for task in found if datetime.fromisoformat(task["updated_at"]) >= since]
            else:
                shown = {each["task"] for each in self.predictions if each["model_version"] in item["value"]}
                found = [task for task in found if task["id"] in shown]
        size, page = int(query["page_size"]), int(query["page"])
        names = query["include"].split(",")
        some = [{name: task[name] for name in names if name in task} for task in found[size * (page - 1) : size * page]]
        return {"total": len(found), "tasks": some}


@contextmanager
def serving(tool: Any) -> Iterator[str]:
    """Serve a stand-in on a free loopback port, and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            tool.requests.append(f"{self.command} {url.path}")
            authorization = self.headers.get("Authorization", "")
            try:
                if tool.is_away:
                    raise Refused(503)
                bearers = tool.bearers[-1:]
                allowed = {f"Token {TOKEN}", *(f"{kind} {each}" for each in bearers for kind in ("Bearer", "Token"))}
                if url.path not in ("/api/token/refresh/", "/v1/auth/login/") and authorization not in allowed:
                    raise Refused(401)
                status, reply = 200, tool.handle(self.command, url.path, query, json.loads(body) if body else None)
            except Refused as refused:
                status, reply = refused.args[0], {"detail": "refused"}
            content = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class FakeDoccano:
    """One project of doccano, number 3, whose annotators see the labels of each other."""

    def __init__(self) -> None:
        self.examples: dict[int, dict[str, Any]] = {}
        self.categories: dict[int, dict[int, int]] = {}
        self.confirmed: dict[int, int] = {}
        self.bearers: list[str] = []
        self.requests: list[str] = []
        self.is_away = False

    def add(self, *texts: str) -> None:
        for text in texts:
            number = max(self.examples, default=0) + 1
            self.examples[number] = {"id": number, "text": text, "score": 100.0}

    def annotate(self, number: int, label: int | None, user: int = 1) -> None:
        """Label an example, 1 for ham and 2 for spam, or confirm it without a label."""
        if label is None:
            self.confirmed[number] = user
        else:
            self.categories.setdefault(number, {})[user] = label

    def listed(self, example: dict[str, Any]) -> dict[str, Any]:
        return {**example, "is_confirmed": example["id"] in self.confirmed}

    def handle(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        parts = path.removeprefix("/v1/").strip("/").split("/")
        match method, parts:
            case "POST", ["auth", "login"]:
                if body != {"username": "admin", "password": "pass"}:
                    raise Refused(400)
                self.bearers.append(f"key-{len(self.bearers)}")
                return {"key": self.bearers[-1]}
            case "GET", ["projects", "3"]:
                return {"collaborative_annotation": True}
            case "GET", ["projects", "3", "category-types"]:
                return [{"id": 1, "text": "ham"}, {"id": 2, "text": "spam"}]
            case "GET", ["projects", "3", "examples"]:
                return self.list_examples(query)
            case _, ["projects", "3", "examples", number, *rest] if int(number) in self.examples:
                example = self.examples[int(number)]
                if method == "PATCH":
                    example |= body
                if rest == ["categories"]:
                    found = self.categories.get(int(number), {})
                    return [{"user": user, "label": label} for user, label in found.items()]
                if rest == ["states"]:
                    return {"results": [{"confirmed_by": self.confirmed[int(number)]}]}
                return self.listed(example)
        raise Refused(404)

    def list_examples(self, query: dict[str, str]) -> dict[str, Any]:
        found = list(self.examples.values())
        if "label" in query:
            wanted = ["", "ham", "spam"].index(query["label"])
            found = [each for each in found if wanted in self.categories.get(each["id"], {}).values()]
        if query.get("ordering") == "score":
            found.sort(key=lambda each: each["score"])
        begin, limit = int(query.get("offset", 0)), int(query["limit"])
        return {"count": len(found), "results": [self.listed(each) for each in found[begin : begin + limit]]}

    def next_examples(self) -> list[int]:
        """Return the examples that somebody labels next, ordered by score: those of the batch."""
        ordered = sorted(self.examples.values(), key=lambda each: each["score"])
        batch = [each["id"] for each in ordered if each["score"] < 100]
        return [number for number in batch if number not in self.confirmed and number not in self.categories]
