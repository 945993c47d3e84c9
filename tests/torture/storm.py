"""SIGKILL of random workers, and of the master, under clients who do everything: nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from service.domain.events import replay
from tests.support.serving import Service, is_alive
from tests.torture.archive import read_archive
from tests.torture.asker import Asker, until
from tests.torture.book import votes_in
from tests.torture.clients import (
    CLASSES,
    GROWN,
    LEASED,
    OWNED,
    Annotator,
    Appender,
    Client,
    Fitter,
    Labeller,
    Reader,
    Remaker,
)
from tests.torture.data_dir import check_command, check_soundness, check_tidiness
from tests.torture.holdings import Holdings
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes

MASTER_EVERY = 10
"""One kill in so many is of the master."""


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Kill in rounds; after each, hold what the clients know against what is there."""
    tally, rng = Tally(), random.Random(f"{seed} storm")  # noqa: S311 - it is to come again
    with running(scratch / "data", scratch / "log", AQ_WORKERS="2", AQ_LOG_LEVEL="warning") as service:
        make_projects(service, sizes)
        holdings = Holdings()
        clients = crew(service.port, tally, seed, sizes, holdings)
        asker = Asker(service.port, tally)
        while tally.counts["kills"] < sizes.kills:
            kill_for_a_round(service, clients, sizes, rng, tally)
            verify(asker, clients, scratch / "data", tally)
        tally.lost += holdings.violations()
        verify_after_restart(service, asker, scratch, tally)
    return tally


def make_projects(service: Service, sizes: Sizes) -> None:
    """Make what all clients share."""
    for project, n_samples in ((LEASED, sizes.leased_samples), (OWNED, sizes.owned_samples)):
        X = [[row % 17 / 7, row % 5, row / n_samples] for row in range(n_samples)]
        service.post("/fit", {"project_id": project, "X": X, "classes": list(CLASSES), "estimator": "gaussian_nb"}, 201)
    body = {"project_id": GROWN, "X": [[0, 0, row] for row in range(20)], "ids": [f"first:{row}" for row in range(20)]}
    service.post("/fit", body, expect=201)


def crew(port: int, tally: Tally, seed: int, sizes: Sizes, holdings: Holdings) -> list[Client]:
    """Everybody who works while processes die."""
    own = [range(n, sizes.owned_samples, sizes.labelling) for n in range(sizes.labelling)]
    return [
        *(Annotator(port, tally, seed, f"ann{n}", holdings) for n in range(sizes.leasing)),
        *(Labeller(port, tally, seed, f"lab{n}", samples) for n, samples in enumerate(own)),
        *(Appender(port, tally, seed, f"app{n}") for n in range(sizes.appending)),
        *(Remaker(port, tally, seed, f"rem{n}") for n in range(sizes.remaking)),
        *(Fitter(port, tally, seed, f"fit{n}") for n in range(sizes.fitting)),
        *(Reader(port, tally, seed, f"rea{n}") for n in range(sizes.reading)),
    ]


def kill_for_a_round(
    service: Service, clients: Sequence[Client], sizes: Sizes, rng: random.Random, tally: Tally
) -> None:
    """Let everybody work, and kill now and then."""
    stop = Event()
    with ThreadPoolExecutor(len(clients)) as threads:
        at_work = [threads.submit(client.run, stop) for client in clients]
        try:
            for _ in range(min(sizes.kills_a_round, sizes.kills - tally.counts["kills"])):
                wait_for_work(rng.randint(1, 120), tally)
                time.sleep(rng.random() / 5)
                kill(service, rng, tally)
        finally:
            stop.set()
            for thread in at_work:
                thread.result()


def wait_for_work(replies: int, tally: Tally) -> None:
    """Wait until so much was answered again, so that not only starting processes are killed."""
    enough = tally.counts["replies"] + replies
    until(lambda: tally.counts["replies"] >= enough, 20)


