"""The clients of the storm. Each alone writes what it owns, and so knows what must be there, whatever dies."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Event
from typing import Any

from tests.support.serving import Reply
from tests.torture.archive import read_archive
from tests.torture.asker import BUSY, Asker
from tests.torture.book import Answer, Book, votes_in
from tests.torture.holdings import Closed, Grant, Holdings
from tests.torture.outcome import Tally

LEASED, OWNED, GROWN = "leased", "owned", "grown"
CLASSES = ("ant", "bee", "cat")
LONG_LEASE, SHORT_LEASE = 120, 1
SURE_SECONDS = 30
"""A lease that ends sooner is not answered: the answer might come after it."""


class Client:
    """Somebody who does one thing after the other until told to stop."""

    def __init__(self, port: int, tally: Tally, seed: int, name: str) -> None:
        self.asker, self.tally, self.name = Asker(port, tally), tally, name
        self.rng = random.Random(f"{seed} {name}")  # noqa: S311 - it is to come again
        self.serial = 0

    def run(self, stop: Event) -> None:
        """Never dies of a bug of its own without telling."""
        try:
            while not stop.is_set():
                self.act()
        except Exception as error:  # noqa: BLE001 - a client that is gone would hide what is lost
            self.tally.lose(f"client {self.name} stopped: {error!r}")

    def act(self) -> None:
        raise NotImplementedError

    def verify(self) -> None:
        """Compare what must be there with what is, while nobody writes."""

    def unique(self) -> str:
        """A name that no other request has."""
        self.serial += 1
        return f"{self.name}-{self.serial}"

    def change(self, what: str, *request: Any, allow: Sequence[int]) -> Reply | None:
        """Ask for a change, and count what became of it."""
        reply = self.asker.ask(*request, allow=allow)
        if reply is None:
            self.tally.count("changes whose outcome was not told")
        elif reply.status < 300:
            self.tally.count(f"acknowledged: {what}")
        return reply


class Owner(Client):
    """Has a book of the votes that it alone gives in a project, and holds it against what is kept."""

    project = OWNED

    def __init__(self, port: int, tally: Tally, seed: int, name: str) -> None:
        super().__init__(port, tally, seed, name)
        self.book = Book()

    def is_own(self, record: dict[str, Any]) -> bool:
        raise NotImplementedError

    def kept(self) -> Book:
        """What is kept of what this client said."""
        labels = self.asker.must("GET", f"/projects/{self.project}/labels").json["labels"]
        return Book(votes_in(record for record in labels if self.is_own(record)))

    def settle(self, after: Book, reply: Reply | None) -> bool:
        """Take over a change that was acknowledged, or find out what became of it; whether it happened."""
        if reply is None:
            kept = self.kept()
            if kept.votes not in (self.book.votes, after.votes):
                self.tally.lose(f"{self.name}: half of a request was kept: {differences(self.book, after, kept)}")
            happened = kept.votes == after.votes
            self.book = kept
            return happened
        if reply.status < 300:
            self.book = after
            return True
        return False

    def verify(self) -> None:
        kept = self.kept()
        self.tally.check(kept.votes == self.book.votes, f"{self.name}: {differences(self.book, self.book, kept)}")
        self.tally.count("votes found as acknowledged", len(kept.votes))


def differences(before: Book, after: Book, kept: Book) -> list[Any]:
    keys = before.votes.keys() | after.votes.keys() | kept.votes.keys()
    three = {key: [book.votes.get(key) for book in (before, after, kept)] for key in keys}
    return [(key, said) for key, said in three.items() if not said[0] == said[1] == said[2]][:5]


class Labeller(Owner):
    """Labels, skips and takes back what people said of samples of its own."""

    def __init__(self, port: int, tally: Tally, seed: int, name: str, samples: Sequence[int]) -> None:
        super().__init__(port, tally, seed, name)
        self.samples = samples
        self.own = set(samples)

    def is_own(self, record: dict[str, Any]) -> bool:
        return record["index"] in self.own

    def act(self) -> None:
        if self.book.votes and self.rng.random() < 0.25:
            self.retract(self.rng.choice(list(self.book.votes)))
        else:
            self.label()

    def label(self) -> None:
        query_id = self.unique()
        samples = self.rng.sample(self.samples, self.rng.randint(1, 5))
        answers = [self.answer(index, query_id) for index in samples]
        refused = self.book.refused(answers)
        after, n_changed = self.book.answered(answers)
        refit = self.rng.choices(("never", "background", "wait"), (8, 3, 1))[0]
        body = {"project_id": self.project, "labels": [answer.plain for answer in answers], "refit": refit}
        reply = self.change("labels", "POST", "/label", body, allow=[422] if refused else [200])
        if refused:
            return
        if reply is not None and reply.status == 200:
            said = reply.json["n_accepted"], reply.json["n_changed"]
            self.tally.check(said == (len(answers), n_changed), f"{self.name}: {said}, not {len(answers), n_changed}")
        self.settle(after, reply)

    def answer(self, index: int, query_id: str) -> Answer:
        label = None if self.rng.random() < 0.1 else self.rng.choice(CLASSES)
        return Answer(index, label, f"{self.name}-{self.rng.randint(1, 3)}", query_id)

    def retract(self, index: int) -> None:
        path = f"/projects/{self.project}/labels/{index}"
        self.settle(self.book.retracted(index), self.change("retractions", "DELETE", path, allow=[204]))


class Annotator(Owner):
    """Asks with a lease, answers what it holds, and at times lets it go, renews it, or takes an answer back."""

    project = LEASED

    def __init__(self, port: int, tally: Tally, seed: int, name: str, holdings: Holdings) -> None:
        super().__init__(port, tally, seed, name)
        self.holdings = holdings
        self.held: dict[int, Grant] = {}
        self.query_of: dict[int, str] = {}
        self.closed: dict[int, Closed] = {}

    def is_own(self, record: dict[str, Any]) -> bool:
        return bool(record["annotator"] == self.name)

    def act(self) -> None:
        chance = self.rng.random()
        if chance < 0.1 and self.book.votes:
            self.retract(self.rng.choice(list(self.book.votes)))
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
        reply = self.asker.ask("POST", "/query", body)
        got = time.time()
        if reply is None:
            self.find_out(sent)
            return
        if reply.status != 200:
            return
        answer = reply.json
        indices = answer["indices"]
        self.tally.count("samples leased", len(indices))
        self.tally.check(len(set(indices)) == len(indices), f"{self.name}: a sample twice in one answer: {indices}")
        sure = {index for index, grant in self.held.items() if grant.end > got + 1}
        if len(indices) <= len(sure) or len(indices) >= len(self.held):
            first = (
                set(indices) <= self.held.keys()
                if len(indices) <= len(sure)
                else sure <= set(indices[: len(self.held)])
            )
            self.tally.check(first, f"{self.name}: holds {sorted(sure)}, which are not first in {indices}")
        if not indices:
            return
        end = moment(answer["lease_expires_at"])
        self.tally.check(
            sent + seconds - 1 <= end <= got + seconds + 1,
            f"{self.name}: a lease of {seconds} s ends at {end - sent:.1f}",
        )
        self.forget(*indices, at=sent)
        for index in indices:
            self.held[index] = Grant(self.name, sent, got, end)
            self.query_of[index] = answer["query_id"]
            self.holdings.given(index, self.held[index])

    def label(self) -> None:
        soon = time.time() + SURE_SECONDS
        sure = [index for index, grant in self.held.items() if grant.end > soon]
        self.forget(*[index for index, grant in self.held.items() if grant.end < soon - SURE_SECONDS], at=None)
        if not sure:
            self.query()
            return
        samples = self.rng.sample(sure, self.rng.randint(1, len(sure)))
        sent = time.time()
        answers = [self.answer(index) for index in samples]
        after, _ = self.book.answered(answers)
        refit = self.rng.choices(("never", "background"), (5, 1))[0]
        body = {"project_id": self.project, "labels": [answer.plain for answer in answers], "refit": refit}
        reply = self.change("labels", "POST", "/label", body, allow=[200])
        if reply is None:
            self.find_out(sent)
        elif reply.status == 200:
            self.forget(*samples, at=sent)
        if self.settle(after, reply):
            at = time.time()
            self.closed |= {index: self.holdings.labelled(index, at) for index in samples}

    def answer(self, index: int) -> Answer:
        label = None if self.rng.random() < 0.05 else self.rng.choice(CLASSES)
        return Answer(index, label, self.name, self.query_of[index])

    def retract(self, index: int) -> None:
        sent = time.time()
        reply = self.change("retractions", "DELETE", f"/projects/{self.project}/labels/{index}", allow=[204])
        if reply is None or reply.status == 204:
            self.closed.pop(index).end = sent
        if not self.settle(self.book.retracted(index), reply) and reply is None:
            self.closed[index] = self.holdings.labelled(index, time.time())

    def release(self, index: int) -> None:
        query_id, sent = self.query_of[index], time.time()
        path = f"/projects/{self.project}/leases/{query_id}"
        reply = self.change("leases released", "DELETE", path, allow=[204, 404])
        self.expect_live(index, reply)
        if reply is None:
            self.find_out(sent)
        elif reply.status != BUSY:
            self.forget(*self.of_lease(query_id), at=sent)

    def renew(self, index: int) -> None:
        query_id, sent = self.query_of[index], time.time()
        path = f"/projects/{self.project}/leases/{query_id}/renew"
        reply = self.change("leases renewed", "POST", path, {"lease_seconds": LONG_LEASE}, allow=[200, 404])
        self.expect_live(index, reply)
        if reply is not None and reply.status == 200:
            end = moment(reply.json["expires_at"])
            self.tally.check(
                end >= sent + LONG_LEASE - 1, f"{self.name}: a renewed lease ends after {end - sent:.1f} s"
            )
            for other in reply.json["indices"]:
                if other in self.held:
                    self.held[other].end = end
        elif reply is None:
            self.find_out(sent)
        elif reply.status == 404:
            self.forget(*self.of_lease(query_id), at=sent)

    def of_lease(self, query_id: str) -> list[int]:
        return [index for index in self.held if self.query_of[index] == query_id]

    def find_out(self, since: float) -> None:
        """Look up what is held after a request of `since` whose outcome was not told."""
        self.forget(*self.held, at=since)
        leases = self.asker.must("GET", f"/projects/{self.project}/leases").json["leases"]
        now = time.time()
        for lease in leases:
            for index in lease["indices"] if lease["annotator"] == self.name else ():
                self.held[index] = Grant(self.name, now, now, moment(lease["expires_at"]))
                self.query_of[index] = lease["query_id"]
                self.holdings.given(index, self.held[index])

    def expect_live(self, index: int, reply: Reply | None) -> None:
        """A lease that surely lasts is there to be renewed or released."""
        sure = self.held[index].end > time.time() + 1
        if sure and reply is not None:
            self.tally.check(reply.status != 404, f"{self.name}: the lease of sample {index} is gone: {reply.body!r}")

    def forget(self, *indices: int, at: float | None) -> None:
        """No longer count on holding samples; `at` is since when, None where their leases have ended."""
        for index in indices:
            grant = self.held.pop(index, None)
            if grant is not None and at is not None:
                grant.end = min(grant.end, at)


def moment(text: str) -> float:
    """RFC 3339 -> seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


