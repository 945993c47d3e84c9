"""Many annotators with leases over two workers: each sample is handed out once, or to as many people as must see it."""

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
from tests.torture.asker import BUSY, Asker, until
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes

LEASE_SECONDS = 600
CLASSES = ("ant", "bee")


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Label everything: once in peace, once while workers die, once with two people for each sample."""
    tally = Tally()
    with running(scratch / "data", scratch / "log", AQ_WORKERS="2", AQ_LOG_LEVEL="warning") as service:
        for project, overlap, kills in (("peace", 1, 0), ("war", 1, sizes.annotator_kills), ("pairs", 2, 0)):
            label_everything(service, project, overlap, kills, sizes, seed, tally)
    return tally


def label_everything(
    service: Service, project: str, overlap: int, kills: int, sizes: Sizes, seed: int, tally: Tally
) -> None:
    """Let all annotators work until nothing is left for any of them, and compare what each was given."""
    n_samples = sizes.annotated_samples
    X = [[row % 17 / 7, row % 5, row / n_samples] for row in range(n_samples)]
    service.post("/fit", {"project_id": project, "X": X, "y": [*CLASSES, *[None] * (n_samples - 2)]}, expect=201)
    annotators = [Annotator(service.port, tally, project, overlap, seed, n) for n in range(sizes.annotators)]
    begin = time.monotonic()
    with ThreadPoolExecutor(len(annotators)) as threads:
        at_work = [threads.submit(annotator.run) for annotator in annotators]
        kill_workers(service, kills, at_work, random.Random(seed), tally)  # noqa: S311 - it is to come again
        for thread in at_work:
            thread.result()
    tally.figures[f"seconds for {project}"] = f"{time.monotonic() - begin:.0f}"
    compare(annotators, project, overlap, n_samples, twice_is_wrong=not kills, tally=tally)


def kill_workers(
    service: Service, kills: int, at_work: Sequence[Future[None]], rng: random.Random, tally: Tally
) -> None:
    """Kill a worker now and then, while there is work."""
    for _ in range(kills):
        enough = tally.counts["samples answered"] + rng.randint(20, 60)
        until(lambda n=enough: tally.counts["samples answered"] >= n or all(thread.done() for thread in at_work))
        if workers := service.workers():
            os.kill(rng.choice(workers), signal.SIGKILL)
            tally.count("kills of workers")


class Annotator:
    """Asks, answers what was handed out, and asks again, until there is nothing left."""

    def __init__(self, port: int, tally: Tally, project: str, overlap: int, seed: int, number: int) -> None:
        self.asker, self.tally, self.project, self.overlap = Asker(port, tally), tally, project, overlap
        self.name, self.rng = f"annotator-{number}", random.Random(f"{seed} {number}")  # noqa: S311
        self.given: list[int] = []

    def run(self) -> None:
        while True:
            reply = self.asker.ask("POST", "/query", self.question())
            if reply is None or reply.status == BUSY:
                time.sleep(0.05)
            elif reply.json["indices"]:
                self.given += reply.json["indices"]
                self.answer(reply.json["query_id"], reply.json["indices"])
            elif "Retry-After" in reply.headers:
                self.tally.count("times that others held all that was left")
                time.sleep(0.1)
            else:
                return

    def question(self) -> dict[str, object]:
        return {
            "project_id": self.project,
            "annotator": self.name,
            "lease_seconds": LEASE_SECONDS,
            "overlap": self.overlap,
            "batch_size": self.rng.randint(1, 10),
            "strategy": self.rng.choice(("margin", "random")),
        }

    def answer(self, query_id: str, indices: Sequence[int]) -> None:
        """Hand back labels until they are acknowledged: the same again is no change."""
        who = {"annotator": self.name, "query_id": query_id}
        labels = [{"index": index, "label": CLASSES[index % 2], **who} for index in indices]
        refit = self.rng.choices(("never", "background"), (20, 1))[0]
        self.asker.must("POST", "/label", {"project_id": self.project, "labels": labels, "refit": refit})
        self.tally.count("samples answered", len(indices))


def compare(
    annotators: Sequence[Annotator], project: str, overlap: int, n_samples: int, *, twice_is_wrong: bool, tally: Tally
) -> None:
    """Each sample was given to as many people as must see it, once to each, and these are who answered."""
    given = defaultdict(list)
    for annotator in annotators:
        for index in annotator.given:
            given[index].append(annotator.name)
    for index in range(2, n_samples):
        people = given[index]
        wanted = overlap
        tally.check(len(set(people)) == wanted, f"{project}: sample {index} was given to {people}")
        tally.check(not twice_is_wrong or len(people) == wanted, f"{project}: sample {index} was given to {people}")
    labels = annotators[0].asker.must("GET", f"/projects/{project}/labels").json["labels"]
    said = defaultdict(set)
    for record in labels:
        said[record["index"]].add(record["annotator"])
    for index in range(2, n_samples):
        tally.check(said[index] == set(given[index]), f"{project}: {said[index]} answered sample {index}")
    tally.count("samples handed out", sum(map(len, given.values())))
    tally.count("samples looked at", n_samples)