def kill(service: Service, rng: random.Random, tally: Tally) -> None:
    """Kill a worker, or all processes, or the master alone, and start again where there is none."""
    tally.count("kills")
    assert service.process is not None
    if tally.counts["kills"] % MASTER_EVERY == 0:
        workers = service.workers()
        if rng.random() < 0.5:
            service.kill()
            tally.count("kills of all processes")
        else:
            service.process.kill()
            service.process.wait(30)
            until(lambda: not any(map(is_alive, workers)))
            tally.count("kills of the master alone")
        service.start()
        return
    if workers := service.workers():
        os.kill(rng.choice(workers), signal.SIGKILL)
        tally.count("kills of workers")


def verify(asker: Asker, clients: Sequence[Client], root: Path, tally: Tally) -> None:
    """Hold everything against everything, while nobody writes."""
    tally.count("times that everything was compared")
    for client in clients:
        client.verify()
    for project in asker.must("GET", "/projects?limit=1000").json["projects"]:
        verify_project(asker, project["project_id"], tally)
    check_soundness(root, tally)


def verify_project(asker: Asker, project_id: str, tally: Tally) -> None:
    """What a project says of itself fits together, and its events lead to its labels, without a hole."""
    path = f"/projects/{project_id}"
    until(lambda: not asker.must("GET", path).json["fit"]["running_since"])
    labels = asker.must("GET", f"{path}/labels").json["labels"]
    events = all_events(asker, path)
    archive = read_archive(asker.must("GET", f"{path}/export").body)
    project = asker.must("GET", path).json
    versions = sorted({event["version"] for event in events})
    tally.check(versions == list(range(1, versions[-1] + 1)), f"{project_id}: events have holes")
    tally.check(replay(events) == replay_of(labels), f"{project_id}: the events do not lead to the labels")
    tally.check(len(archive.X) == project["n_samples"], f"{project_id}: the pool has {len(archive.X)} rows")
    votes = votes_in(labels)
    skipped = sum(all(vote.label is None for vote in said.values()) for said in votes.values())
    wanted = {"n_labeled": len(votes) - skipped, "n_skipped": skipped}
    tally.check({name: project[name] for name in wanted} == wanted, f"{project_id}: {wanted} by its labels")
    tally.count("events replayed", len(events))


def all_events(asker: Asker, path: str) -> list[dict[str, Any]]:
    """All pages of a project's events."""
    events, after = [], 0
    while after is not None:
        page = asker.must("GET", f"{path}/events?limit=1000&after={after}").json
        events += page["events"]
        after = page["next"]
    return events


def replay_of(labels: Sequence[dict[str, Any]]) -> dict[Any, Any]:
    """Labels in the form that `replay` gives."""
    return {
        (record["index"], record["annotator"]): (record["label"], record["query_id"], record["labeled_at"])
        for record in labels
    }


def verify_after_restart(service: Service, asker: Asker, scratch: Path, tally: Tally) -> None:
    """A new service finds the same, and no rubbish; the check of an operator finds nothing; a copy can be made."""
    names = [project["project_id"] for project in asker.must("GET", "/projects?limit=1000").json["projects"]]
    before = {name: replay_of(asker.must("GET", f"/projects/{name}/labels").json["labels"]) for name in names}
    service.stop()
    check = check_command(scratch / "data")
    tally.check(check == (0, []), f"active-query check: {check}")
    service.start()
    check_tidiness(scratch / "data", tally)
    for name in names:
        labels = replay_of(asker.must("GET", f"/projects/{name}/labels").json["labels"])
        tally.check(labels == before[name], f"{name}: other labels after a restart")
        archive = asker.must("GET", f"/projects/{name}/export").body
        path, headers = f"/projects/import?project_id=copy-{name}", {"Content-Type": "application/zip"}
        asker.must("POST", path, archive, allow=[201], headers=headers)
        copied = replay_of(asker.must("GET", f"/projects/copy-{name}/labels").json["labels"])
        tally.check(copied == labels, f"{name}: other labels in its copy")