class Appender(Client):
    """Puts rows behind a pool that tell where they came from."""

    most = 400

    def __init__(self, port: int, tally: Tally, seed: int, name: str) -> None:
        super().__init__(port, tally, seed, name)
        self.there: list[tuple[str, int]] = []  # what was appended: its name, and how many rows

    def act(self) -> None:
        if len(self.there) >= self.most:
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
            labels = self.asker.must("GET", f"/projects/{GROWN}/labels").json["labels"]
            if any(record["id"] == f"{name}:0" for record in labels):
                self.there.append((name, n_rows))
        elif reply.status == 200:
            self.there.append((name, n_rows))
        time.sleep(self.rng.random() / 4)

    def verify(self) -> None:
        archive = read_archive(self.asker.must("GET", f"/projects/{GROWN}/export").body)
        ids = archive.ids or []
        own = [name for name in ids if name.startswith(f"{self.name}-")]
        wanted = [f"{name}:{row}" for name, n_rows in self.there for row in range(n_rows)]
        self.tally.check(own == wanted, f"{self.name}: {len(own)} rows are there, {len(wanted)} must be, in order")
        for name, n_rows in self.there:
            begin = ids.index(f"{name}:0") if f"{name}:0" in ids else len(ids)
            whole = ids[begin : begin + n_rows] == [f"{name}:{row}" for row in range(n_rows)]
            self.tally.check(whole, f"{self.name}: the rows of {name} do not lie together")
        rows = [row_of(*name.split(":")) for name in own]
        there = [archive.X[position].tolist() for position, name in enumerate(ids) if name.startswith(f"{self.name}-")]
        self.tally.check(there == rows, f"{self.name}: rows are not what was sent")
        self.tally.count("rows found as sent", len(there))


