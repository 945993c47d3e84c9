"""Run a job in a child process that kills itself at one of its file operations.

`python -m tests.torture.crashing` reads jobs as lines of JSON, forks a child for each, and prints its result as JSON.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from flask.testing import FlaskClient

import service.store.events
from service.app import create_app
from service.errors import ServiceError
from service.settings import Settings
from service.store import Part, Store
from service.store.check import check_project, project_directories
from service.store.state_file import PUBLISHED
from service.usecases.label import LabelRequest, SubmittedLabel, label_project
from tests.support.groups import in_one_group
from tests.support.npy import npy
from tests.torture.data_dir import leftover_files
from tests.torture.forms import FORM, NDJSON, ZIP, form

AUDITED = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.utime",
    "os.truncate",
    "os.link",
    "os.symlink",
    "os.chmod",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
COMMITS = ("state.joblib", "leases.joblib")
N_SAMPLES = 12

write_all = os.write


class Points:
    """Counts and logs the file operations of this process, and kills it at one of them.

    A write may be cut in half.
    """

    def __init__(self, log: int, last: int, *, torn: bool) -> None:
        self.log, self.last, self.torn, self.count = log, last, torn, 0
        self.fsync, self.fdatasync, self.pwrite, self.open = os.fsync, os.fdatasync, os.pwrite, io.open

    def arm(self) -> None:
        """Start counting."""
        sys.addaudithook(self.on_audit_event)
        os.fsync = self.counted_fsync
        os.fdatasync = self.counted_fdatasync
        os.pwrite = self.counted_pwrite
        io.open = builtins.open = self.counted_open  # type: ignore[assignment]

    def reach(self, what: str, before_death: Callable[[], object] = lambda: None) -> None:
        """Log the operation that comes next, or die."""
        self.count += 1
        if self.count == self.last:
            if self.torn:
                before_death()
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        write_all(self.log, f"{what}\n".encode())

    def on_audit_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename":
            source, target = Path(str(arguments[0])), Path(str(arguments[1]))
            is_commit = target.name in COMMITS and target.parent.parent.name == "projects"
            is_commit |= "projects" in (source.parent.name, target.parent.name) and (source / "state.joblib").exists()
            self.reach(f"{'commit' if is_commit else event} {target.name}")
        elif event in AUDITED:
            self.reach(f"{event} {Path(str(arguments[0])).name}")
        elif event == "open" and arguments[2] & WRITING and not str(arguments[0]).startswith("/dev/"):
            self.reach(f"open {Path(str(arguments[0])).name}")

    def counted_fsync(self, file: int) -> None:
        self.reach("fsync")
        self.fsync(file)

    def counted_fdatasync(self, file: int) -> None:
        self.reach("fdatasync")
        self.fdatasync(file)

    def counted_pwrite(self, file: int, data: Any, position: int) -> int:
        """Write to the log of a state, or publish what was written: the commit of labels, unless the log is empty."""
        half = memoryview(data)[: len(data) // 2]
        if len(data) != PUBLISHED.size:
            self.reach("write", lambda: self.pwrite(file, half, position))
        else:
            self.reach("commit publish" if PUBLISHED.unpack(data)[1] > 0 else "publish")
        return self.pwrite(file, data, position)

    def counted_open(self, path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        """Open a file; writes to a binary file are counted."""
        if mode in ("xb", "wb", "ab"):
            return io.BufferedWriter(CountedFile(path, mode, self))
        return self.open(path, mode, *arguments, **options)


class CountedFile(io.FileIO):
    """A file whose writes are points."""

    def __init__(self, path: Any, mode: str, points: Points) -> None:
        super().__init__(path, mode)
        self.points = points

    def write(self, data: Any) -> int:
        half = memoryview(data).cast("B")[: len(data) // 2]
        self.points.reach("write", lambda: super(CountedFile, self).write(half))
        return super().write(data)


# Operations. Each starts from a project that has every kind of file.


def client_of(root: Path) -> FlaskClient:
    return create_app(Settings(data_dir=root, log_level="critical")).test_client()


def send(client: FlaskClient, method: str, path: str, **request: Any) -> Any:
    reply = client.open(path, method=method, **request)
    if reply.status_code >= 300:
        raise AssertionError(f"{method} {path}: {reply.status_code} {reply.get_data(as_text=True)[:500]}")
    return reply


def fit(client: FlaskClient, project: str, **fields: Any) -> None:
    X = [[row % 3, row / 3] for row in range(N_SAMPLES)]
    y = ["ant", "bee", *[None] * (N_SAMPLES - 2)]
    test = {"X_test": X[:2], "y_test": ["ant", "bee"]}
    body = {"project_id": project, "X": X, "y": y, "ids": [f"s{row}" for row in range(N_SAMPLES)], **test, **fields}
    send(client, "POST", "/fit", json=body | {"estimator": "gaussian_nb"})


def label(client: FlaskClient, refit: str, index: int = 4) -> None:
    records = [{"index": index, "label": "bee", "annotator": "ada"}, {"index": index + 1, "label": "cat"}]
    send(client, "POST", "/label", json={"project_id": "p", "labels": records, "refit": refit})


def label_together(client: FlaskClient) -> None:
    """Send labels by requests that wait for the project at the same time: they are one commit."""
    store: Store = client.application.extensions["active-query"].store
    requests = [LabelRequest("p", [SubmittedLabel(index, None, "bee", "ada")], "never") for index in (4, 5, 6)]
    in_one_group(store, *[partial(label_project, store, request) for request in requests])


def label_in_background(client: FlaskClient) -> None:
    label(client, "background")
    while send(client, "GET", "/projects/p").json["fit"]["due"]:
        time.sleep(0.001)


def label_to_log(client: FlaskClient) -> None:
    service.store.events.TAIL_BYTES = 0
    label(client, "wait")


def append(client: FlaskClient) -> None:
    send(client, "POST", "/projects/p/pool", json={"X": [[1, 2], [3, 4]], "ids": ["t0", "t1"], "y": ["ant", None]})


def append_lines(client: FlaskClient) -> None:
    lines = b"\n".join(json.dumps({"x": [row, 1], "id": f"t{row}"}).encode() for row in range(30))
    send(client, "POST", "/projects/p/pool", data=lines, headers=NDJSON)


def fit_form(client: FlaskClient) -> None:
    send(client, "POST", "/fit", data=form({"project_id": "new"}, X=npy(np.ones((3_000, 4)))), headers=FORM)


def lease(client: FlaskClient) -> None:
    who = {"annotator": "bob", "lease_seconds": 10_000}
    send(client, "POST", "/query", json={"project_id": "p", "batch_size": 2, "strategy": "random", **who})


def lease_path(client: FlaskClient) -> str:
    return f"/projects/p/leases/{client.get('/projects/p/leases').json['leases'][0]['query_id']}"


def import_copy(client: FlaskClient) -> None:
    data = send(client, "GET", "/projects/p/export").data
    send(client, "POST", "/projects/import?project_id=copy", data=data, headers=ZIP)


def start(client: FlaskClient) -> None:
    """Sweep leftover files, as a starting process does."""
    create_app(client.application.extensions["active-query"].settings)


OPERATIONS: dict[str, Callable[[FlaskClient], object]] = {
    "fit": lambda client: fit(client, "new"),
    "fit as a form": fit_form,
    "fit again": lambda client: send(client, "POST", "/fit", json={"project_id": "p"}),
    "replace": lambda client: fit(client, "p", replace=True, random_state=3),
    "label": lambda client: label(client, "never"),
    "labels in one group": label_together,
    "label and wait": lambda client: label(client, "wait"),
    "label to the log": label_to_log,
    "fit in the background": label_in_background,
    "append": append,
    "append lines": append_lines,
    "retract": lambda client: send(client, "DELETE", "/projects/p/labels/0"),
    "lease": lease,
    "renew": lambda client: send(client, "POST", f"{lease_path(client)}/renew", json={"lease_seconds": 9}),
    "release": lambda client: send(client, "DELETE", lease_path(client)),
    "import": import_copy,
    "delete": lambda client: send(client, "DELETE", "/projects/p"),
    "start": start,
}


# Jobs.


def prepare(job: dict[str, Any], out: BinaryIO) -> None:
    """Create the directory that every operation starts from."""
    root = Path(job["root"])
    client = client_of(root)
    fit(client, "p")
    service.store.events.TAIL_BYTES = 0
    label(client, "wait", 2)
    who = {"annotator": "cy", "lease_seconds": 100_000}
    send(client, "POST", "/query", json={"project_id": "p", "batch_size": 2, "strategy": "random", **who})


def leave_leftovers(root: Path) -> None:
    """Leave the files of a process that died in the middle of a write."""
    for name in ("staging/dead/000001.joblib", "projects/p/pool/000099.joblib", "projects/unborn/pool/000001.joblib"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"half")
    (root / "projects/unborn/unborn").touch()


def crash(job: dict[str, Any], out: BinaryIO) -> None:
    """Run an operation and die at one of its points; the output lists the points before."""
    root = Path(job["root"])
    client = client_of(root)
    if job["operation"] == "start":
        leave_leftovers(root)
    points = Points(out.fileno(), job["point"], torn=job["torn"])
    points.arm()
    OPERATIONS[job["operation"]](client)


def look(job: dict[str, Any], out: BinaryIO) -> None:
    """Open the directory as a new process does; output its contents, and any problem in using it."""
    root = Path(job["root"])
    store = Store(root)
    store.sweep()
    seen = {name: contents_of(store, name) for name in store.project_ids()}
    wrong = [str(finding) for directory in project_directories(root) for finding in check_project(directory)]
    wrong += [f"leftover file: {name}" for name in leftover_files(root)]
    for name in store.project_ids():
        record = SubmittedLabel(0, None, "ant", "zoe")
        label_project(store, LabelRequest(name, [record], "wait"))
    wrong += [str(finding) for directory in project_directories(root) for finding in check_project(directory)]
    out.write(json.dumps({"seen": seen, "wrong": wrong}).encode())


def contents_of(store: Store, name: str) -> list[Any]:
    """Return the contents of a project, without timestamps."""
    snapshot = store.read(name, Part.POOL, Part.IDS, Part.HELD_OUT, Part.MODEL)
    project, votes = snapshot.project, snapshot.project.votes
    pool = b"".join(np.asarray(segment).tobytes() for segment in snapshot.pool.segments) if snapshot.pool else b""
    return [
        {name: getattr(project, name) for name in ("version", "random_state", "classes", "annotators", "fit_error")},
        [votes.index.tolist(), votes.code.tolist(), votes.annotator.tolist()],
        project.n_samples,
        hashlib.sha256(pool).hexdigest(),
        snapshot.ids.names_at(range(project.n_samples)) if snapshot.ids else None,
        project.model and project.model.version,
        sorted(project.checksums),
        [(each.annotator, each.index.tolist(), each.seconds) for each in store.leases(name).all],
    ]


JOBS = {"prepare": prepare, "crash": crash, "look": look}


def in_child(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a child process; return its output and exit status."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        status = 1
        out = os.fdopen(writer, "wb")
        try:
            JOBS[job["do"]](job, out)
            out.flush()
            status = 0
        except (Exception, ServiceError):  # noqa: BLE001 - reported as the output
            write_all(writer, traceback.format_exc()[-3000:].encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as output:
        text = output.read().decode()
    _, status = os.waitpid(pid, 0)
    return {"output": text, "status": os.waitstatus_to_exitcode(status)}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(in_child(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
