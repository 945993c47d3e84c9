"""Everything that can be done to a project, in any order, against a plain model of the contract in memory."""

from __future__ import annotations

import math
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from werkzeug.test import TestResponse

from service.app import create_app
from service.domain.events import replay
from service.settings import Settings
from tests.torture.book import Answer, Book, votes_in
from tests.torture.outcome import Tally
from tests.torture.sizes import Sizes
from tests.torture.storm import replay_of

P = "p"
CLASSES = ("ant", "bee", "cat")
people = st.sampled_from(["ada", "bob", "cy"])
labels = st.sampled_from([*CLASSES, None])
seconds = st.sampled_from([1, 5, 60, 600])
refits = st.sampled_from(["never", "never", "wait"])


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Let hypothesis draw the steps; what it finds it makes small."""
    tally = Tally()
    Machine.tally, Machine.scratch = tally, scratch
    options = settings(
        max_examples=sizes.examples,
        stateful_step_count=sizes.steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=options)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told with the steps that led to it
        steps = "; ".join(getattr(error, "__notes__", []))
        tally.lose(
            f"{traceback.format_exception_only(error)[-1]} in {traceback.extract_tb(error.__traceback__)[-1]}: {steps}"
        )
    return tally


class Clock(datetime):
    """Stands still until it is moved."""

    moment = datetime(2030, 1, 1, tzinfo=UTC)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.moment.astimezone(tz)

    @classmethod
    def move(cls, by: float) -> None:
        cls.moment += timedelta(seconds=by)


@dataclass
class Lease:
    """What somebody holds, in the order in which it was given."""

    query_id: str
    annotator: str
    indices: list[int]
    seconds: int
    leased_at: datetime
    expires_at: datetime


@dataclass
class Model:
    """What there must be of a project."""

    n_samples: int
    has_ids: bool
    version: int
    book: Book = field(default_factory=Book)
    leases: list[Lease] = field(default_factory=list)

    @property
    def open(self) -> set[int]:
        return set(range(self.n_samples)) - self.book.votes.keys()

    def live(self) -> list[Lease]:
        """The leases that hold anything now."""
        return [lease for lease in self.leases if lease.expires_at > Clock.moment and lease.indices]

    def held(self, by: Callable[[str], bool]) -> list[int]:
        """What is held, in the order in which it was given."""
        mine = sorted((lease for lease in self.live() if by(lease.annotator)), key=lambda lease: lease.leased_at)
        return [index for lease in mine for index in lease.indices]

    def end_leases(self, indices: Iterable[int], of: str | None = None) -> None:
        """Samples are no longer held, by anybody or by one."""
        for lease in self.leases:
            if of in (None, lease.annotator):
                lease.indices = [index for index in lease.indices if index not in set(indices)]


class Machine(RuleBasedStateMachine):
    """Two workers over one directory, any of which answers; every reply is held against the model."""

    tally: ClassVar[Tally]
    scratch: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=self.scratch))
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr("service.domain.project.datetime", Clock)
        self.model: Model | None = None
        self.version_of_gone = 0
        self.turn = 0
        self.start()

    def start(self) -> None:
        options = Settings(data_dir=self.root / "data", log_level="error")
        self.workers = [create_app(options).test_client() for _ in range(2)]

    def teardown(self) -> None:
        self.patches.undo()
        shutil.rmtree(self.root)

    def call(self, method: str, path: str, expect: int, body: Any = None) -> TestResponse:
        """Ask one worker after the other."""
        self.turn += 1
        self.tally.count("requests")
        reply = self.workers[self.turn % 2].open(path, method=method, json=body)
        assert reply.status_code == expect, (method, path, body, reply.status_code, reply.get_data(as_text=True))
        return reply

    @property
    def there(self) -> Model:
        assert self.model is not None
        return self.model

    @contextmanager
    def commits(self, least: int, most: int) -> Iterator[None]:
        """Hold how many commits a request made against how many it may."""
        before = self.there.version
        yield
        self.there.version = self.call("GET", f"/projects/{P}", 200).json["version"]
        assert before + least <= self.there.version <= before + most

    # What can be done.

    @initialize(n_samples=st.integers(2, 12), has_ids=st.booleans(), y=st.lists(labels, max_size=3))
    def begin(self, n_samples: int, has_ids: bool, y: list[Any]) -> None:
        self.create(n_samples, has_ids, y)

    @rule(n_samples=st.integers(2, 12), has_ids=st.booleans(), y=st.lists(labels, max_size=3))
    def create(self, n_samples: int, has_ids: bool, y: list[Any]) -> None:
        """Make the project, or put another in its place."""
        y = (y + [None] * n_samples)[:n_samples]
        body = {"project_id": P, "X": rows(0, n_samples), "y": y, "classes": CLASSES, "consensus": "majority"}
        body |= {"estimator": "gaussian_nb"} | ({"ids": names(0, n_samples)} if has_ids else {})
        if self.model is not None:
            self.call("POST", "/fit", 409, body)
        version = 1 if self.model is None else self.model.version + 1
        reply = self.call("POST", "/fit", 201 if self.model is None else 200, {**body, "replace": True}).json
        assert reply["version"] == version
        self.model = Model(n_samples, has_ids, version, anonymous(Book(), y, 0))

    @precondition(lambda self: self.model)
    @rule()
    def fit(self) -> None:
        with self.commits(1, 1):
            self.call("POST", "/fit", 200, {"project_id": P})

    @precondition(lambda self: self.model and self.model.n_samples < 30)
    @rule(y=st.lists(labels, min_size=1, max_size=4))
    def append(self, y: list[Any]) -> None:
        first = self.there.n_samples
        body = {"X": rows(first, len(y)), "y": y}
        with_names = {**body, "ids": names(first, len(y))}
        path = f"/projects/{P}/pool"
        self.call("POST", path, 422, body if self.there.has_ids else with_names)
        with self.commits(1, 1):
            self.call("POST", path, 200, with_names if self.there.has_ids else body)
        self.there.n_samples += len(y)
        self.there.book = anonymous(self.there.book, y, first)

    @precondition(lambda self: self.model)
    @rule(
        said=st.lists(
            st.tuples(st.integers(0, 13), labels, people | st.none()), min_size=1, max_size=4, unique_by=lambda t: t[0]
        ),
        refit=refits,
    )
    def label(self, said: list[tuple[int, Any, str | None]], refit: str) -> None:
        model = self.there
        answers = [Answer(index, label, who, f"q-{self.turn}") for index, label, who in said]
        body = {"project_id": P, "labels": [self.plain(answer) for answer in answers], "refit": refit}
        if any(answer.index >= model.n_samples for answer in answers) or model.book.refused(answers):
            self.call("POST", "/label", 422, body)
            return
        after, n_changed = model.book.answered(answers)
        with self.commits(int(n_changed > 0), int(n_changed > 0) if refit == "never" else 2):
            reply = self.call("POST", "/label", 200, body).json
        assert (reply["n_accepted"], reply["n_changed"]) == (len(answers), n_changed)
        model.end_leases(set(after.votes) - set(model.book.votes))
        model.book = after

    def plain(self, answer: Answer) -> dict[str, Any]:
        """A record, by name where there are names and the sample's index is even."""
        record = answer.plain
        if self.there.has_ids and answer.index % 2 == 0 and answer.index < self.there.n_samples:
            record["id"] = f"s{record.pop('index')}"
        return record

    @precondition(lambda self: self.model)
    @rule(index=st.integers(0, 13))
    def retract(self, index: int) -> None:
        model = self.there
        if index not in model.book.votes:
            self.call("DELETE", f"/projects/{P}/labels/{index}", 404)
            return
        with self.commits(1, 1):
            self.call("DELETE", f"/projects/{P}/labels/{index}", 204)
        model.book = model.book.retracted(index)

    @precondition(lambda self: self.model)
    @rule(batch_size=st.integers(1, 6), strategy=st.sampled_from(["random", "margin", "auto"]), who=people | st.none())
    def query(self, batch_size: int, strategy: str, who: str | None) -> None:
        body = {"project_id": P, "batch_size": batch_size, "strategy": strategy} | ({"annotator": who} if who else {})
        reply = self.call("POST", "/query", 200, body)
        self.check_answer(reply, batch_size, who)
        assert reply.json["lease_expires_at"] is None

    @precondition(lambda self: self.model)
    @rule(batch_size=st.integers(1, 6), who=people, seconds=seconds)
    def lease(self, batch_size: int, who: str, seconds: int) -> None:
        Clock.move(0.001)  # so that of two leases one is the older
        model = self.there
        body = {"project_id": P, "batch_size": batch_size, "annotator": who, "lease_seconds": seconds}
        reply = self.call("POST", "/query", 200, body)
        indices = self.check_answer(reply, batch_size, who)
        own = model.held(lambda holder: holder == who)
        assert indices[: len(own)] == own[:batch_size], "what somebody holds comes first"
        if not indices:
            return
        end = Clock.moment + timedelta(seconds=seconds)
        assert datetime.fromisoformat(reply.json["lease_expires_at"]) == end
        assert reply.json["query_id"] not in {lease.query_id for lease in model.leases}
        model.end_leases(indices, who)
        model.leases.append(Lease(reply.json["query_id"], who, indices, seconds, Clock.moment, end))

    def check_answer(self, reply: TestResponse, batch_size: int, who: str | None) -> list[int]:
        """Only what nobody else holds is given, and as much of that as was asked for."""
        model, indices = self.there, reply.json["indices"]
        others = model.held(lambda holder: holder != who)
        allowed = model.open - set(others)
        assert set(indices) <= allowed
        assert len(set(indices)) == len(indices) == min(batch_size, len(allowed))
        assert reply.json["ids"] == ([f"s{index}" for index in indices] if model.has_ids else None)
        assert (reply.json["n_labeled"], reply.json["n_unlabeled"]) == (len(model.book.labeled), len(model.open))
        if others and not allowed:
            first = min(lease.expires_at for lease in model.live() if lease.annotator != who)
            assert reply.json["fallback_reason"]
            assert int(reply.headers["Retry-After"]) == math.ceil((first - Clock.moment).total_seconds())
        else:
            assert "Retry-After" not in reply.headers
        return list(indices)

    @precondition(lambda self: self.model and self.model.leases)
    @rule(data=st.data(), seconds=seconds | st.none())
    def renew(self, data: st.DataObject, seconds: int | None) -> None:
        lease = data.draw(st.sampled_from(self.there.leases))
        path, body = f"/projects/{P}/leases/{lease.query_id}/renew", {"lease_seconds": seconds} if seconds else {}
        if lease not in self.there.live():
            self.call("POST", path, 404, body)
            return
        reply = self.call("POST", path, 200, body).json
        lease.seconds = seconds or lease.seconds
        lease.expires_at = Clock.moment + timedelta(seconds=lease.seconds)
        assert (reply["indices"], datetime.fromisoformat(reply["expires_at"])) == (lease.indices, lease.expires_at)

    @precondition(lambda self: self.model and self.model.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.there.leases))
        is_live = lease in self.there.live()
        self.call("DELETE", f"/projects/{P}/leases/{lease.query_id}", 204 if is_live else 404)
        lease.indices = []

    @rule(by=st.sampled_from([0.5, 1, 4, 60, 3600]))
    def wait(self, by: float) -> None:
        Clock.move(by)

    @rule()
    def restart(self) -> None:
        self.start()
        self.workers[0].application.extensions["active-query"].store.sweep()

    @precondition(lambda self: self.model)
    @rule()
    def delete(self) -> None:
        self.call("DELETE", f"/projects/{P}", 204)
        self.call("DELETE", f"/projects/{P}", 404)
        self.model = None

    # What must be seen at any time.

    @invariant()
    def steps(self) -> None:
        self.tally.count("steps")

    @invariant()
    def the_project_is_as_the_model(self) -> None:
        if self.model is None:
            self.call("GET", f"/projects/{P}", 404)
            return
        model, book = self.model, self.model.book
        project = self.call("GET", f"/projects/{P}", 200).json
        counts = [sum(book.consensus(index) == name for index in book.labeled) for name in CLASSES]
        wanted = {
            "version": model.version,
            "n_samples": model.n_samples,
            "n_labeled": len(book.labeled),
            "n_skipped": len(book.skipped),
            "n_unlabeled": len(model.open),
            "classes": list(CLASSES),
            "class_counts": counts,
        }
        assert {name: project[name] for name in wanted} == wanted

    @invariant()
    def the_labels_are_as_the_model(self) -> None:
        if self.model is not None:
            kept = self.call("GET", f"/projects/{P}/labels", 200).json["labels"]
            assert votes_in(kept) == self.model.book.votes
            assert [record["consensus"] for record in kept] == [self.model.book.consensus(r["index"]) for r in kept]
            events = self.call("GET", f"/projects/{P}/events?limit=1000", 200).json["events"]
            assert replay(events) == replay_of(kept)
            assert sorted({event["version"] for event in events}) == list(range(1, self.model.version + 1))

    @invariant()
    def the_leases_are_as_the_model(self) -> None:
        if self.model is not None:
            kept = self.call("GET", f"/projects/{P}/leases", 200).json["leases"]
            told = [
                (r["query_id"], r["annotator"], r["indices"], datetime.fromisoformat(r["expires_at"])) for r in kept
            ]
            live = self.model.live()
            wanted = [(lease.query_id, lease.annotator, lease.indices, lease.expires_at) for lease in live]
            assert sorted(told) == sorted(wanted)
            assert [end for *_, end in told] == sorted(end for *_, end in told)


def rows(first: int, n_rows: int) -> list[list[float]]:
    return [[float(row % 7), row / 3] for row in range(first, first + n_rows)]


def names(first: int, n_rows: int) -> list[str]:
    return [f"s{row}" for row in range(first, first + n_rows)]


def anonymous(book: Book, y: list[Any], first: int) -> Book:
    """The book with labels that came with samples."""
    answers = [Answer(first + row, label) for row, label in enumerate(y) if label is not None]
    return book.answered(answers)[0]
