"""A bridge between a labelling tool and a project of the service.

The tool has the tasks and the annotations, the service chooses what to ask next. The bridge reads the changes of the
tool, sends the difference to the service, and gives the tool the next batch once half of the present one is answered.
It stores nothing: it reads both sides when it starts, and again after an error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from service.bridges.web import ToolError
from service.client import Client, JsonObject, ServiceError

log = logging.getLogger(__name__)

Answer = str | list[str] | None
"""A label, several labels where the tool has such, or None = skipped."""

BATCH_PREFIX = "aq-"
"""The beginning of the name of each batch of the service."""

PIECE_CHARACTERS = 2**22
PIECE_RECORDS = 50_000
PAGE_SAMPLES = 100_000
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 15.0
STEP_TRIES = 3


@dataclass(frozen=True, slots=True)
class Task:
    """A task of the tool: its text or vector, None if it has none, and each annotator's answer.

    `is_done` says that the tool does not show it to annotators any more. `changed_at` is None if the tool has no such
    time.
    """

    id: str
    content: str | list[float] | None
    answers: Mapping[str, Answer]
    is_done: bool
    url: str | None = None
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """The tasks that changed since the last time, the ids of all tasks, and the classes that the tool offers."""

    tasks: Sequence[Task]
    ids: Set[str]
    classes: Sequence[str]
    answers_per_task: int = 1
    has_several: bool = False
    """Whether a task may have several labels at once."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The class that the model gives a task, or several, and how sure it is."""

    labels: Sequence[str]
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The ids of the tasks to ask, in their order, and predictions of some.

    The name is that of its model and query, empty if the tool has no place for it.
    """

    name: str
    ids: Sequence[str]
    predictions: Mapping[str, Prediction] = field(default_factory=dict)

    @property
    def query_id(self) -> str:
        """The id of the query that chose the batch."""
        return self.name.rpartition("-")[2]


NO_BATCH = Batch("", ())


class TasksDeleted(Exception):
    """The tool does not have a task of the batch any more."""


class Tool(Protocol):
    """A labelling tool. Every method raises ToolError."""

    def read_changes(self, *, everything: bool) -> Changes:
        """Return the tasks that changed since the last call, or all of them."""

    def owns(self, annotator: str | None) -> bool:
        """Return whether an annotator of the project comes from this tool."""

    def read_batch(self) -> Batch:
        """Return the batch that the tool shows, without predictions; NO_BATCH if it shows another order."""

    def push(self, batch: Batch) -> None:
        """Show a batch in its order instead of the one before. Raises TasksDeleted."""


@dataclass(slots=True)
class Known:
    """What both sides know, as far as the bridge has read and written it."""

    samples: set[str] = field(default_factory=set)
    """The ids in the pool, without the removed ones."""
    removed: set[str] = field(default_factory=set)
    """The ids of the removed samples."""
    written_at: datetime | None = None
    """The time of the last change of the project, when it was read."""
    labels: dict[str, dict[str, Answer]] = field(default_factory=dict)
    """The answers that the service has, by id and annotator."""
    classes: list[str] = field(default_factory=list)
    """The classes of the project."""
    contents: dict[str, int] = field(default_factory=dict)
    """A hash of the text or vector of each task."""
    done: set[str] = field(default_factory=set)
    """The tasks that the tool does not show any more."""
    batch: Batch = NO_BATCH
    """The batch that the tool shows."""


def may_pass(error: ToolError | ServiceError) -> bool:
    """Return whether the same request may succeed later: there was no reply, or the server is busy or fails."""
    return error.status is None or error.status >= 500 or error.status in (408, 429)


def label_records(
    tasks: Iterable[Task], labels: Mapping[str, Mapping[str, Answer]], batch: Batch = NO_BATCH
) -> Iterator[JsonObject]:
    """Yield the records of `POST /label` for the answers that the service does not have or should not have.

    `labels` are those of the service, by id and annotator; the batch says which query asked.
    """
    for task in tasks:
        present = labels.get(task.id, {})
        asked = {"query_id": batch.query_id} if batch.name and task.id in batch.ids else {}
        for annotator, answer in task.answers.items():
            if annotator not in present or present[annotator] != answer:
                yield {"id": task.id, "annotator": annotator, **fields_of(answer), **asked}
        for annotator in sorted(present.keys() - task.answers.keys()):
            yield {"id": task.id, "annotator": annotator, "label": None}


def fields_of(answer: Answer) -> JsonObject:
    """Return the fields of a record with an answer. The tool decides on the classes, also if two look alike."""
    return {"skip": True} if answer is None else {"label": answer, "new_class": True}


def in_order(answer: Answer) -> Answer:
    """Return an answer, with several labels in their order."""
    return sorted(answer) if isinstance(answer, list) else answer


def pieces_of(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    """Yield the tasks in pieces, each small enough for one request."""
    piece: list[Task] = []
    size = 0
    for task in tasks:
        length = len(str(task.content))
        if piece and size + length > PIECE_CHARACTERS:
            yield piece
            piece, size = [], 0
        piece.append(task)
        size += length
    if piece:
        yield piece


class Bridge:
    """Keeps a project of the service and a tool in step. Every method raises ToolError and ServiceError."""

    def __init__(self, tool: Tool, client: Client, project_id: str, batch_size: int, *, prelabel: bool = False) -> None:
        self.tool, self.client, self.project_id = tool, client, project_id
        self.batch_size, self.prelabel = batch_size, prelabel
        self.known: Known | None = None

    def run(self, pause_seconds: float) -> None:
        """Keep both sides in step for ever. While one of them is away, try again, less and less often.

        Until both have been in step once, an error that waiting does not heal is raised, such as a wrong token.
        """
        wait, was_in_step = FIRST_WAIT_SECONDS, False
        while True:
            try:
                self.step()
            except (ToolError, ServiceError) as error:
                if not was_in_step and not may_pass(error):
                    raise
                log.warning("%s; next try in %.0f s", error, wait)
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            else:
                wait, was_in_step = FIRST_WAIT_SECONDS, True
                time.sleep(pause_seconds)

    def step(self) -> None:
        """Bring both sides in step once. After an error, the next call reads both sides again."""
        for number in range(1, STEP_TRIES + 1):
            try:
                self.try_step()
            except TasksDeleted as error:
                if number == STEP_TRIES:
                    raise ToolError(f"the tool has not all tasks of the batch: {error}") from error
            else:
                return

    def try_step(self) -> None:
        """Bring both sides in step. Raises TasksDeleted if a task of the next batch was deleted meanwhile."""
        known, self.known = self.known, None
        is_first = known is None
        if known is None:
            known = self.read_service()
        changes = self.tool.read_changes(everything=is_first)
        if is_first:
            self.check_same_tasks(known, changes)
            known.batch = self.tool.read_batch()
        deleted = known.samples - changes.ids
        if is_first or changes.tasks or deleted:
            self.send_samples(known, changes)
            self.send_answers(known, changes.tasks)
            self.remove_samples(known, deleted)
            self.refill(known, changes)
        self.known = known

    def read_service(self) -> Known:
        """Return what the service knows."""
        known = Known()
        try:
            project = self.client.project(self.project_id)
        except ServiceError as error:
            if error.status == 404:
                return known
            raise
        known.classes, known.written_at = project["classes"], datetime.fromisoformat(project["updated_at"])
        for sample in self.client.samples(self.project_id, limit=PAGE_SAMPLES):
            (known.removed if sample["status"] == "removed" else known.samples).add(str(sample["id"]))
        for record in self.client.labels(self.project_id):
            if self.tool.owns(record["annotator"]):
                known.labels.setdefault(record["id"], {})[record["annotator"]] = in_order(record["label"])
        return known

    def check_same_tasks(self, known: Known, changes: Changes) -> None:
        """Raise ServiceError if the project has samples, but none of the tool's tasks."""
        if known.samples and changes.ids and not known.samples & changes.ids:
            problem = "its samples are of another project: choose a new name for it"
            raise ServiceError(f"project {self.project_id!r} has none of the tasks; {problem}", 409)

    def send_samples(self, known: Known, changes: Changes) -> None:
        """Append new tasks to the pool, and replace those whose text or vector was edited."""
        usable = [task for task in changes.tasks if task.content is not None]
        new = [task for task in usable if task.id not in known.samples and task.id not in known.removed]
        edited = [task for task in usable if task.id in known.samples and self.is_edited(known, task)]
        for piece in pieces_of(new):
            self.append(known, piece, changes)
        for piece in pieces_of(edited):
            self.append(known, piece, changes, if_known="replace")
        for task in usable:
            known.contents[task.id] = hash(str(task.content))
        if len(usable) < len(changes.tasks):
            log.warning("%d tasks are left out: their field is empty or missing", len(changes.tasks) - len(usable))
        if new:
            log.info("%d new tasks; the pool has %d", len(new), len(known.samples))
        if edited:
            log.info("%d edited tasks", len(edited))

    def is_edited(self, known: Known, task: Task) -> bool:
        """Return whether the service may have an older text or vector of a task.

        Nobody says what it has, so when the bridge starts, all tasks count that changed since the project did.
        """
        if task.id in known.contents:
            return known.contents[task.id] != hash(str(task.content))
        return known.written_at is not None and task.changed_at is not None and task.changed_at > known.written_at

    def append(self, known: Known, tasks: Sequence[Task], changes: Changes, **how: str) -> None:
        """Append tasks to the pool, which the first ones create."""
        contents = [task.content for task in tasks]
        samples: dict[str, Any] = {"texts" if isinstance(contents[0], str) else "X": contents}
        samples["ids"] = [task.id for task in tasks]
        if tasks[0].url is not None:
            samples["urls"] = [task.url or "" for task in tasks]
        if known.samples or known.removed:
            self.client.append(self.project_id, **samples, **how)
        else:
            # The tool decides which classes there are, also if two look alike.
            target = {"target": "labels"} if changes.has_several else {}
            self.client.fit(self.project_id, classes=[*changes.classes], similar_labels="allow", **target, **samples)
            known.classes = [*changes.classes]
        known.samples.update(samples["ids"])

    def send_answers(self, known: Known, tasks: Sequence[Task]) -> None:
        """Send the labels, skips and retractions that the service does not have yet."""
        in_pool = [task for task in tasks if task.id in known.samples]
        records = list(label_records(in_pool, known.labels, known.batch))
        self.declare(known, (record.get("label") for record in records))
        for start in range(0, len(records), PIECE_RECORDS):
            self.client.label(self.project_id, records[start : start + PIECE_RECORDS], refit="never")
        for task in tasks:
            known.labels[task.id] = dict(task.answers)
            (known.done.add if task.is_done else known.done.discard)(task.id)
        if records:
            log.info("%d answers sent: labels, skips and retractions", len(records))

    def declare(self, known: Known, labels: Iterable[Answer]) -> None:
        """Add the classes of labels to those of the project."""
        lists = ([label] if isinstance(label, str) else label or () for label in labels)
        classes = dict.fromkeys(label for one in lists for label in one)
        new = [label for label in classes if label not in known.classes]
        if new and known.classes:
            known.classes = self.client.fit(self.project_id, classes=[*known.classes, *new])["classes"]

    def remove_samples(self, known: Known, deleted: Set[str]) -> None:
        """Take the tasks that were deleted out of the pool."""
        if not deleted:
            return
        self.client.remove(self.project_id, ids=sorted(deleted))
        known.samples -= deleted
        known.removed |= deleted
        log.info("%d tasks were deleted", len(deleted))

    def refill(self, known: Known, changes: Changes) -> None:
        """Give the tool the next batch if at most half of the present one is left to answer."""
        left = [task for task in known.batch.ids if task in changes.ids and task not in known.done]
        if len(left) > self.batch_size // 2 or not known.samples:
            return
        if self.client.project(self.project_id)["n_labels_since_fit"]:
            self.client.fit(self.project_id)
        # The tool may be done with a task that has no label, and skips by one annotator may be open for others.
        closed = sorted(task for task in known.done & known.samples if not known.labels.get(task))
        fields: JsonObject = {"exclude_ids": closed} if closed else {}
        if changes.answers_per_task > 1:
            fields["overlap"] = changes.answers_per_task
        asked = self.client.query(self.project_id, self.batch_size, **fields)
        if not asked.indices:
            log.info("nothing is left to ask")
            return
        ids = [str(sample) for sample in asked.ids or ()]
        name = f"{BATCH_PREFIX}{asked.reply['model_version'] or 0}-{asked.query_id}"
        if name == known.batch.name and set(ids) == set(known.batch.ids):
            return
        known.batch = Batch(name, ids, self.predict(asked.indices) if self.prelabel else {})
        self.tool.push(known.batch)
        log.info("the next %d tasks, by %s", len(ids), asked.reply["strategy"])

    def predict(self, indices: Sequence[int]) -> dict[str, Prediction]:
        """Return the predictions of the model for some samples, by id; none without a model."""
        try:
            found = list(self.client.predictions(self.project_id, indices=",".join(map(str, indices))))
        except ServiceError as error:
            if error.status == 409:
                return {}
            raise
        return {
            str(each["id"]): Prediction(labels if isinstance(labels, list) else [labels], each["confidence"])
            for each in found
            if (labels := each["label"])
        }
