"""Writes to a nearly full disk, with more and more space left, and to a read-only disk."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.npy import npy
from tests.support.serving import Reply
from tests.torture.checked_client import CheckedClient, wait_for
from tests.torture.data_dir import check_data_directory, leftover_files
from tests.torture.forms import FORM, NDJSON, ZIP, form
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes

PAGE = 4096
DISK_BYTES = 2**25
N_SAMPLES = 200
FULL = 507
BUG = "internal error"
number = count()


@dataclass(frozen=True)
class Write:
    """A write request. `make` returns its method, path, body and headers, new ones for each attempt."""

    make: Callable[[CheckedClient], tuple[Any, ...]]
    status: int = 200


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Try each write with more and more space until it succeeds; then remount the disk read-only."""
    tally = Tally()
    disk = scratch / "disk"
    disk.mkdir()
    with mounted(disk) as is_mounted:
        if is_mounted:
            with running(disk / "data", scratch / "log", AQ_WORKERS="1", AQ_LOG_LEVEL="error") as service:
                try_all_writes(CheckedClient(service.port, tally), disk, sizes.disk_steps, tally)
        else:
            tally.skipped = "needs root and mount"
    return tally


def try_all_writes(client: CheckedClient, disk: Path, steps: int, tally: Tally) -> None:
    client.fetch("POST", "/fit", whole_project(), allow=[201])
    for name, write in WRITES.items():
        try_with_more_space(client, disk, name, write, steps, tally)
    check_data_directory(disk / "data", tally)
    try_read_only(client, disk, tally)


@contextmanager
def mounted(disk: Path) -> Iterator[bool]:
    """Mount a small tmpfs; yield False if that is not allowed."""
    command = ["/bin/mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(disk)]
    is_mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["/bin/umount", "--lazy", str(disk)], check=True)


def whole_project() -> dict[str, Any]:
    """Return a /fit request with every optional array."""
    X = [[row % 7, row / 3, 1.0] for row in range(N_SAMPLES)]
    y = ["ant", "bee"] * 10 + [None] * (N_SAMPLES - 20)
    names = [f"s{row}" for row in range(N_SAMPLES)]
    test = {"X_test": X[:4], "y_test": ["ant", "bee", "ant", "bee"]}
    return {"project_id": "p", "estimator": "logistic_regression", "X": X, "y": y, "ids": names, **test}


