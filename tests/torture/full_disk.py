"""A disk with more and more room left, at each kind of write; and one that can only be read."""

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
from tests.torture.asker import Asker, until
from tests.torture.data_dir import check_soundness, rubbish
from tests.torture.forms import FORM, NDJSON, ZIP, form
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes

PAGE = 4096
DISK_BYTES = 2**25
N_SAMPLES = 200
FULL = 507
BUG = "this is a fault of the service"
number = count()


@dataclass(frozen=True)
class Write:
    """A request that writes; `make` gives its method, path, body and headers, anew for each try."""

    make: Callable[[Asker], tuple[Any, ...]]
    status: int = 200


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Try each write with more and more room, until it succeeds; then forbid all writes."""
    tally = Tally()
    disk = scratch / "disk"
    disk.mkdir()
    with mounted(disk) as is_mounted:
        if is_mounted:
            with running(disk / "data", scratch / "log", AQ_WORKERS="1", AQ_LOG_LEVEL="error") as service:
                fill_and_forbid(Asker(service.port, tally), disk, sizes.disk_steps, tally)
        else:
            tally.skipped = "needs root, and mount"
    return tally


def fill_and_forbid(asker: Asker, disk: Path, steps: int, tally: Tally) -> None:
    asker.must("POST", "/fit", whole_project(), allow=[201])
    for name, write in WRITES.items():
        fill_up(asker, disk, name, write, steps, tally)
    check_soundness(disk / "data", tally)
    only_read(asker, disk, tally)


@contextmanager
def mounted(disk: Path) -> Iterator[bool]:
    """Put a small file system of memory there; tell whether that is allowed."""
    command = ["/bin/mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(disk)]
    is_mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["/bin/umount", "--lazy", str(disk)], check=True)


def whole_project() -> dict[str, Any]:
    """A project that has everything."""
    X = [[row % 7, row / 3, 1.0] for row in range(N_SAMPLES)]
    y = ["ant", "bee"] * 10 + [None] * (N_SAMPLES - 20)
    names = [f"s{row}" for row in range(N_SAMPLES)]
    test = {"X_test": X[:4], "y_test": ["ant", "bee", "ant", "bee"]}
    return {"project_id": "p", "X": X, "y": y, "ids": names, **test}


@contextmanager
def room(disk: Path, n_bytes: int) -> Iterator[None]:
    """Leave so many bytes of the disk."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        with suppress(OSError):  # the last stretch of it does not fit
            while True:
                os.write(file.fileno(), bytes(PAGE))
        file.truncate(max(file.tell() - n_bytes, 0))
    try:
        yield
    finally:
        filler.unlink()


def fill_up(asker: Asker, disk: Path, name: str, write: Write, steps: int, tally: Tally) -> None:
    """Give a write ever more room until it succeeds: before that it changes nothing."""
    for n_pages in (*range(steps), *(2**power for power in range(3, 13) if 2**power >= steps)):
        until(lambda: all(project["fit"]["running_since"] is None for project in projects(asker)))
        method, path, body, headers = write.make(asker)
        before = everything(asker)
        with room(disk, n_pages * PAGE):
            reply = asker.ask(method, path, body, headers=headers, allow=[write.status, FULL])
            seen = everything(asker)
        tally.count("writes tried on a disk nearly full")
        if reply is None:
            tally.lose(f"{name}, {n_pages} pages left: the connection broke")
            return
        if reply.status == write.status:
            break
        tally.count("writes refused with 507")
        tally.check(
            seen == before == everything(asker), f"{name}, {n_pages} pages left: refused, but changed something"
        )
        clean = until(lambda: not rubbish(disk / "data"), 5)
        tally.check(clean, f"{name}, {n_pages} pages left: {rubbish(disk / 'data')}")
    else:
        tally.lose(f"{name}: never succeeded")
    tally.figures[f"pages of room that {name} takes:"] = str(n_pages)


def projects(asker: Asker) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = asker.must("GET", "/projects").json["projects"]
    return listed


def everything(asker: Asker) -> list[Any]:
    """All that can be seen, but how it goes with fits."""
    seen: list[Any] = []
    for project in projects(asker):
        path = f"/projects/{project['project_id']}"
        seen += [{name: value for name, value in project.items() if name != "fit"}]
        seen += [asker.must("GET", f"{path}/{part}").body for part in ("labels", "events", "leases")]
    return seen


def new_project(**fields: Any) -> tuple[Any, ...]:
    return "POST", "/fit", {"project_id": f"new-{next(number)}", **fields}, {}


def new_large_project(_: Asker) -> tuple[Any, ...]:
    rows = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
    return "POST", "/fit", form({"project_id": f"new-{next(number)}"}, X=npy(rows)), FORM


