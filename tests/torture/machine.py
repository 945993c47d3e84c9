"""Random sequences of requests to a project, compared with a simple in-memory model of the contract."""

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
from tests.torture.expected_labels import ExpectedLabels, LabelRecord, votes_in_reply
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
    """Let hypothesis draw request sequences and shrink any that fails."""
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
    except Exception as error:  # noqa: BLE001 - any error is reported with the steps that led to it
        steps = "; ".join(getattr(error, "__notes__", []))
        tally.fail(
            f"{traceback.format_exception_only(error)[-1]} in {traceback.extract_tb(error.__traceback__)[-1]}: {steps}"
        )
    return tally


class Clock(datetime):
    """A clock that only advances when a test moves it."""

    moment = datetime(2030, 1, 1, tzinfo=UTC)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.moment.astimezone(tz)

    @classmethod
    def move(cls, by: float) -> None:
        cls.moment += timedelta(seconds=by)


@dataclass
class Lease:
    """The samples that one query leased to an annotator, in order."""

    query_id: str
    annotator: str
    indices: list[int]
    seconds: int
    leased_at: datetime
    expires_at: datetime


@dataclass
class Model:
    """The expected state of the project."""

    n_samples: int
    has_ids: bool
    version: int
    expected: ExpectedLabels = field(default_factory=ExpectedLabels)
    leases: list[Lease] = field(default_factory=list)

    @property
    def open(self) -> set[int]:
        return set(range(self.n_samples)) - self.expected.votes.keys()

    def live(self) -> list[Lease]:
        """Leases that have not expired and still hold samples."""
        return [lease for lease in self.leases if lease.expires_at > Clock.moment and lease.indices]

    def held(self, by: Callable[[str], bool]) -> list[int]:
        """Indices leased to the annotators that `by` accepts, oldest lease first."""
        mine = sorted((lease for lease in self.live() if by(lease.annotator)), key=lambda lease: lease.leased_at)
        return [index for lease in mine for index in lease.indices]

    def end_leases(self, indices: Iterable[int], annotator: str | None = None) -> None:
        """End the leases on some samples: those of one annotator, or all."""
        for lease in self.leases:
            if annotator in (None, lease.annotator):
                lease.indices = [index for index in lease.indices if index not in set(indices)]


