"""Damage each file of a project in each way: the project reports it, others are unharmed, `check` names the file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.torture.checked_client import CheckedClient
from tests.torture.data_dir import check_command
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes

N_SAMPLES = 60
MAY_BE_MISSING = "leases.joblib"
"""Created by the first lease."""

MAY_BE_LONGER = "events.log"
"""Bytes beyond the end that the state names belong to a commit that never happened."""

NOT_READ = {"lock", "fit.lock", "lease.lock", "fit.running"}


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Create a project for each kind of damage beside an intact one; damage it, read it, and run the check."""
    tally, root = Tally(), scratch / "data"
    # Without a cache every request reads the disk.
    with running(root, scratch / "log", AQ_WORKERS="1", AQ_CACHE_BYTES="0", AQ_MAX_PROJECTS="100000") as service:
        client = CheckedClient(service.port, tally)
        make_project(client, "intact")
        exported = client.fetch("GET", "/projects/intact/export").body
        before = replies_about(client, "intact"), contents(root / "projects/intact")
        make_project(client, "sample")
        files = [name for name in contents(root / "projects/sample") if name not in NOT_READ]
        rng = random.Random(f"{seed} damage")  # noqa: S311 - reproducible
        cases = [(file, way) for file in files for way in ways(sizes.bit_flips, file)]
        for number, (file, (how, damage)) in enumerate(rng.sample(cases, min(len(cases), sizes.damages * len(files)))):
            project = f"bad{number}"
            make_project(client, project)
            damage(root / "projects" / project / file, rng)
            check_replies(client, project, f"{file}, {how}", tally)
            check_check_command(root, project, file, how, tally)
        tally.check(
            (replies_about(client, "intact"), contents(root / "projects/intact")) == before,
            "the intact project has changed",
        )
        tally.check(client.fetch("GET", "/projects/intact/export").body == exported, "the intact project has changed")
        tally.check(check_command(root, "--project", "intact") == (0, []), "the check reports the intact project")
        service.stop()
        service.start()
        tally.check(
            replies_about(client, "intact") == before[0],
            "the intact project differs after a restart beside damaged ones",
        )
    return tally


def make_project(client: CheckedClient, project: str) -> None:
    """Create a project with a file of each kind: ids, a held-out set, a model, an event log, and leases."""
    X = [[row % 7, row / 3] for row in range(N_SAMPLES)]
    y = ["ant", "bee"] * 5 + [None] * (N_SAMPLES - 10)
    test = {"X_test": X[:4], "y_test": ["ant", "bee", "ant", "bee"]}
    names = [f"s{row}" for row in range(N_SAMPLES)]
    body = {"project_id": project, "X": X, "y": y, "ids": names, "estimator": "gaussian_nb", **test}
    client.fetch("POST", "/fit", body, allow=[201])
    lease = {"project_id": project, "annotator": "ada", "lease_seconds": 100_000, "strategy": "random"}
    client.fetch("POST", "/query", lease)
    # Enough labels for their events to go to the log.
    records = [{"index": index, "label": "ant", "annotator": f"a{n}"} for index in range(10, 40) for n in range(50)]
    client.fetch("POST", "/label", {"project_id": project, "labels": records, "refit": "never"})
    # Two commits that only write to the log in the file of the state.
    for index in (40, 41):
        small = [{"index": index, "label": "bee"}]
        client.fetch("POST", "/label", {"project_id": project, "labels": small, "refit": "never"})


Damage = Callable[[Path, random.Random], object]


def ways(bit_flips: int, file: str) -> Iterator[tuple[str, Damage]]:
    """Yield the name and function of every way to damage a file."""
    yield from ((f"bit flip {n}", flip) for n in range(bit_flips))
    yield "truncated", lambda path, rng: path.write_bytes(path.read_bytes()[: rng.randrange(1, path.stat().st_size)])
    yield "without its last byte", lambda path, _: path.write_bytes(path.read_bytes()[:-1])
    yield "empty", lambda path, _: path.write_bytes(b"")
    if file != MAY_BE_LONGER:
        yield "longer", lambda path, rng: path.write_bytes(path.read_bytes() + rng.randbytes(9))
    yield "random bytes", lambda path, rng: path.write_bytes(rng.randbytes(path.stat().st_size))
    yield "a directory", replace_by_directory
    if file != MAY_BE_MISSING:
        yield "removed", lambda path, _: path.unlink()
        yield "a dangling link", lambda path, _: (path.unlink(), path.symlink_to("nowhere"))


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def replace_by_directory(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def check_replies(client: CheckedClient, project: str, what: str, tally: Tally) -> None:
    """Check that every request succeeds, or fails with an error that names the project and the check command."""
    tally.count("files damaged")
    for method, path, body, status in requests(project):
        reply = client.request(method, path, body, allow=[status, 500])
        if reply is None:
            tally.fail(f"{what}: {method} {path} broke the connection")
        elif reply.status == 500:
            tally.count("requests refused with a clear error")
            detail = reply.json["detail"]
            is_clear = repr(project) in detail and "active-query check" in detail
            tally.check(is_clear, f"{what}: {method} {path}: {detail}")
    listed = client.call("GET", "/projects?limit=1000")
    is_listed = listed.status == 200 and "intact" in {each["project_id"] for each in listed.json["projects"]}
    tally.check(is_listed, f"{what}: the intact project is not listed: {listed.status} {listed.body[:200]!r}")


def requests(project: str) -> list[tuple[str, str, Any, int]]:
    path = f"/projects/{project}"
    lease = {"project_id": project, "annotator": "cy", "lease_seconds": 60, "strategy": "random"}
    return [
        *(("GET", f"{path}{part}", None, 200) for part in ("", "/labels", "/events", "/annotators", "/leases")),
        ("POST", "/query", {"project_id": project, "strategy": "margin", "batch_size": 3}, 200),
        ("GET", f"{path}/export", None, 200),
        ("POST", "/query", lease, 200),
    ]


def check_check_command(root: Path, project: str, file: str, how: str, tally: Tally) -> None:
    """Check that `active-query check` names the file, unless a query has refitted a lost model."""
    status, lines = check_command(root, "--project", project)
    is_named = status == 1 and any(line.startswith(f"{project}: {file}: ") for line in lines)
    is_repaired = file.startswith("models/") and not lines
    tally.check(is_named or is_repaired, f"{file}, {how}: the check returns {status} {lines}")
    tally.count("models refitted" if is_repaired else "files named by the check")


def replies_about(client: CheckedClient, project: str) -> list[bytes]:
    """Return the bodies of all read requests about a project."""
    query = {"project_id": project, "strategy": "margin", "batch_size": 5}
    parts = ("", "/labels", "/events", "/annotators", "/leases")
    seen = [client.fetch("GET", f"/projects/{project}{part}").body for part in parts]
    return [*seen, client.fetch("POST", "/query", query).body]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
