"""active-query annotate: label samples in the terminal, one after the other."""

from __future__ import annotations

import getpass
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import click

from service.cli.answers import GUESS, QUIT, SKIP, UNDO, WrongAnswer, answers_of
from service.cli.connection import PROJECT, service_command
from service.cli.labels import records_of, stored_parts
from service.cli.sample_view import describe
from service.client import Client, ServiceError


@dataclass
class Session:
    """Questions to one annotator: the samples still to ask about, and those answered, the last one at the end.

    `unfitted` is the last record that was sent since a fit was asked for.
    """

    client: Client
    project: str
    annotator: str
    facts: dict[str, Any]
    to_ask: deque[dict[str, Any]] = field(default_factory=deque)
    answered: list[dict[str, Any]] = field(default_factory=list)
    unfitted: dict[str, Any] | None = None

    def ask(self, sample: dict[str, Any]) -> bool:
        """Ask about a sample until it is answered or put aside, and return whether to go on."""
        answers = answers_of(self.facts)
        click.echo(f"\n{describe(sample, self.facts)}\n{answers.help()}")
        while True:
            given = answers.read()
            if given in (QUIT, ""):
                return False
            if given == GUESS:
                click.echo(self.guess(sample))
            elif given == UNDO and not self.answered:
                click.echo("nothing to undo")
            elif given == UNDO:
                self.undo(sample)
                return True
            else:
                try:
                    record = {"skip": True} if given == SKIP else {"label": answers.label_of(given)}
                except WrongAnswer as problem:
                    click.echo(str(problem))
                    continue
                if self.send(sample, record):
                    return True

    def send(self, sample: dict[str, Any], record: dict[str, Any]) -> bool:
        """Send an answer, and return whether the next sample may be shown: the service may refuse the answer."""
        named = {"index": sample["index"], "query_id": sample["query_id"], "annotator": self.annotator}
        try:
            self.label({**named, **record})
        except ServiceError as error:
            if error.status != 422:
                raise
            click.echo("; ".join(each["detail"] for each in error.errors))
            # A sample that was removed meanwhile cannot be answered in any way.
            return any(each["pointer"].endswith("/index") for each in error.errors)
        self.answered.append(sample)
        label = record.get("label")
        if self.facts["target"] != "number" and label is not None:
            given = label if isinstance(label, list) else [label]
            self.facts["classes"] = list(dict.fromkeys([*self.facts["classes"], *given]))
        return True

    def undo(self, sample: dict[str, Any]) -> None:
        """Take the last answer back; ask about its sample again, and then about this one."""
        last = self.answered.pop()
        self.label({"index": last["index"], "label": None, "annotator": self.annotator})
        self.to_ask.extendleft([sample, last])

    def label(self, record: dict[str, Any]) -> None:
        """Send a record; a fit is asked for later."""
        self.client.label(self.project, [record], refit="never")
        self.unfitted = record

    def ask_for_fit(self) -> None:
        """Ask for a fit of the answers, without waiting for it: send the last one again, which changes no label."""
        if self.unfitted is not None:
            self.client.label(self.project, [self.unfitted], refit="background")
            self.unfitted = None

    def guess(self, sample: dict[str, Any]) -> str:
        """Return what the model predicts for a sample."""
        try:
            [found] = self.client.predictions(self.project, indices=sample["index"])
        except ServiceError as error:
            return str(error)
        label, confidence = found["label"], found.get("confidence")
        shown = (", ".join(map(str, label)) or "none of the classes") if isinstance(label, list) else f"{label}"
        return shown + ("" if confidence is None else f" ({confidence:.0%})")


@contextmanager
def kept_lease(client: Client, project: str, query_id: str, seconds: float) -> Iterator[None]:
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

    Each answer is stored at once, and the model is fitted in the background after each batch and when you quit. The
    samples are reserved for you until then. Answers may also come from a pipe, one on each line. Example:

    active-query annotate --project mails --annotator ada
    """
    session = Session(client, project, annotator, client.project(project))
    parts = stored_parts(client, project, "text", "url", "features")
    fields = {"strategy": strategy, "annotator": annotator, "lease_seconds": lease_seconds, "include": parts}
    try:
        with suppress(KeyboardInterrupt, EOFError):
            for batch in client.batches(project, batch_size, **fields):
                if not ask_all(session, batch.query_id, records_of(batch.reply), lease_seconds):
                    break
            else:
                click.echo("nothing is left to ask")
        session.ask_for_fit()
    finally:
        click.echo(f"\n{len(session.answered)} answered by {annotator}")


def ask_all(session: Session, query_id: str, samples: list[dict[str, Any]], lease_seconds: int) -> bool:
    """Ask about the samples of a batch, and return whether to go on with the next one."""
    session.to_ask.extend(samples)
    with kept_lease(session.client, session.project, query_id, lease_seconds):
        while session.to_ask:
            if not session.ask(session.to_ask.popleft()):
                return False
        session.ask_for_fit()
    return True
