"""The bridge to Label Studio: its tasks, its annotations, and the order in which "Label All Tasks" shows its tasks.

Works with the community edition, tried with 1.23.2, and needs no change of its configuration. Label Studio shows the
tasks with the lowest prediction scores first, among predictions of the model version that the project names; so a batch
is a set of predictions whose scores are its order, under a version of its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from service.bridges.bridge import BATCH_PREFIX, NO_BATCH, Batch, Changes, Task, TasksDeleted
from service.bridges.labeling_config import ConfigError, LabelingConfig, TaskFields, answers_of, read_config
from service.bridges.web import ToolError, Web

log = logging.getLogger(__name__)

JsonObject = dict[str, Any]

SAMPLING = "Uncertainty sampling"
PAGE_TASKS = 500
TASK_FIELDS = ("id", "data", "annotations", "completed_by", "result", "was_cancelled", "updated_at", "is_labeled")
"""Names of fields; `include` leaves all others out, also those of the annotations in a task."""

OVERLAP = timedelta(seconds=5)
"""How far each reading of changes goes back behind the last: a change may be visible later than its time."""


class LabelStudioAPI:
    """Requests to Label Studio. `token` is a legacy token, or a personal access token, which buys bearers of 300 s."""

    def __init__(self, url: str, token: str) -> None:
        self.web, self.token = Web(url), token
        self.is_personal = token.count(".") == 2
        self._bearer: str | None = None

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Send a request, with a new bearer if the old one has expired. Raises ToolError."""
        try:
            return self.web.send(method, path, body, self._headers())
        except ToolError as error:
            if error.status != 401 or not self.is_personal:
                raise
        self._bearer = None
        return self.web.send(method, path, body, self._headers())

    def _headers(self) -> JsonObject:
        if not self.is_personal:
            return {"Authorization": f"Token {self.token}"}
        if self._bearer is None:
            self._bearer = self.web.send("POST", "/api/token/refresh/", {"refresh": self.token})["access"]
        return {"Authorization": f"Bearer {self._bearer}"}