class Machine(RuleBasedStateMachine):
    """Two workers over one directory take turns; every reply is compared with the model."""

    tally: ClassVar[Tally]
    scratch: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=self.scratch))
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr("service.domain.project.datetime", Clock)
        self.model: Model | None = None
        self.turn = 0
        self.start()

    def start(self) -> None:
        options = Settings(data_dir=self.root / "data", log_level="error")
        self.workers = [create_app(options).test_client() for _ in range(2)]

    def teardown(self) -> None:
        self.patches.undo()
        shutil.rmtree(self.root)

    def call(self, method: str, path: str, expect: int, body: Any = None) -> TestResponse:
        """Send a request to the worker whose turn it is; the status must be the one expected."""
        self.turn += 1
        self.tally.count("requests")
        reply = self.workers[self.turn % 2].open(path, method=method, json=body)
        assert reply.status_code == expect, (method, path, body, reply.status_code, reply.get_data(as_text=True))
        return reply

    @property
    def existing(self) -> Model:
        assert self.model is not None
        return self.model

    @contextmanager
    def commits(self, least: int, most: int) -> Iterator[None]:
        """Check that the requests inside made at least `least` and at most `most` commits."""
        before = self.existing.version
        yield
        self.existing.version = self.call("GET", f"/projects/{P}", 200).json["version"]
        assert before + least <= self.existing.version <= before + most

    # Rules.

    @initialize(n_samples=st.integers(2, 12), has_ids=st.booleans(), y=st.lists(labels, max_size=3))
    def begin(self, n_samples: int, has_ids: bool, y: list[Any]) -> None:
        self.create(n_samples, has_ids, y)

    @rule(n_samples=st.integers(2, 12), has_ids=st.booleans(), y=st.lists(labels, max_size=3))
    def create(self, n_samples: int, has_ids: bool, y: list[Any]) -> None:
        """Create the project or replace it."""
        y = (y + [None] * n_samples)[:n_samples]
        body = {"project_id": P, "X": rows(0, n_samples), "y": y, "classes": CLASSES, "consensus": "majority"}
        body |= {"estimator": "gaussian_nb"} | ({"ids": names(0, n_samples)} if has_ids else {})
        if self.model is not None:
            self.call("POST", "/fit", 409, body)
        version = 1 if self.model is None else self.model.version + 1
        reply = self.call("POST", "/fit", 201 if self.model is None else 200, {**body, "replace": True}).json
        assert reply["version"] == version
        self.model = Model(n_samples, has_ids, version, anonymous(ExpectedLabels(), y, 0))

    @precondition(lambda self: self.model)
    @rule()
    def fit(self) -> None:
        with self.commits(1, 1):
            self.call("POST", "/fit", 200, {"project_id": P})

    @precondition(lambda self: self.model and self.model.n_samples < 30)
    @rule(y=st.lists(labels, min_size=1, max_size=4))
    def append(self, y: list[Any]) -> None:
        first = self.existing.n_samples
        body = {"X": rows(first, len(y)), "y": y}
        with_names = {**body, "ids": names(first, len(y))}
        path = f"/projects/{P}/pool"
        self.call("POST", path, 422, body if self.existing.has_ids else with_names)
        with self.commits(1, 1):
            self.call("POST", path, 200, with_names if self.existing.has_ids else body)
        self.existing.n_samples += len(y)
        self.existing.expected = anonymous(self.existing.expected, y, first)

    @precondition(lambda self: self.model)
    @rule(
        said=st.lists(
            st.tuples(st.integers(0, 13), labels, people | st.none()), min_size=1, max_size=4, unique_by=lambda t: t[0]
        ),
        refit=refits,
    )
    def label(self, said: list[tuple[int, Any, str | None]], refit: str) -> None:
        model = self.existing
        records = [LabelRecord(index, label, who, f"q-{self.turn}") for index, label, who in said]
        body = {"project_id": P, "labels": [self.as_json(record) for record in records], "refit": refit}
        if any(record.index >= model.n_samples for record in records) or model.expected.refuses(records):
            self.call("POST", "/label", 422, body)
            return
        after, n_changed = model.expected.after_labels(records)
        with self.commits(int(n_changed > 0), int(n_changed > 0) if refit == "never" else 2):
            reply = self.call("POST", "/label", 200, body).json
        assert (reply["n_accepted"], reply["n_changed"]) == (len(records), n_changed)
        model.end_leases(set(after.votes) - set(model.expected.votes))
        model.expected = after

    def as_json(self, record: LabelRecord) -> dict[str, Any]:
        """Return a record as JSON; it names samples of even index by id if the pool has ids."""
        fields = record.as_json
        if self.existing.has_ids and record.index % 2 == 0 and record.index < self.existing.n_samples:
            fields["id"] = f"s{fields.pop('index')}"
        return fields

    @precondition(lambda self: self.model)
    @rule(index=st.integers(0, 13))
    def retract(self, index: int) -> None:
        model = self.existing
        if index not in model.expected.votes:
            self.call("DELETE", f"/projects/{P}/labels/{index}", 404)
            return
        with self.commits(1, 1):
            self.call("DELETE", f"/projects/{P}/labels/{index}", 204)
        model.expected = model.expected.after_retraction(index)

    @precondition(lambda self: self.model)
    @rule(batch_size=st.integers(1, 6), strategy=st.sampled_from(["random", "margin", "auto"]), who=people | st.none())
    def query(self, batch_size: int, strategy: str, who: str | None) -> None:
        body = {"project_id": P, "batch_size": batch_size, "strategy": strategy} | ({"annotator": who} if who else {})
        reply = self.call("POST", "/query", 200, body)
        self.check_query(reply, batch_size, who)
        assert reply.json["lease_expires_at"] is None

    @precondition(lambda self: self.model)
    @rule(batch_size=st.integers(1, 6), who=people, seconds=seconds)
    def lease(self, batch_size: int, who: str, seconds: int) -> None:
        Clock.move(0.001)  # no two leases start at the same time
        model = self.existing
        body = {"project_id": P, "batch_size": batch_size, "annotator": who, "lease_seconds": seconds}
        reply = self.call("POST", "/query", 200, body)
        indices = self.check_query(reply, batch_size, who)
        own = model.held(lambda holder: holder == who)
        assert indices[: len(own)] == own[:batch_size], "samples already leased come first"
        if not indices:
            return
        end = Clock.moment + timedelta(seconds=seconds)
        assert datetime.fromisoformat(reply.json["lease_expires_at"]) == end
        assert reply.json["query_id"] not in {lease.query_id for lease in model.leases}
        model.end_leases(indices, who)
        model.leases.append(Lease(reply.json["query_id"], who, indices, seconds, Clock.moment, end))

    def check_query(self, reply: TestResponse, batch_size: int, who: str | None) -> list[int]:
        """The batch has as many of the samples that nobody else holds as were requested."""
        model, indices = self.existing, reply.json["indices"]
        others = model.held(lambda holder: holder != who)
        allowed = model.open - set(others)
        assert set(indices) <= allowed
        assert len(set(indices)) == len(indices) == min(batch_size, len(allowed))
        assert reply.json["ids"] == ([f"s{index}" for index in indices] if model.has_ids else None)
        assert (reply.json["n_labeled"], reply.json["n_unlabeled"]) == (len(model.expected.labeled), len(model.open))
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
        lease = data.draw(st.sampled_from(self.existing.leases))
        path, body = f"/projects/{P}/leases/{lease.query_id}/renew", {"lease_seconds": seconds} if seconds else {}
        if lease not in self.existing.live():
            self.call("POST", path, 404, body)
            return
        reply = self.call("POST", path, 200, body).json
        lease.seconds = seconds or lease.seconds
        lease.expires_at = Clock.moment + timedelta(seconds=lease.seconds)
        assert (reply["indices"], datetime.fromisoformat(reply["expires_at"])) == (lease.indices, lease.expires_at)

    @precondition(lambda self: self.model and self.model.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.existing.leases))
        is_live = lease in self.existing.live()
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

    # Invariants.

    @invariant()
    def count_step(self) -> None:
        self.tally.count("steps")

    @invariant()
    def project_matches_model(self) -> None:
        if self.model is None:
            self.call("GET", f"/projects/{P}", 404)
            return
        model, expected = self.model, self.model.expected
        project = self.call("GET", f"/projects/{P}", 200).json
        counts = [sum(expected.consensus(index) == name for index in expected.labeled) for name in CLASSES]
        wanted = {
            "version": model.version,
            "n_samples": model.n_samples,
            "n_labeled": len(expected.labeled),
            "n_skipped": len(expected.skipped),
            "n_unlabeled": len(model.open),
            "classes": list(CLASSES),
            "class_counts": counts,
        }
        assert {name: project[name] for name in wanted} == wanted

    @invariant()
    def labels_match_model(self) -> None:
        if self.model is not None:
            kept = self.call("GET", f"/projects/{P}/labels", 200).json["labels"]
            assert votes_in_reply(kept) == self.model.expected.votes
            assert [record["consensus"] for record in kept] == [self.model.expected.consensus(r["index"]) for r in kept]
            events = self.call("GET", f"/projects/{P}/events?limit=1000", 200).json["events"]
            assert replay(events) == replay_of(kept)
            assert sorted({event["version"] for event in events}) == list(range(1, self.model.version + 1))

    @invariant()
    def leases_match_model(self) -> None:
        if self.model is not None:
            kept = self.call("GET", f"/projects/{P}/leases", 200).json["leases"]
            seen = [
                (r["query_id"], r["annotator"], r["indices"], datetime.fromisoformat(r["expires_at"])) for r in kept
            ]
            live = self.model.live()
            wanted = [(lease.query_id, lease.annotator, lease.indices, lease.expires_at) for lease in live]
            assert sorted(seen) == sorted(wanted)
            assert [end for *_, end in seen] == sorted(end for *_, end in seen)


def rows(first: int, n_rows: int) -> list[list[float]]:
    return [[float(row % 7), row / 3] for row in range(first, first + n_rows)]


def names(first: int, n_rows: int) -> list[str]:
    return [f"s{row}" for row in range(first, first + n_rows)]


def anonymous(expected: ExpectedLabels, y: list[Any], first: int) -> ExpectedLabels:
    """Add the labels that were sent with rows `first` and up."""
    records = [LabelRecord(first + row, label) for row, label in enumerate(y) if label is not None]
    return expected.after_labels(records)[0]