def row_of(name: str, row: int | str) -> list[float]:
    """Three numbers that tell a row from all others."""
    return [float(int.from_bytes(name.encode()[-6:], "big")), float(row), float(len(name))]


class Remaker(Client):
    """Makes a project, labels it, puts another pool in its place, deletes it, and makes it anew."""

    def __init__(self, port: int, tally: Tally, seed: int, name: str) -> None:
        super().__init__(port, tally, seed, name)
        self.project = f"anew-{name}"
        self.made: tuple[int, Book] | None = None  # which pool is there, and the votes on it
        self.version = 0

    def act(self) -> None:
        if self.made is None:
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
            self.asker.ask("POST", "/query", {"project_id": self.project, "strategy": "margin", "batch_size": 3})

    def put(self, *, replace: bool) -> None:
        self.serial += 1
        number = self.serial
        body = {"project_id": self.project, "X": pool_of(number), "replace": replace}
        y = [CLASSES[0], CLASSES[1], *[None] * (len(body["X"]) - 2)]
        reply = self.change("projects made", "POST", "/fit", {**body, "y": y}, allow=[200 if replace else 201])
        book = Book().answered([Answer(0, y[0]), Answer(1, y[1])])[0]
        self.settle((number, book), reply)

    def delete(self) -> None:
        self.settle(None, self.change("projects deleted", "DELETE", f"/projects/{self.project}", allow=[204]))

    def label(self) -> None:
        assert self.made is not None
        number, book = self.made
        samples = self.rng.sample(range(2, len(pool_of(number))), 3)
        answers = [Answer(index, self.rng.choice(CLASSES), self.name, self.unique()) for index in samples]
        body = {"project_id": self.project, "labels": [each.plain for each in answers], "refit": "background"}
        reply = self.change("labels", "POST", "/label", body, allow=[200])
        self.settle((number, book.answered(answers)[0]), reply)

    def settle(self, after: tuple[int, Book] | None, reply: Reply | None) -> None:
        if reply is None:
            kept = self.kept()
            self.tally.check(kept in (self.made, after), f"{self.name}: neither the old nor the new is kept: {kept}")
            self.made = kept
        elif reply.status < 300:
            self.made = after

    def kept(self) -> tuple[int, Book] | None:
        """Which pool is there, by how it looks, and the votes on it."""
        archive = self.asker.must("GET", f"/projects/{self.project}/export", allow=[200, 404])
        if archive.status == 404:
            return None
        X = read_archive(archive.body).X.tolist()
        number = int(X[0][0])
        self.tally.check(pool_of(number) == X, f"{self.name}: a pool that nobody sent")
        labels = self.asker.must("GET", f"/projects/{self.project}/labels").json["labels"]
        return number, Book(votes_in(labels))

    def verify(self) -> None:
        kept = self.kept()
        self.tally.check(kept == self.made, f"{self.name}: {kept} is kept, and {self.made} was acknowledged")


