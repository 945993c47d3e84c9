"""The bridge to doccano: its examples, their categories, and the score that orders them.

Tried with 1.8.4. doccano can list the examples of a project by `score`, which is 100 unless somebody sets it. A batch
gets lower scores, so that it comes first, in its order; what is left of the batch before gets 100 again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from service.bridges.bridge import NO_BATCH, Answer, Batch, Changes, Task, TasksDeleted
from service.bridges.web import ToolError, Web

log = logging.getLogger(__name__)

JsonObject = dict[str, Any]

PAGE_EXAMPLES = 500
UNASKED_SCORE = 100.0
SCORE_STEP = 0.001
"""Between the scores of two examples of a batch; the largest batch stays below the score of the others."""

OWNERS = "doccano-"
"""The beginning of the names of annotators, before the number of a user of doccano."""

READINGS_BETWEEN = 30
"""How many readings look at the batch alone, between two that look at all examples."""


class Doccano:
    """A project of doccano, as a Tool."""

    def __init__(self, url: str, username: str, password: str, project: int) -> None:
        self.web, self.credentials = Web(url), {"username": username, "password": password}
        self.path = f"/v1/projects/{project}"
        self._token: str | None = None
        self.tasks: dict[str, Task] = {}
        self.classes: dict[int, str] = {}
        self.batch: Batch = NO_BATCH
        self.n_readings = 0
        self.is_shared = True

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Send a request, after a new login if the old one has ended. Raises ToolError."""
        for is_last in (False, True):
            if self._token is None:
                self._token = self.web.send("POST", "/v1/auth/login/", self.credentials)["key"]
            try:
                return self.web.send(method, path, body, {"Authorization": f"Token {self._token}"})
            except ToolError as error:
                if error.status != 401 or is_last:
                    raise
                self._token = None
        raise AssertionError("the last try returns or raises")

    def read_changes(self, *, everything: bool) -> Changes:
        """Return the examples whose text or categories changed.

        doccano says of no example when its categories changed. So the batch is read each time, and all examples at
        first, when their number changes, and now and then.
        """
        number = self.send("GET", f"{self.path}/examples?limit=1")["count"]
        self.n_readings += 1
        if everything or number != len(self.tasks) or self.n_readings >= READINGS_BETWEEN:
            self.n_readings = 0
            self.read_settings()
            labeled = {each["id"] for name in self.classes.values() for each in self.pages(label=name)}
            found = {str(each["id"]): self.task_of(each, each["id"] in labeled) for each in self.pages()}
        else:
            found = {sample: self.read_task(sample) for sample in self.batch.ids if sample in self.tasks}
            found = {**self.tasks, **found}
        changed = [task for sample, task in found.items() if everything or self.tasks.get(sample) != task]
        self.tasks = found
        return Changes(changed, found.keys(), [*self.classes.values()])

    def read_settings(self) -> None:
        """Read the classes of the project, and whether its annotators see the same labels."""
        project = self.send("GET", self.path)
        if self.is_shared and not project["collaborative_annotation"]:
            self.is_shared = False
            log.warning(
                "doccano shows only your own labels in this project: to read those of all annotators, let them share "
                "annotations in the settings of the project"
            )
        self.classes = {each["id"]: each["text"] for each in self.send("GET", f"{self.path}/category-types")}

    def pages(self, **filters: str) -> Iterator[JsonObject]:
        """Yield all examples, or those that filters select."""
        n_read = 0
        while True:
            parameters = urlencode({"limit": PAGE_EXAMPLES, "offset": n_read, **filters})
            page = self.send("GET", f"{self.path}/examples?{parameters}")
            yield from page["results"]
            n_read += len(page["results"])
            if n_read >= page["count"] or not page["results"]:
                return

    def read_task(self, sample: str) -> Task:
        """Read one example."""
        return self.task_of(self.send("GET", f"{self.path}/examples/{sample}"), may_have_labels=True)

    def task_of(self, example: JsonObject, may_have_labels: bool) -> Task:
        """Return an example with its answers: categories count before somebody confirms them.

        A confirmed example without a category is a skip.
        """
        answers: dict[str, Answer] = {}
        path = f"{self.path}/examples/{example['id']}/categories"
        for category in self.send("GET", path) if may_have_labels else ():
            if category["label"] not in self.classes:
                self.read_settings()
            answers[f"{OWNERS}{category['user']}"] = self.classes[category["label"]]
        if example["is_confirmed"] and not answers:
            for state in self.send("GET", f"{self.path}/examples/{example['id']}/states")["results"]:
                answers[f"{OWNERS}{state['confirmed_by']}"] = None
        is_done = bool(example["is_confirmed"] or answers)
        return Task(str(example["id"]), example["text"] or None, answers, is_done)

    def owns(self, annotator: str | None) -> bool:
        """Return whether an annotator is a user of doccano."""
        return annotator is not None and annotator.startswith(OWNERS)

    def scored(self) -> list[tuple[float, str]]:
        """Return the scores and ids of the examples that a batch has set, in their order."""
        found: list[tuple[float, str]] = []
        n_read = 0
        while True:
            parameters = urlencode({"limit": PAGE_EXAMPLES, "offset": n_read, "ordering": "score"})
            page = self.send("GET", f"{self.path}/examples?{parameters}")["results"]
            of_batch = [(each["score"], str(each["id"])) for each in page if each["score"] < UNASKED_SCORE]
            found += of_batch
            n_read += len(page)
            if len(of_batch) < len(page) or not page:
                return found

    def read_batch(self) -> Batch:
        """Return the examples with the scores of a batch; doccano has no place for its name."""
        self.batch = Batch("", [sample for _, sample in self.scored()])
        return self.batch

    def push(self, batch: Batch) -> None:
        """Set the scores of a batch, and set those of the batch before back. Raises TasksDeleted."""
        scores = {sample: round(place * SCORE_STEP, 3) for place, sample in enumerate(batch.ids)}
        for _, sample in self.scored():
            scores.setdefault(sample, UNASKED_SCORE)
        for sample, score in scores.items():
            try:
                self.send("PATCH", f"{self.path}/examples/{sample}", {"score": score})
            except ToolError as error:
                if error.status == 404 and sample in batch.ids:
                    raise TasksDeleted from error
                if error.status != 404:
                    raise
        self.batch = batch