@contextmanager
def free_space(disk: Path, n_bytes: int) -> Iterator[None]:
    """Fill the disk but for `n_bytes`."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        with suppress(OSError):  # the disk is full
            while True:
                os.write(file.fileno(), bytes(PAGE))
        file.truncate(max(file.tell() - n_bytes, 0))
    try:
        yield
    finally:
        filler.unlink()


def try_with_more_space(client: CheckedClient, disk: Path, name: str, write: Write, steps: int, tally: Tally) -> None:
    """Try a write with more and more space until it succeeds. A failed attempt must change nothing."""
    for n_pages in (*range(steps), *(2**power for power in range(3, 13) if 2**power >= steps)):
        wait_for(lambda: all(project["fit"]["running_since"] is None for project in projects(client)))
        method, path, body, headers = write.make(client)
        before = visible_state(client)
        with free_space(disk, n_pages * PAGE):
            reply = client.request(method, path, body, headers=headers, allow=[write.status, FULL])
            seen = visible_state(client)
        tally.count("writes tried on a nearly full disk")
        if reply is None:
            tally.fail(f"{name}, {n_pages} pages left: the connection broke")
            return
        if reply.status == write.status:
            break
        tally.count("writes refused with 507")
        tally.check(
            seen == before == visible_state(client), f"{name}, {n_pages} pages left: refused, but the state changed"
        )
        clean = wait_for(lambda: not leftover_files(disk / "data"), 5)
        tally.check(clean, f"{name}, {n_pages} pages left: {leftover_files(disk / 'data')}")
    else:
        tally.fail(f"{name}: never succeeded")
    tally.figures[f"pages needed for {name}:"] = str(n_pages)


def projects(client: CheckedClient) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = client.fetch("GET", "/projects").json["projects"]
    return listed


def visible_state(client: CheckedClient) -> list[Any]:
    """Return everything that read requests return, without the progress of fits."""
    seen: list[Any] = []
    for project in projects(client):
        path = f"/projects/{project['project_id']}"
        seen += [{name: value for name, value in project.items() if name != "fit"}]
        seen += [client.fetch("GET", f"{path}/{part}").body for part in ("labels", "events", "leases")]
    return seen


def new_project(**fields: Any) -> tuple[Any, ...]:
    return "POST", "/fit", {"project_id": f"new-{next(number)}", "estimator": "logistic_regression", **fields}, {}


def new_large_project(_: CheckedClient) -> tuple[Any, ...]:
    rows = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
    return "POST", "/fit", form({"project_id": f"new-{next(number)}"}, X=npy(rows)), FORM


def labels(refit: str) -> tuple[Any, ...]:
    n = next(number)
    said = [{"index": 30 + n % 100, "label": "bee", "annotator": f"a{n}"}, {"index": 150, "label": f"class-{n}"}]
    return "POST", "/label", {"project_id": "p", "labels": said, "refit": refit}, {}


def many_labels(_: CheckedClient) -> tuple[Any, ...]:
    """So many that their event goes to the log."""
    n = next(number)
    said = [{"index": index, "label": "ant", "annotator": f"{who}-{n}"} for index in range(199) for who in range(9)]
    return "POST", "/label", {"project_id": "p", "labels": said, "refit": "never"}, {}


def append(**fields: Any) -> tuple[Any, ...]:
    n = next(number)
    return "POST", "/projects/p/pool", {"X": [[1, 2, n]] * 3, "ids": [f"n{n}-{row}" for row in range(3)], **fields}, {}


def append_lines(_: CheckedClient) -> tuple[Any, ...]:
    n = next(number)
    lines = [{"x": [1, 2, row], "id": f"l{n}-{row}"} for row in range(3_000)]
    return "POST", "/projects/p/pool", b"\n".join(json.dumps(line).encode() for line in lines), NDJSON


def retract(client: CheckedClient) -> tuple[Any, ...]:
    labelled = client.fetch("GET", "/projects/p/labels").json["labels"]
    return "DELETE", f"/projects/p/labels/{labelled[0]['index']}", None, {}


def lease(_: CheckedClient) -> tuple[Any, ...]:
    who = {"annotator": f"a{next(number)}", "lease_seconds": 600}
    return "POST", "/query", {"project_id": "p", "batch_size": 5, "strategy": "random", **who}, {}


def renew(client: CheckedClient) -> tuple[Any, ...]:
    query_id = client.fetch("GET", "/projects/p/leases").json["leases"][0]["query_id"]
    return "POST", f"/projects/p/leases/{query_id}/renew", {}, {}


def import_copy(client: CheckedClient) -> tuple[Any, ...]:
    data = client.fetch("GET", "/projects/p/export").body
    return "POST", f"/projects/import?project_id=copy-{next(number)}", data, ZIP


def query_arrays(_: CheckedClient) -> tuple[Any, ...]:
    rows = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
    return "POST", "/query", form({"strategy": "k_center"}, X=npy(rows)), FORM


X = [[row, row % 3] for row in range(500)]
WRITES = {
    "fit": Write(lambda _: new_project(X=X, y=[0, 1] * 10 + [None] * 480), 201),
    "fit without a model": Write(lambda _: new_project(X=X), 201),
    "fit as a form": Write(new_large_project, 201),
    "fit again": Write(lambda _: ("POST", "/fit", {"project_id": "p", "estimator": "random_forest"}, {})),
    "label": Write(lambda _: labels("never")),
    "label and wait": Write(lambda _: labels("wait")),
    "label and fit in the background": Write(lambda _: labels("background")),
    "label to the log": Write(many_labels),
    "append": Write(lambda _: append()),
    "append labels": Write(lambda _: append(y=["ant", None, "bee"])),
    "append lines": Write(append_lines),
    "retract": Write(retract, 204),
    "lease": Write(lease),
    "renew": Write(renew),
    "import": Write(import_copy, 201),
    "query with arrays": Write(query_arrays),
    "replace": Write(lambda _: ("POST", "/fit", {**whole_project(), "replace": True}, {})),
    "delete": Write(lambda client: ("DELETE", f"/projects/{any_other_project(client)}", None, {}), 204),
}


def any_other_project(client: CheckedClient) -> str:
    names = [project["project_id"] for project in projects(client)]
    return next(name for name in names if name != "p")


def try_read_only(client: CheckedClient, disk: Path, tally: Tally) -> None:
    """Check on a read-only disk that reads succeed and writes fail with a clear error."""
    wait_for(lambda: not client.fetch("GET", "/projects/p").json["fit"]["running_since"])
    client.fetch(*lease(client)[:3])
    requests = {name: write.make(client) for name, write in WRITES.items() if name != "query with arrays"}
    before = visible_state(client)
    remount = ["/bin/mount", "-o", "remount,ro", str(disk)]
    if not wait_for(lambda: subprocess.run(remount, capture_output=True, check=False).returncode == 0, 20):
        tally.fail("the disk could not be remounted read-only: a file is open for writing")
        return
    try:
        ready = client.call("GET", "/readyz")
        tally.check(ready.status == 503, f"/readyz on a read-only disk: {ready.status}")
        for path in ("/projects", "/projects/p", "/projects/p/labels", "/projects/p/events", "/projects/p/export"):
            client.request("GET", path)
        for strategy in ("random", "margin", "k_center", "auto"):
            client.request("POST", "/query", {"project_id": "p", "strategy": strategy, "batch_size": 5})
        for name, (method, path, body, headers) in requests.items():
            reply = client.request(method, path, body, headers=headers, allow=[500, FULL])
            tally.check(reply is not None and explains_failure(reply), f"{name} on a read-only disk: {reply}")
            tally.count("writes tried on a read-only disk")
        tally.check(visible_state(client) == before, "the state changed on a read-only disk")
    finally:
        subprocess.run(["/bin/mount", "-o", "remount,rw", str(disk)], check=True)
    time.sleep(0.1)
    client.request("POST", "/label", {"project_id": "p", "labels": [{"index": 3, "label": "ant"}]})


def explains_failure(reply: Reply) -> bool:
    """Whether the reply explains the failure and does not report a bug."""
    return BUG not in reply.json["detail"]
