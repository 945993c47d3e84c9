"""SIGKILL of random workers and of the master while clients use every endpoint: no acknowledged write is lost."""

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
from tests.torture.checked_client import CheckedClient, wait_for
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
from tests.torture.data_dir import check_command, check_data_directory, check_no_leftovers
from tests.torture.expected_labels import votes_in_reply
from tests.torture.lease_history import LeaseHistory
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes

MASTER_EVERY = 10
"""One kill in this many hits the master."""


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Kill in rounds; after each, compare the clients' knowledge with the stored data."""
    tally = Tally()
    with running(scratch / "data", scratch / "log", AQ_WORKERS="2", AQ_LOG_LEVEL="warning") as service:
        attack(service, sizes, seed, tally)
    return tally


def attack(service: Service, sizes: Sizes, seed: int, tally: Tally) -> None:
    make_projects(service, sizes)
    history, rng = LeaseHistory(), random.Random(f"{seed} storm")  # noqa: S311 - reproducible
    clients = make_clients(service.port, tally, seed, sizes, history)
    client = CheckedClient(service.port, tally)
    while tally.counts["kills"] < sizes.kills:
        kill_for_a_round(service, clients, sizes, rng, tally)
        verify(client, clients, service.data_dir, tally)
    tally.failures += history.violations()
    verify_after_restart(service, client, tally)


def make_projects(service: Service, sizes: Sizes) -> None:
    """Create the projects that all clients share."""
    for project, n_samples in ((LEASED, sizes.leased_samples), (OWNED, sizes.owned_samples)):
        X = [[row % 17 / 7, row % 5, row / n_samples] for row in range(n_samples)]
        service.post("/fit", {"project_id": project, "X": X, "classes": list(CLASSES), "estimator": "gaussian_nb"}, 201)
    body = {
        "project_id": GROWN,
        "estimator": "gaussian_nb",
        "X": [[0, 0, row] for row in range(20)],
        "ids": [f"first:{row}" for row in range(20)],
    }
    service.post("/fit", body, expect=201)


def make_clients(port: int, tally: Tally, seed: int, sizes: Sizes, history: LeaseHistory) -> list[Client]:
    """Create all clients."""
    own = [range(n, sizes.owned_samples, sizes.labelling) for n in range(sizes.labelling)]
    return [
        *(Annotator(port, tally, seed, f"ann{n}", history) for n in range(sizes.leasing)),
        *(Labeller(port, tally, seed, f"lab{n}", samples) for n, samples in enumerate(own)),
        *(Appender(port, tally, seed, f"app{n}") for n in range(sizes.appending)),
        *(Remaker(port, tally, seed, f"rem{n}") for n in range(sizes.remaking)),
        *(Fitter(port, tally, seed, f"fit{n}") for n in range(sizes.fitting)),
        *(Reader(port, tally, seed, f"rea{n}") for n in range(sizes.reading)),
    ]


def kill_for_a_round(
    service: Service, clients: Sequence[Client], sizes: Sizes, rng: random.Random, tally: Tally
) -> None:
    """Run all clients and kill a process now and then."""
    stop = Event()
    with ThreadPoolExecutor(len(clients)) as threads:
        running_clients = [threads.submit(client.run, stop) for client in clients]
        try:
            for _ in range(min(sizes.kills_per_round, sizes.kills - tally.counts["kills"])):
                wait_for_work(rng.randint(1, 120), tally)
                time.sleep(rng.random() / 5)
                kill(service, rng, tally)
        finally:
            stop.set()
            for thread in running_clients:
                thread.result()


def wait_for_work(replies: int, tally: Tally) -> None:
    """Wait for some replies, so that not only starting processes are killed."""
    enough = tally.counts["replies"] + replies
    wait_for(lambda: tally.counts["replies"] >= enough, 20)


def kill(service: Service, rng: random.Random, tally: Tally) -> None:
    """Kill a worker, all processes, or the master alone; restart the service if its master was killed."""
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
            wait_for(lambda: not any(map(is_alive, workers)))
            tally.count("kills of the master alone")
        service.start()
        return
    if workers := service.workers():
        os.kill(rng.choice(workers), signal.SIGKILL)
        tally.count("kills of workers")


def verify(client: CheckedClient, clients: Sequence[Client], root: Path, tally: Tally) -> None:
    """Check all stored data while no client writes."""
    tally.count("full comparisons")
    for writer in clients:
        writer.verify()
    for project in client.fetch("GET", "/projects?limit=1000").json["projects"]:
        verify_project(client, project["project_id"], tally)
    check_data_directory(root, tally)


def verify_project(client: CheckedClient, project_id: str, tally: Tally) -> None:
    """Check that a project is consistent, and that replaying its events gives its labels."""
    path = f"/projects/{project_id}"
    wait_for(lambda: not client.fetch("GET", path).json["fit"]["running_since"])
    labels = client.fetch("GET", f"{path}/labels").json["labels"]
    events = all_events(client, path)
    archive = read_archive(client.fetch("GET", f"{path}/export").body)
    project = client.fetch("GET", path).json
    versions = sorted({event["version"] for event in events})
    tally.check(versions == list(range(1, versions[-1] + 1)), f"{project_id}: events are missing")
    tally.check(replay(events) == replay_of(labels), f"{project_id}: replaying the events does not give the labels")
    tally.check(len(archive.X) == project["n_samples"], f"{project_id}: the pool has {len(archive.X)} rows")
    votes = votes_in_reply(labels)
    skipped = sum(all(vote.label is None for vote in each.values()) for each in votes.values())
    wanted = {"n_labeled": len(votes) - skipped, "n_skipped": skipped}
    tally.check({name: project[name] for name in wanted} == wanted, f"{project_id}: the labels give {wanted}")
    tally.count("events replayed", len(events))


def all_events(client: CheckedClient, path: str) -> list[dict[str, Any]]:
    """Return all events of a project."""
    events, after = [], 0
    while after is not None:
        page = client.fetch("GET", f"{path}/events?limit=1000&after={after}").json
        events += page["events"]
        after = page["next"]
    return events


def replay_of(labels: Sequence[dict[str, Any]]) -> dict[Any, Any]:
    """Return labels in the form that `replay` returns."""
    return {
        (record["index"], record["annotator"]): (record["label"], record["query_id"], record["labeled_at"])
        for record in labels
    }


def verify_after_restart(service: Service, client: CheckedClient, tally: Tally) -> None:
    """Check after a restart: same labels, no leftover files, `check` passes, and an export can be imported."""
    names = [project["project_id"] for project in client.fetch("GET", "/projects?limit=1000").json["projects"]]
    before = {name: replay_of(client.fetch("GET", f"/projects/{name}/labels").json["labels"]) for name in names}
    service.stop()
    check = check_command(service.data_dir)
    tally.check(check == (0, []), f"active-query check: {check}")
    service.start()
    check_no_leftovers(service.data_dir, tally)
    for name in names:
        labels = replay_of(client.fetch("GET", f"/projects/{name}/labels").json["labels"])
        tally.check(labels == before[name], f"{name}: labels differ after a restart")
        archive = client.fetch("GET", f"/projects/{name}/export").body
        path, headers = f"/projects/import?project_id=copy-{name}", {"Content-Type": "application/zip"}
        client.fetch("POST", path, archive, allow=[201], headers=headers)
        copied = replay_of(client.fetch("GET", f"/projects/copy-{name}/labels").json["labels"])
        tally.check(copied == labels, f"{name}: labels differ in its copy")
