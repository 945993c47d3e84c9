"""Many annotators lease samples from two workers: each sample goes to exactly as many annotators as `overlap` says."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tests.support.serving import Service
from tests.torture.checked_client import BUSY, CheckedClient, wait_for
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes

LEASE_SECONDS = 600
CLASSES = ("ant", "bee")


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Label a whole pool with one vote per sample, with two, and while workers are killed."""
    tally = Tally()
    with running(scratch / "data", scratch / "log", AQ_WORKERS="2", AQ_LOG_LEVEL="warning") as service:
        attack(service, sizes, seed, tally)
    return tally


def attack(service: Service, sizes: Sizes, seed: int, tally: Tally) -> None:
    rounds = [("one-vote", 1, 0), ("two-votes", 2, 0)]
    if sizes.annotator_kills:
        rounds.append(("with-kills", 1, sizes.annotator_kills))
    for project, overlap, kills in rounds:
        label_everything(service, project, overlap, kills, sizes, seed, tally)


def label_everything(
    service: Service, project: str, overlap: int, kills: int, sizes: Sizes, seed: int, tally: Tally
) -> None:
    """Let all annotators work until no samples are left, then compare what each was given."""
    n_samples = sizes.annotated_samples
    X = [[row % 17 / 7, row % 5, row / n_samples] for row in range(n_samples)]
    service.post(
        "/fit",
        {"project_id": project, "X": X, "estimator": "logistic_regression", "y": [*CLASSES, *[None] * (n_samples - 2)]},
        expect=201,
    )
    annotators = [Annotator(service.port, tally, project, overlap, seed, n) for n in range(sizes.annotators)]
    begin = time.monotonic()
    with ThreadPoolExecutor(len(annotators)) as threads:
        running_clients = [threads.submit(annotator.run) for annotator in annotators]
        kill_workers(service, kills, running_clients, random.Random(seed), tally)  # noqa: S311 - reproducible
        for thread in running_clients:
            thread.result()
    tally.figures[f"seconds for {project}"] = f"{time.monotonic() - begin:.0f}"
    compare(annotators, project, overlap, n_samples, twice_is_wrong=not kills, tally=tally)


def kill_workers(
    service: Service, kills: int, running_clients: Sequence[Future[None]], rng: random.Random, tally: Tally
) -> None:
    """Kill a random worker every few dozen labels."""
    for _ in range(kills):
        enough = tally.counts["samples labelled"] + rng.randint(20, 60)
        wait_for(
            lambda n=enough: tally.counts["samples labelled"] >= n or all(thread.done() for thread in running_clients)
        )
        if workers := service.workers():
            os.kill(rng.choice(workers), signal.SIGKILL)
            tally.count("kills of workers")


class Annotator:
    """Queries a batch, labels it, and repeats until no samples are left."""

    def __init__(self, port: int, tally: Tally, project: str, overlap: int, seed: int, number: int) -> None:
        self.http, self.tally, self.project, self.overlap = CheckedClient(port, tally), tally, project, overlap
        self.name, self.rng = f"annotator-{number}", random.Random(f"{seed} {number}")  # noqa: S311
        self.received: list[int] = []

    def run(self) -> None:
        while True:
            reply = self.http.request("POST", "/query", self.query_body())
            if reply is None or reply.status == BUSY:
                time.sleep(0.05)
            elif reply.json["indices"]:
                self.received += reply.json["indices"]
                self.label(reply.json["query_id"], reply.json["indices"])
            elif "Retry-After" in reply.headers:
                self.tally.count("queries with all remaining samples leased to others")
                time.sleep(0.1)
            else:
                return

    def query_body(self) -> dict[str, object]:
        return {
            "project_id": self.project,
            "annotator": self.name,
            "lease_seconds": LEASE_SECONDS,
            "overlap": self.overlap,
            "batch_size": self.rng.randint(1, 10),
            "strategy": self.rng.choice(("margin", "random", "auto")),
        }

    def label(self, query_id: str, indices: Sequence[int]) -> None:
        """Send labels until they are acknowledged: repeating them changes nothing."""
        who = {"annotator": self.name, "query_id": query_id}
        labels = [{"index": index, "label": CLASSES[index % 2], **who} for index in indices]
        refit = self.rng.choices(("never", "background"), (20, 1))[0]
        self.http.fetch("POST", "/label", {"project_id": self.project, "labels": labels, "refit": refit})
        self.tally.count("samples labelled", len(indices))


def compare(
    annotators: Sequence[Annotator], project: str, overlap: int, n_samples: int, *, twice_is_wrong: bool, tally: Tally
) -> None:
    """Check that each sample went once to each of `overlap` annotators, and that these labelled it."""
    receivers = defaultdict(list)
    for annotator in annotators:
        for index in annotator.received:
            receivers[index].append(annotator.name)
    for index in range(2, n_samples):
        holders = receivers[index]
        tally.check(len(set(holders)) == overlap, f"{project}: sample {index} was given to {holders}")
        tally.check(not twice_is_wrong or len(holders) == overlap, f"{project}: sample {index} was given to {holders}")
    labels = annotators[0].http.fetch("GET", f"/projects/{project}/labels").json["labels"]
    labelled_by = defaultdict(set)
    for record in labels:
        labelled_by[record["index"]].add(record["annotator"])
    for index in range(2, n_samples):
        tally.check(
            labelled_by[index] == set(receivers[index]),
            f"{project}: sample {index} was labelled by {labelled_by[index]}",
        )
    tally.count("samples leased", sum(map(len, receivers.values())))
    tally.count("samples checked", n_samples)