def pool_of(number: int) -> list[list[float]]:
    """The pool of a number: it can be told from all others."""
    return [[float(number), float(row % 5), row / 3] for row in range(10 + number % 7)]


class Fitter(Client):
    """Trains projects again, with one estimator after the other."""

    def act(self) -> None:
        body = {
            "project_id": self.rng.choice((OWNED, LEASED)),
            "estimator": self.rng.choice(("gaussian_nb", "logistic_regression")),
        }
        headers = {"Prefer": "respond-async"} if self.rng.random() < 0.5 else {}
        reply = self.asker.ask("POST", "/fit", body, allow=[200, 202], headers=headers)
        if reply is not None and reply.status < 300:
            self.tally.count("acknowledged: fits")
        time.sleep(self.rng.random() / 5)


class Reader(Client):
    """Looks at everything; what it saw once it must not see undone."""

    def __init__(self, port: int, tally: Tally, seed: int, name: str) -> None:
        super().__init__(port, tally, seed, name)
        self.seen = dict.fromkeys((LEASED, OWNED, GROWN), 0)
        self.looks: list[Callable[[str], None]] = [
            self.look_at_project,
            self.look_at_labels,
            self.look_at_events,
            self.look_at_archive,
            self.look_at_answer,
            self.look_at_annotators,
        ]

    def act(self) -> None:
        self.rng.choice(self.looks)(self.rng.choice(list(self.seen)))
        self.tally.count("looks of readers")

    def get(self, path: str) -> Reply | None:
        reply = self.asker.ask("GET", path)
        return reply if reply is not None and reply.status == 200 else None

    def saw(self, project: str, version: int) -> None:
        """A version never goes back."""
        self.tally.check(version >= self.seen[project], f"{project}: version {version} after {self.seen[project]}")
        self.seen[project] = max(version, self.seen[project])

    def look_at_project(self, project: str) -> None:
        if reply := self.get(f"/projects/{project}"):
            self.saw(project, reply.json["version"])
            total = sum(reply.json[f"n_{part}"] for part in ("labeled", "unlabeled", "skipped"))
            self.tally.check(total == reply.json["n_samples"], f"{project}: numbers of samples do not add up")

    def look_at_labels(self, project: str) -> None:
        if reply := self.get(f"/projects/{project}/labels"):
            keys = [(record["index"], record["annotator"]) for record in reply.json["labels"]]
            order = [index for index, _ in keys]
            self.tally.check(order == sorted(order) and len(set(keys)) == len(keys), f"{project}: labels not in order")

    def look_at_events(self, project: str) -> None:
        if reply := self.get(f"/projects/{project}/events?after={max(0, self.seen[project] - 20)}"):
            versions = [event["version"] for event in reply.json["events"]]
            first = max(0, self.seen[project] - 20) + 1
            whole = sorted(set(versions)) == list(range(first, first + len(set(versions))))
            self.tally.check(whole and versions == sorted(versions), f"{project}: events have holes: {versions}")
            self.saw(project, versions[-1] if reply.json["next"] is None and versions else self.seen[project])

    def look_at_archive(self, project: str) -> None:
        if reply := self.get(f"/projects/{project}/export"):
            self.saw(project, read_archive(reply.body).manifest["project"]["version"])

    def look_at_annotators(self, project: str) -> None:
        self.get(f"/projects/{project}/annotators")

    def look_at_answer(self, project: str) -> None:
        body = {"project_id": project, "strategy": "margin", "batch_size": 20}
        reply = self.asker.ask("POST", "/query", body)
        if reply is not None and reply.status == 200:
            indices = reply.json["indices"]
            self.tally.check(len(set(indices)) == len(indices), f"{project}: a sample twice in one answer")
