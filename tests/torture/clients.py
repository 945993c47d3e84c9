"""The clients of the storm. Each is the only writer of its own data, so it knows what must survive."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Event
from typing import Any

from tests.support.serving import Reply
from tests.torture.archive import read_archive
from tests.torture.checked_client import BUSY, CheckedClient
from tests.torture.expected_labels import ExpectedLabels, LabelRecord, votes_in_reply
from tests.torture.lease_history import Grant, LabelledSpan, LeaseHistory
from tests.torture.outcome import Tally

LEASED, OWNED, GROWN = "leased", "owned", "grown"
CLASSES = ("ant", "bee", "cat")
LONG_LEASE, SHORT_LEASE = 120, 1
SAFE_SECONDS = 30
"""A sample is only labelled if its lease lasts at least this long: the request may be slow."""


class Client:
    """Sends one request after another until it is stopped."""

    def __init__(self, port: int, tally: Tally, seed: int, name: str) -> None:
        self.http, self.tally, self.name = CheckedClient(port, tally), tally, name
        self.rng = random.Random(f"{seed} {name}")  # noqa: S311 - reproducible
        self.serial = 0

    def run(self, stop: Event) -> None:
        """Act until stopped. An exception counts as a failure."""
        try:
            while not stop.is_set():
                self.act()
        except Exception as error:  # noqa: BLE001 - a client that stopped would hide lost data
            self.tally.fail(f"client {self.name} stopped: {error!r}")

    def act(self) -> None:
        raise NotImplementedError

    def verify(self) -> None:
        """Compare the expected with the stored data, while no client writes."""

    def unique(self) -> str:
        """Return a name that no other request has."""
        self.serial += 1
        return f"{self.name}-{self.serial}"

    def change(self, what: str, *request: Any, allow: Sequence[int]) -> Reply | None:
        """Send a write request and count its outcome."""
        reply = self.http.request(*request, allow=allow)
        if reply is None:
            self.tally.count("writes with unknown outcome")
        elif reply.status < 300:
            self.tally.count(f"acknowledged: {what}")
        return reply


class Owner(Client):
    """Keeps the votes that it alone gives in a project, and compares them with the stored ones."""

    project = OWNED

    def __init__(self, port: int, tally: Tally, seed: int, name: str) -> None:
        super().__init__(port, tally, seed, name)
        self.expected = ExpectedLabels()

    def is_own(self, record: dict[str, Any]) -> bool:
        raise NotImplementedError

    def stored(self) -> ExpectedLabels:
        """Return the stored votes of this client."""
        labels = self.http.fetch("GET", f"/projects/{self.project}/labels").json["labels"]
        return ExpectedLabels(votes_in_reply(record for record in labels if self.is_own(record)))

    def update_expectation(self, after: ExpectedLabels, reply: Reply | None) -> bool:
        """Update the expected votes after a write; return whether it happened. Without a reply, read them back."""
        if reply is None:
            stored = self.stored()
            if stored.votes not in (self.expected.votes, after.votes):
                self.tally.fail(
                    f"{self.name}: half of a request was stored: {differences(self.expected, after, stored)}"
                )
            happened = stored.votes == after.votes
            self.expected = stored
            return happened
        if reply.status < 300:
            self.expected = after
            return True
        return False

    def verify(self) -> None:
        stored = self.stored()
        self.tally.check(
            stored.votes == self.expected.votes, f"{self.name}: {differences(self.expected, self.expected, stored)}"
        )
        self.tally.count("acknowledged votes found", len(stored.votes))


def differences(before: ExpectedLabels, after: ExpectedLabels, stored: ExpectedLabels) -> list[Any]:
    keys = before.votes.keys() | after.votes.keys() | stored.votes.keys()
    votes = {key: [labels.votes.get(key) for labels in (before, after, stored)] for key in keys}
    return [(key, each) for key, each in votes.items() if not each[0] == each[1] == each[2]][:5]


class Labeller(Owner):
    """Labels, skips and retracts samples of its own, for several annotators."""

    def __init__(self, port: int, tally: Tally, seed: int, name: str, samples: Sequence[int]) -> None:
        super().__init__(port, tally, seed, name)
        self.samples = samples
        self.own = set(samples)

    def is_own(self, record: dict[str, Any]) -> bool:
        return record["index"] in self.own

    def act(self) -> None:
        if self.expected.votes and self.rng.random() < 0.25:
            self.retract(self.rng.choice(list(self.expected.votes)))
        else:
            self.label()

    def label(self) -> None:
        query_id = self.unique()
        samples = self.rng.sample(self.samples, self.rng.randint(1, 5))
        records = [self.make_record(index, query_id) for index in samples]
        refused = self.expected.refuses(records)
        after, n_changed = self.expected.after_labels(records)
        refit = self.rng.choices(("never", "background", "wait"), (8, 3, 1))[0]
        body = {"project_id": self.project, "labels": [record.as_json for record in records], "refit": refit}
        reply = self.change("labels", "POST", "/label", body, allow=[422] if refused else [200])
        if refused:
            return
        if reply is not None and reply.status == 200:
            counts = reply.json["n_accepted"], reply.json["n_changed"]
            self.tally.check(
                counts == (len(records), n_changed), f"{self.name}: {counts}, not {len(records), n_changed}"
            )
        self.update_expectation(after, reply)

    def make_record(self, index: int, query_id: str) -> LabelRecord:
        label = None if self.rng.random() < 0.1 else self.rng.choice(CLASSES)
        return LabelRecord(index, label, f"{self.name}-{self.rng.randint(1, 3)}", query_id)

    def retract(self, index: int) -> None:
        path = f"/projects/{self.project}/labels/{index}"
        self.update_expectation(
            self.expected.after_retraction(index), self.change("retractions", "DELETE", path, allow=[204])
        )


class Annotator(Owner):
    """Queries with a lease, labels what it holds, and sometimes releases or renews a lease or retracts a label."""

    project = LEASED

    def __init__(self, port: int, tally: Tally, seed: int, name: str, history: LeaseHistory) -> None:
        super().__init__(port, tally, seed, name)
        self.history = history
        self.held: dict[int, Grant] = {}
        self.query_of: dict[int, str] = {}
        self.closed: dict[int, LabelledSpan] = {}

    def is_own(self, record: dict[str, Any]) -> bool:
        return bool(record["annotator"] == self.name)

    def act(self) -> None:
        chance = self.rng.random()
        if chance < 0.1 and self.expected.votes:
            self.retract(self.rng.choice(list(self.expected.votes)))
        elif chance < 0.2 and self.held:
            self.release(self.rng.choice(list(self.held)))
        elif chance < 0.3 and self.held:
            self.renew(self.rng.choice(list(self.held)))
        elif chance < 0.6 or not self.held:
            self.query()
        else:
            self.label()

    def query(self) -> None:
        seconds = SHORT_LEASE if self.rng.random() < 0.2 else LONG_LEASE
        body = {
            "project_id": self.project,
            "annotator": self.name,
            "lease_seconds": seconds,
            "batch_size": self.rng.randint(1, 8),
            "strategy": self.rng.choice(("random", "margin")),
        }
        sent = time.time()
        reply = self.http.request("POST", "/query", body)
        got = time.time()
        if reply is None:
            self.reload_leases(sent)
            return
        if reply.status != 200:
            return
        result = reply.json
        indices = result["indices"]
        self.tally.count("samples leased", len(indices))
        self.tally.check(len(set(indices)) == len(indices), f"{self.name}: a sample twice in one batch: {indices}")
        surely_held = {index for index, grant in self.held.items() if grant.end > got + 1}
        if len(indices) <= len(surely_held):
            first = set(indices) <= self.held.keys()
        else:
            first = len(indices) < len(self.held) or surely_held <= set(indices[: len(self.held)])
        self.tally.check(first, f"{self.name}: holds {sorted(surely_held)}, which are not first in {indices}")
        if not indices:
            return
        end = unix_seconds(result["lease_expires_at"])
        self.tally.check(
            sent + seconds - 1 <= end <= got + seconds + 1,
            f"{self.name}: a lease of {seconds} s ends at {end - sent:.1f}",
        )
        self.drop_leases(*indices, at=sent)
        for index in indices:
            self.held[index] = Grant(self.name, sent, got, end)
            self.query_of[index] = result["query_id"]
            self.history.add_grant(index, self.held[index])

    def label(self) -> None:
        soon = time.time() + SAFE_SECONDS
        surely_held = [index for index, grant in self.held.items() if grant.end > soon]
        self.drop_leases(*[index for index, grant in self.held.items() if grant.end < soon - SAFE_SECONDS], at=None)
        if not surely_held:
            self.query()
            return
        samples = self.rng.sample(surely_held, self.rng.randint(1, len(surely_held)))
        sent = time.time()
        records = [self.make_record(index) for index in samples]
        after, _ = self.expected.after_labels(records)
        refit = self.rng.choices(("never", "background"), (5, 1))[0]
        body = {"project_id": self.project, "labels": [record.as_json for record in records], "refit": refit}
        reply = self.change("labels", "POST", "/label", body, allow=[200])
        if reply is None:
            self.reload_leases(sent)
        elif reply.status == 200:
            self.drop_leases(*samples, at=sent)
        if self.update_expectation(after, reply):
            at = time.time()
            self.closed |= {index: self.history.add_label(index, at) for index in samples}

    def make_record(self, index: int) -> LabelRecord:
        label = None if self.rng.random() < 0.05 else self.rng.choice(CLASSES)
        return LabelRecord(index, label, self.name, self.query_of[index])

    def retract(self, index: int) -> None:
        sent = time.time()
        reply = self.change("retractions", "DELETE", f"/projects/{self.project}/labels/{index}", allow=[204])
        if reply is None or reply.status == 204:
            self.closed.pop(index).end = sent
        if not self.update_expectation(self.expected.after_retraction(index), reply) and reply is None:
            self.closed[index] = self.history.add_label(index, time.time())

    def release(self, index: int) -> None:
        query_id, sent = self.query_of[index], time.time()
        path = f"/projects/{self.project}/leases/{query_id}"
        reply = self.change("leases released", "DELETE", path, allow=[204, 404])
        self.expect_live(index, reply)
        if reply is None:
            self.reload_leases(sent)
        elif reply.status != BUSY:
            self.drop_leases(*self.of_lease(query_id), at=sent)

    def renew(self, index: int) -> None:
        query_id, sent = self.query_of[index], time.time()
        path = f"/projects/{self.project}/leases/{query_id}/renew"
        reply = self.change("leases renewed", "POST", path, {"lease_seconds": LONG_LEASE}, allow=[200, 404])
        self.expect_live(index, reply)
        if reply is not None and reply.status == 200:
            end = unix_seconds(reply.json["expires_at"])
            self.tally.check(
                end >= sent + LONG_LEASE - 1, f"{self.name}: a renewed lease ends after {end - sent:.1f} s"
            )
            for other in reply.json["indices"]:
                if other in self.held:
                    self.held[other].end = end
        elif reply is None:
            self.reload_leases(sent)
        elif reply.status == 404:
            self.drop_leases(*self.of_lease(query_id), at=sent)

    def of_lease(self, query_id: str) -> list[int]:
        return [index for index in self.held if self.query_of[index] == query_id]

    def reload_leases(self, since: float) -> None:
        """Read the held leases from the service after a request, sent at `since`, with unknown outcome."""
        self.drop_leases(*self.held, at=since)
        leases = self.http.fetch("GET", f"/projects/{self.project}/leases").json["leases"]
        now = time.time()
        for lease in leases:
            for index in lease["indices"] if lease["annotator"] == self.name else ():
                self.held[index] = Grant(self.name, now, now, unix_seconds(lease["expires_at"]))
                self.query_of[index] = lease["query_id"]
                self.history.add_grant(index, self.held[index])

    def expect_live(self, index: int, reply: Reply | None) -> None:
        """Check that a lease which cannot have expired was found."""
        is_live = self.held[index].end > time.time() + 1
        if is_live and reply is not None:
            self.tally.check(reply.status != 404, f"{self.name}: the lease of sample {index} is gone: {reply.body!r}")

    def drop_leases(self, *indices: int, at: float | None) -> None:
        """Stop counting on leases: they may have ended at `at`. None if they have expired."""
        for index in indices:
            grant = self.held.pop(index, None)
            if grant is not None and at is not None:
                grant.end = min(grant.end, at)


def unix_seconds(text: str) -> float:
    """Convert an RFC 3339 timestamp to Unix seconds."""
    return datetime.fromisoformat(text).timestamp()


class Appender(Client):
    """Appends rows to a pool that encode the request they came from."""

    max_appends = 400

    def __init__(self, port: int, tally: Tally, seed: int, name: str) -> None:
        super().__init__(port, tally, seed, name)
        self.appended: list[tuple[str, int]] = []  # name and number of rows

    def act(self) -> None:
        if len(self.appended) >= self.max_appends:
            time.sleep(0.2)
            return
        name, n_rows = self.unique(), self.rng.randint(1, 20)
        body = {
            "X": [row_of(name, row) for row in range(n_rows)],
            "ids": [f"{name}:{row}" for row in range(n_rows)],
            "y": [CLASSES[0], *[self.rng.choice((None, *CLASSES)) for _ in range(n_rows - 1)]],
        }
        reply = self.change("appends", "POST", f"/projects/{GROWN}/pool", body, allow=[200])
        if reply is None:
            labels = self.http.fetch("GET", f"/projects/{GROWN}/labels").json["labels"]
            if any(record["id"] == f"{name}:0" for record in labels):
                self.appended.append((name, n_rows))
        elif reply.status == 200:
            self.appended.append((name, n_rows))
        time.sleep(self.rng.random() / 4)

    def verify(self) -> None:
        archive = read_archive(self.http.fetch("GET", f"/projects/{GROWN}/export").body)
        ids = archive.ids or []
        own = [name for name in ids if name.startswith(f"{self.name}-")]
        wanted = [f"{name}:{row}" for name, n_rows in self.appended for row in range(n_rows)]
        self.tally.check(own == wanted, f"{self.name}: {len(own)} rows found, {len(wanted)} expected, in order")
        for name, n_rows in self.appended:
            begin = ids.index(f"{name}:0") if f"{name}:0" in ids else len(ids)
            whole = ids[begin : begin + n_rows] == [f"{name}:{row}" for row in range(n_rows)]
            self.tally.check(whole, f"{self.name}: the rows of {name} are not adjacent")
        rows = [row_of(*name.split(":")) for name in own]
        found = [archive.X[position].tolist() for position, name in enumerate(ids) if name.startswith(f"{self.name}-")]
        self.tally.check(found == rows, f"{self.name}: rows differ from those sent")
        self.tally.count("appended rows found", len(found))


def row_of(name: str, row: int | str) -> list[float]:
    """Return a row that no other request has."""
    return [float(int.from_bytes(name.encode()[-6:], "big")), float(row), float(len(name))]


class Remaker(Client):
    """Creates a project, labels it, replaces its pool, deletes it, and creates it again."""

    def __init__(self, port: int, tally: Tally, seed: int, name: str) -> None:
        super().__init__(port, tally, seed, name)
        self.project = f"again-{name}"
        self.created: tuple[int, ExpectedLabels] | None = None  # number of the pool, and its votes
        self.version = 0

    def act(self) -> None:
        if self.created is None:
            self.put(replace=False)
            return
        chance = self.rng.random()
        if chance < 0.15:
            self.put(replace=True)
        elif chance < 0.3:
            self.delete()
        elif chance < 0.8:
            self.label()
        else:
            self.http.request("POST", "/query", {"project_id": self.project, "strategy": "margin", "batch_size": 3})

    def put(self, *, replace: bool) -> None:
        self.serial += 1
        number = self.serial
        body = {"project_id": self.project, "X": pool_of(number), "replace": replace, "estimator": "gaussian_nb"}
        y = [CLASSES[0], CLASSES[1], *[None] * (len(body["X"]) - 2)]
        reply = self.change("projects created", "POST", "/fit", {**body, "y": y}, allow=[200 if replace else 201])
        labels = ExpectedLabels().after_labels([LabelRecord(0, y[0]), LabelRecord(1, y[1])])[0]
        self.update_expectation((number, labels), reply)

    def delete(self) -> None:
        self.update_expectation(
            None, self.change("projects deleted", "DELETE", f"/projects/{self.project}", allow=[204])
        )

    def label(self) -> None:
        assert self.created is not None
        number, labels = self.created
        samples = self.rng.sample(range(2, len(pool_of(number))), 3)
        records = [LabelRecord(index, self.rng.choice(CLASSES), self.name, self.unique()) for index in samples]
        body = {"project_id": self.project, "labels": [record.as_json for record in records], "refit": "background"}
        reply = self.change("labels", "POST", "/label", body, allow=[200])
        self.update_expectation((number, labels.after_labels(records)[0]), reply)

    def update_expectation(self, after: tuple[int, ExpectedLabels] | None, reply: Reply | None) -> None:
        if reply is None:
            stored = self.stored()
            self.tally.check(
                stored in (self.created, after), f"{self.name}: neither the old nor the new state: {stored}"
            )
            self.created = stored
        elif reply.status < 300:
            self.created = after

    def stored(self) -> tuple[int, ExpectedLabels] | None:
        """Return the number of the stored pool and its votes, or None without a project."""
        archive = self.http.fetch("GET", f"/projects/{self.project}/export", allow=[200, 404])
        if archive.status == 404:
            return None
        X = read_archive(archive.body).X.tolist()
        number = int(X[0][0])
        self.tally.check(pool_of(number) == X, f"{self.name}: a pool that was never sent")
        labels = self.http.fetch("GET", f"/projects/{self.project}/labels").json["labels"]
        return number, ExpectedLabels(votes_in_reply(labels))

    def verify(self) -> None:
        stored = self.stored()
        self.tally.check(stored == self.created, f"{self.name}: {stored} is stored, {self.created} was acknowledged")


def pool_of(number: int) -> list[list[float]]:
    """Return the pool of a number, which differs from all others."""
    return [[float(number), float(row % 5), row / 3] for row in range(10 + number % 7)]


class Fitter(Client):
    """Fits projects with alternating estimators."""

    def act(self) -> None:
        body = {
            "project_id": self.rng.choice((OWNED, LEASED)),
            "estimator": self.rng.choice(("gaussian_nb", "logistic_regression")),
        }
        headers = {"Prefer": "respond-async"} if self.rng.random() < 0.5 else {}
        reply = self.http.request("POST", "/fit", body, allow=[200, 202], headers=headers)
        if reply is not None and reply.status < 300:
            self.tally.count("acknowledged: fits")
        time.sleep(self.rng.random() / 5)


class Reader(Client):
    """Reads everything; a version that it has seen must not be undone."""

    def __init__(self, port: int, tally: Tally, seed: int, name: str) -> None:
        super().__init__(port, tally, seed, name)
        self.seen = dict.fromkeys((LEASED, OWNED, GROWN), 0)
        self.reads: list[Callable[[str], None]] = [
            self.read_project,
            self.read_labels,
            self.read_events,
            self.read_archive,
            self.read_query,
            self.read_annotators,
        ]

    def act(self) -> None:
        self.rng.choice(self.reads)(self.rng.choice(list(self.seen)))
        self.tally.count("reads")

    def get(self, path: str) -> Reply | None:
        reply = self.http.request("GET", path)
        return reply if reply is not None and reply.status == 200 else None

    def check_version(self, project: str, version: int) -> None:
        """Check that the version does not decrease."""
        self.tally.check(version >= self.seen[project], f"{project}: version {version} after {self.seen[project]}")
        self.seen[project] = max(version, self.seen[project])

    def read_project(self, project: str) -> None:
        if reply := self.get(f"/projects/{project}"):
            self.check_version(project, reply.json["version"])
            total = sum(reply.json[f"n_{part}"] for part in ("labeled", "unlabeled", "skipped"))
            self.tally.check(total == reply.json["n_samples"], f"{project}: sample counts do not add up")

    def read_labels(self, project: str) -> None:
        if reply := self.get(f"/projects/{project}/labels"):
            keys = [(record["index"], record["annotator"]) for record in reply.json["labels"]]
            order = [index for index, _ in keys]
            self.tally.check(order == sorted(order) and len(set(keys)) == len(keys), f"{project}: labels not in order")

    def read_events(self, project: str) -> None:
        if reply := self.get(f"/projects/{project}/events?after={max(0, self.seen[project] - 20)}"):
            versions = [event["version"] for event in reply.json["events"]]
            first = max(0, self.seen[project] - 20) + 1
            whole = sorted(set(versions)) == list(range(first, first + len(set(versions))))
            self.tally.check(whole and versions == sorted(versions), f"{project}: events have holes: {versions}")
            self.check_version(project, versions[-1] if reply.json["next"] is None and versions else self.seen[project])

    def read_archive(self, project: str) -> None:
        if reply := self.get(f"/projects/{project}/export"):
            self.check_version(project, read_archive(reply.body).manifest["project"]["version"])

    def read_annotators(self, project: str) -> None:
        self.get(f"/projects/{project}/annotators")

    def read_query(self, project: str) -> None:
        body = {"project_id": project, "strategy": "margin", "batch_size": 20}
        reply = self.http.request("POST", "/query", body)
        if reply is not None and reply.status == 200:
            indices = reply.json["indices"]
            self.tally.check(len(set(indices)) == len(indices), f"{project}: a sample twice in one batch")