class LabelStudio:
    """A project of Label Studio, as a Tool."""

    def __init__(self, url: str, token: str, project: int, fields: TaskFields) -> None:
        self.api, self.project, self.fields = LabelStudioAPI(url, token), project, fields
        self.path = f"/api/projects/{project}"
        self.ids: set[str] = set()
        self.seen_until: datetime | None = None
        self._config: LabelingConfig | None = None
        self.version = ""
        self.warned: set[str] = set()

    @property
    def config(self) -> LabelingConfig:
        """The choices of the project, as `read_changes` read them."""
        if self._config is None:
            raise ValueError("read_changes comes first")
        return self._config

    def read_changes(self, *, everything: bool) -> Changes:
        """Return the tasks whose time of change is new: created, edited, annotated, skipped, or with less answers."""
        project = self.api.send("GET", f"{self.path}/")
        self._config = self.read_config(project["label_config"])
        if everything:
            self.ids, self.seen_until = set(), None
        found = self.list_changed(None if self.seen_until is None else self.seen_until - OVERLAP)
        self.ids.update(str(task["id"]) for task in found)
        # Deleted tasks show in nothing but the number of tasks.
        if len(self.ids) != project["task_number"]:
            there = {str(task["id"]) for task in self.pages(include="id")}
            missed = there - self.ids
            self.ids &= there
            if missed:
                found += self.list_changed(None)
                self.ids = there
        times = [datetime.fromisoformat(task["updated_at"]) for task in found]
        self.seen_until = max([*times, *([] if self.seen_until is None else [self.seen_until])], default=None)
        if self.version and (project["sampling"], project["model_version"]) != (SAMPLING, self.version):
            log.warning("somebody changed the order of the tasks in Label Studio: it is set again")
            self.show(self.version)
        answers_per_task = self.check(project)
        tasks = [self.task_of(task) for task in found]
        return Changes(tasks, frozenset(self.ids), self.config.classes, answers_per_task, self.config.has_several)

    def read_config(self, xml: str) -> LabelingConfig:
        """Return the choices of the project. Raises ToolError without choices."""
        try:
            config = read_config(xml)
        except ConfigError as error:
            raise ToolError(f"project {self.project} of Label Studio: {error}", 422) from None
        return config

    def check(self, project: JsonObject) -> int:
        """Return the number of annotations that a task gets, with a warning if that changes the order."""
        number: int = project["maximum_annotations"]
        if number > 1:
            self.warn(
                f"each task gets {number} annotations: Label Studio shows tasks that others have annotated first, "
                "before those of the batch"
            )
        return number

    def warn(self, text: str) -> None:
        """Log a warning once."""
        if text not in self.warned:
            self.warned.add(text)
            log.warning(text)

    def list_changed(self, since: datetime | None) -> list[JsonObject]:
        """Return the tasks that changed since a time, with their annotations."""
        query: JsonObject = {"ordering": ["tasks:id"]}
        if since is not None:
            time = since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            newer = {
                "filter": "filter:tasks:updated_at",
                "operator": "greater_or_equal",
                "type": "Datetime",
                "value": time,
            }
            query["filters"] = {"conjunction": "and", "items": [newer]}
        return list(self.pages(fields="all", include=",".join(TASK_FIELDS), query=json.dumps(query)))

    def pages(self, **parameters: str) -> Iterator[JsonObject]:
        """Yield the tasks of all pages."""
        page, n_read = 1, 0
        while True:
            fixed = {"project": self.project, "page_size": PAGE_TASKS, "page": page, "resolve_uri": "false"}
            found = self.api.send("GET", f"/api/tasks/?{urlencode({**fixed, **parameters})}")
            yield from found["tasks"]
            page, n_read = page + 1, n_read + len(found["tasks"])
            if n_read >= found["total"] or not found["tasks"]:
                return

    def task_of(self, task: JsonObject) -> Task:
        """Return a task of Label Studio as the bridge knows tasks."""
        answers = answers_of(self.config, task["annotations"])
        is_done = task["is_labeled"] or None in answers.values()
        data = task["data"]
        content, url = self.fields.content_of(data, self.config), self.fields.url_of(data)
        changed_at = datetime.fromisoformat(task["updated_at"])
        return Task(str(task["id"]), content, answers, is_done, url, changed_at)

    def owns(self, annotator: str | None) -> bool:
        """Return whether an annotator is a user of Label Studio: the number of one."""
        return annotator is not None and annotator.isdigit()

    def read_batch(self) -> Batch:
        """Return the tasks with predictions of the version that the project names, if it is one of the service."""
        project = self.api.send("GET", f"{self.path}/")
        version = self.version = project["model_version"] or ""
        if not version.startswith(BATCH_PREFIX) or project["sampling"] != SAMPLING:
            self.version = ""
            return NO_BATCH
        has_version = {
            "filter": "filter:tasks:predictions_model_versions",
            "operator": "contains",
            "type": "List",
            "value": [version],
        }
        query = {"filters": {"conjunction": "and", "items": [has_version]}}
        return Batch(version, [str(task["id"]) for task in self.pages(include="id", query=json.dumps(query))])

    def push(self, batch: Batch) -> None:
        """Import the batch as predictions, name its version in the project, and delete the versions before."""
        versions = self.api.send("GET", f"{self.path}/model-versions/")
        if versions.get(batch.name) != len(batch.ids):
            if batch.name in versions:
                self.delete_version(batch.name)
            self.import_predictions(batch)
        self.show(batch.name)
        for version in versions:
            if version.startswith(BATCH_PREFIX) and version != batch.name:
                self.delete_version(version)

    def show(self, version: str) -> None:
        """Order the tasks by the predictions of a version."""
        self.api.send("PATCH", f"{self.path}/", {"sampling": SAMPLING, "model_version": version})
        self.version = version

    def import_predictions(self, batch: Batch) -> None:
        """Import a batch in one request, without its results if Label Studio does not take them. Raises TasksDeleted.

        It refuses the request if a task is gone, and refuses or drops results that do not fit the labelling config.
        """
        refusal: ToolError | None = None
        for with_results in (True, False) if batch.predictions else (False,):
            items, created = list(self.predictions_of(batch, with_results=with_results)), 0
            try:
                created = self.api.send("POST", f"{self.path}/import/predictions", items)["created"]
            except ToolError as error:
                if error.status != 400:
                    raise
                refusal = error
            if created == len(items):
                return
            self.delete_version(batch.name)
            log.warning("Label Studio dropped %d predictions of %d", len(items) - created, len(items))
        raise TasksDeleted(str(refusal or "it dropped predictions"))

    def predictions_of(self, batch: Batch, *, with_results: bool) -> Iterable[JsonObject]:
        """Yield the predictions of a batch: the lowest score is shown first."""
        for place, sample in enumerate(batch.ids):
            said = batch.predictions.get(sample) if with_results else None
            result = [] if said is None else self.config.result_of(said.labels, said.confidence)
            score = round(place / len(batch.ids), 6)
            yield {"task": int(sample), "result": result, "score": score, "model_version": batch.name}

    def delete_version(self, version: str) -> None:
        """Delete the predictions of a version."""
        self.api.send("DELETE", f"{self.path}/model-versions/", {"model_version": version})
