"""active-query annotate: label samples in the terminal, one after the other."""

from __future__ import annotations

import getpass
import string
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import click

from service.cli.connection import PROJECT, service_command
from service.cli.labels import as_label, records_of, stored_parts
from service.client import Client, ServiceError

UNDO, SKIP, QUIT, GUESS, NEW, NAME = "u", "s", "q", "g", "+", "/"
KEYS = "123456789" + "".join(letter for letter in string.ascii_lowercase if letter not in (UNDO, SKIP, QUIT, GUESS))
"""The keys of the first classes; others are named by the beginning of their name, after a slash."""

HELP = "u undo, s skip, g guess of the model, q quit, +name a new class, /name a class by the beginning of its name"


@dataclass
class Session:
    """Questions to one annotator: the samples still to ask about, and those answered, the last one at the end."""

    client: Client
    project: str
    annotator: str
    facts: dict[str, Any]
    to_ask: deque[dict[str, Any]] = field(default_factory=deque)
    answered: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, sample: dict[str, Any]) -> bool:
        """Ask about a sample until it is answered or put aside, and return whether to go on."""
        click.echo(f"\n{describe(sample)}\n{self.choices()}")
        while True:
            given = read_answer()
            if given in (QUIT, ""):
                return False
            if given == GUESS:
                click.echo(self.guess(sample))
            elif given == UNDO:
                if self.undo(sample):
                    return True
            elif (record := self.record_of(given)) is not None:
                self.send(sample, record)
                return True

    def choices(self) -> str:
        """Return the keys of the classes."""
        named = zip(KEYS, self.facts["classes"], strict=False)
        return "  ".join([*(f"[{key}] {label}" for key, label in named), f"({HELP})"])

    def record_of(self, given: str) -> dict[str, Any] | None:
        """Return what a record of POST /label says for an answer, None if it says nothing."""
        classes = self.facts["classes"]
        if given == SKIP:
            return {"skip": True}
        if self.facts["target"] == "number":
            return {"label": as_label(given, self.facts)}
        if given.startswith(NEW) and given[1:].strip():
            return {"label": as_label(given[1:].strip(), self.facts)}
        if len(given) == 1 and given in KEYS[: len(classes)]:
            return {"label": classes[KEYS.index(given)]}
        if given.startswith(NAME):
            found = [label for label in classes if str(label).lower().startswith(given[1:].lower())]
            exact = [label for label in found if str(label).lower() == given[1:].lower()]
            if len(found) == 1 or exact:
                return {"label": (exact or found)[0]}
            click.echo(f"{len(found)} classes begin so: {', '.join(map(str, found[:10]))}")
            return None
        click.echo(f"{given!r} is no key: {self.choices()}")
        return None

    def send(self, sample: dict[str, Any], record: dict[str, Any]) -> None:
        """Send an answer; the last one of a batch asks for a fit, without waiting for it."""
        named = {"index": sample["index"], "query_id": sample["query_id"], "annotator": self.annotator}
        refit = "never" if self.to_ask else "background"
        label = record.get("label")
        if label is not None and self.facts["target"] == "labels":
            record = {"label": [label]}
        try:
            self.client.label(self.project, [{**named, **record}], refit=refit)
        except ServiceError as error:
            if error.status != 422:
                raise
            click.echo("; ".join(each["detail"] for each in error.errors))
            self.to_ask.appendleft(sample)
            return
        self.answered.append(sample)
        if label is not None and label not in self.facts["classes"] and self.facts["target"] != "number":
            self.facts["classes"] = [*self.facts["classes"], label]

    def undo(self, sample: dict[str, Any]) -> bool:
        """Take the last answer back, if there is one; ask about its sample again, and then about this one.

        Return whether there was one.
        """
        if not self.answered:
            click.echo("nothing to undo")
            return False
        last = self.answered.pop()
        self.client.retract(self.project, [last["index"]], annotator=self.annotator, refit="never")
        self.to_ask.extendleft([sample, last])
        return True

    def guess(self, sample: dict[str, Any]) -> str:
        """Return what the model predicts for a sample."""
        try:
            [found] = self.client.predictions(self.project, indices=sample["index"])
        except ServiceError as error:
            return str(error)
        confidence = found.get("confidence")
        return f"{found['label']}" + ("" if confidence is None else f" ({confidence:.0%})")


def describe(sample: dict[str, Any]) -> str:
    """Return what is known of a sample: its id or index, its address and its text."""
    name = sample.get("id", sample["index"])
    return "\n".join(str(part) for part in (f"--- {name}", sample.get("url"), sample.get("text")) if part)


def read_answer() -> str:
    """Return the next answer: a key in a terminal, a line of a pipe; empty at the end of the input."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip() or (" " if line else "")
    key = click.getchar()
    if key in (NEW, NAME) or (key.isdigit() is False and key not in KEYS + UNDO + SKIP + QUIT + GUESS):
        return f"{key}{input(key)}".strip()
    click.echo(key)
    return key


@contextmanager
def kept_lease(client: Client, project: str, query_id: str, seconds: int) -> Iterator[None]:
    """Renew a lease while a batch is open, and release what is left of it at the end."""
    is_over = threading.Event()

    def renew() -> None:
        while not is_over.wait(seconds / 3):
            with suppress(ServiceError):
                client.renew(project, query_id)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        with suppress(ServiceError):  # a lease whose samples are all answered is gone
            client.release(project, query_id)


@click.command()
@PROJECT
@click.option("--annotator", default=getpass.getuser, help="Who labels.  [default: your user name]")
@click.option("--batch-size", default=10, show_default=True, type=click.IntRange(1), help="Samples of a batch.")
@click.option("--strategy", default="auto", show_default=True, help="Name of the strategy; see GET /strategies.")
@click.option(
    "--lease-seconds", default=600, show_default=True, type=click.IntRange(3), help="How long to reserve them."
)
@service_command
def annotate(client: Client, project: str, annotator: str, batch_size: int, strategy: str, lease_seconds: int) -> None:
    """Label samples in the terminal, one after the other.

    Each answer is stored at once, and the model is fitted in the background after each batch. The samples are reserved
    for you until you quit. Answers may also come from a pipe, one on each line. Example:

    active-query annotate --project mails --annotator ada
    """
    session = Session(client, project, annotator, client.project(project))
    parts = stored_parts(client, project)
    fields = {"strategy": strategy, "annotator": annotator, "lease_seconds": lease_seconds, "include": parts}
    try:
        for batch in client.batches(project, batch_size, **fields):
            session.to_ask.extend(records_of(batch.reply))
            with kept_lease(client, project, batch.query_id, lease_seconds):
                while session.to_ask:
                    if not session.ask(session.to_ask.popleft()):
                        return
        click.echo("nothing is left to ask")
    except (KeyboardInterrupt, EOFError):
        pass
    finally:
        click.echo(f"\n{len(session.answered)} answered by {annotator}")