def labels(refit: str) -> tuple[Any, ...]:
    n = next(number)
    said = [{"index": 30 + n % 100, "label": "bee", "annotator": f"a{n}"}, {"index": 150, "label": f"class-{n}"}]
    return "POST", "/label", {"project_id": "p", "labels": said, "refit": refit}, {}


def many_labels(_: Asker) -> tuple[Any, ...]:
    """So many that their event goes to the log."""
    n = next(number)
    said = [{"index": index, "label": "ant", "annotator": f"{who}-{n}"} for index in range(199) for who in range(9)]
    return "POST", "/label", {"project_id": "p", "labels": said, "refit": "never"}, {}


def append(**fields: Any) -> tuple[Any, ...]:
    n = next(number)
    return "POST", "/projects/p/pool", {"X": [[1, 2, n]] * 3, "ids": [f"n{n}-{row}" for row in range(3)], **fields}, {}


def append_lines(_: Asker) -> tuple[Any, ...]:
    n = next(number)
    lines = [{"x": [1, 2, row], "id": f"l{n}-{row}"} for row in range(3_000)]
    return "POST", "/projects/p/pool", b"\n".join(json.dumps(line).encode() for line in lines), NDJSON


def retract(asker: Asker) -> tuple[Any, ...]:
    labelled = asker.must("GET", "/projects/p/labels").json["labels"]
    return "DELETE", f"/projects/p/labels/{labelled[0]['index']}", None, {}


def lease(_: Asker) -> tuple[Any, ...]:
    who = {"annotator": f"a{next(number)}", "lease_seconds": 600}
    return "POST", "/query", {"project_id": "p", "batch_size": 5, "strategy": "random", **who}, {}


def renewal(asker: Asker) -> tuple[Any, ...]:
    query_id = asker.must("GET", "/projects/p/leases").json["leases"][0]["query_id"]
    return "POST", f"/projects/p/leases/{query_id}/renew", {}, {}


def import_copy(asker: Asker) -> tuple[Any, ...]:
    data = asker.must("GET", "/projects/p/export").body
    return "POST", f"/projects/import?project_id=copy-{next(number)}", data, ZIP


def question(_: Asker) -> tuple[Any, ...]:
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
    "renew": Write(renewal),
    "import": Write(import_copy, 201),
    "ask with arrays": Write(question),
    "replace": Write(lambda _: ("POST", "/fit", {**whole_project(), "replace": True}, {})),
    "delete": Write(lambda asker: ("DELETE", f"/projects/{some_other(asker)}", None, {}), 204),
}


def some_other(asker: Asker) -> str:
    names = [project["project_id"] for project in projects(asker)]
    return next(name for name in names if name != "p")


def only_read(asker: Asker, disk: Path, tally: Tally) -> None:
    """Whoever reads is answered; whoever writes is told in a sentence why not."""
    until(lambda: not asker.must("GET", "/projects/p").json["fit"]["running_since"])
    asker.must(*lease(asker)[:3])
    requests = {name: write.make(asker) for name, write in WRITES.items() if name != "ask with arrays"}
    before = everything(asker)
    remount = ["/bin/mount", "-o", "remount,ro", str(disk)]
    if not until(lambda: subprocess.run(remount, capture_output=True, check=False).returncode == 0, 20):
        tally.lose("the disk could not be made read-only: somebody holds a file open for writing")
        return
    try:
        ready = asker.call("GET", "/readyz")
        tally.check(ready.status == 503, f"/readyz on a disk that can only be read: {ready.status}")
        for path in ("/projects", "/projects/p", "/projects/p/labels", "/projects/p/events", "/projects/p/export"):
            asker.ask("GET", path)
        for strategy in ("random", "margin", "k_center", "auto"):
            asker.ask("POST", "/query", {"project_id": "p", "strategy": strategy, "batch_size": 5})
        for name, (method, path, body, headers) in requests.items():
            reply = asker.ask(method, path, body, headers=headers, allow=[500, FULL])
            tally.check(reply is not None and is_told(reply), f"{name} on a disk that can only be read: {reply}")
            tally.count("writes tried on a disk that can only be read")
        tally.check(everything(asker) == before, "something changed on a disk that can only be read")
    finally:
        subprocess.run(["/bin/mount", "-o", "remount,rw", str(disk)], check=True)
    time.sleep(0.1)
    asker.ask("POST", "/label", {"project_id": "p", "labels": [{"index": 3, "label": "ant"}]})


def is_told(reply: Reply) -> bool:
    """Whether the reply says what is wrong, and not that there is a bug."""
    return BUG not in reply.json["detail"]
