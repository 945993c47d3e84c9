"""Each file of a project spoilt in each way: that project says so, no other is harmed, and the check names the file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.torture.asker import Asker
from tests.torture.data_dir import check_command
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes

N_SAMPLES = 60
MAY_BE_MISSING = "leases.joblib"
"""Where nobody ever asked for a lease there is none."""

MAY_BE_LONGER = "events.log"
"""What lies beyond its end, by the state, is of a commit that never happened."""

NOT_READ = {"lock", "fit.lock", "lease.lock", "fit.running"}


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Make a project for each damage beside one that stays whole; spoil, look, and check."""
    tally, root = Tally(), scratch / "data"
    # Without a cache each look is at the disk.
    with running(root, scratch / "log", AQ_WORKERS="1", AQ_CACHE_BYTES="0", AQ_MAX_PROJECTS="100000") as service:
        asker = Asker(service.port, tally)
        make_project(asker, "whole")
        whole = asker.must("GET", "/projects/whole/export").body
        before = looks(asker, "whole"), contents(root / "projects/whole")
        make_project(asker, "sample")
        files = [name for name in contents(root / "projects/sample") if name not in NOT_READ]
        rng = random.Random(f"{seed} damage")  # noqa: S311 - it is to come again
        cases = [(file, way) for file in files for way in ways(sizes.bit_flips, file)]
        for number, (file, (how, spoil)) in enumerate(rng.sample(cases, min(len(cases), sizes.damages * len(files)))):
            project = f"bad{number}"
            make_project(asker, project)
            spoil(root / "projects" / project / file, rng)
            look_at_damaged(asker, project, f"{file}, {how}", tally)
            look_at_check(root, project, file, how, tally)
        tally.check(
            (looks(asker, "whole"), contents(root / "projects/whole")) == before, "the whole project was harmed"
        )
        tally.check(asker.must("GET", "/projects/whole/export").body == whole, "the whole project was harmed")
        tally.check(
            check_command(root, "--project", "whole") == (0, []), "the check finds fault with the whole project"
        )
        service.stop()
        service.start()
        tally.check(
            looks(asker, "whole") == before[0], "the whole project is another after a restart beside damaged ones"
        )
    return tally


def make_project(asker: Asker, project: str) -> None:
    """A project with a file of each kind: names, a held-out set, a model, a log, and leases."""
    X = [[row % 7, row / 3] for row in range(N_SAMPLES)]
    y = ["ant", "bee"] * 5 + [None] * (N_SAMPLES - 10)
    test = {"X_test": X[:4], "y_test": ["ant", "bee", "ant", "bee"]}
    names = [f"s{row}" for row in range(N_SAMPLES)]
    body = {"project_id": project, "X": X, "y": y, "ids": names, "estimator": "gaussian_nb", **test}
    asker.must("POST", "/fit", body, allow=[201])
    lease = {"project_id": project, "annotator": "ada", "lease_seconds": 100_000, "strategy": "random"}
    asker.must("POST", "/query", lease)
    # So many answers that their events go to the log.
    said = [{"index": index, "label": "ant", "annotator": f"a{n}"} for index in range(10, 40) for n in range(50)]
    asker.must("POST", "/label", {"project_id": project, "labels": said, "refit": "never"})


Spoil = Callable[[Path, random.Random], object]


def ways(bit_flips: int, file: str) -> Iterator[tuple[str, Spoil]]:
    """All ways to spoil a file, by their names."""
    yield from ((f"bit flip {n}", flip) for n in range(bit_flips))
    yield "cut", lambda path, rng: path.write_bytes(path.read_bytes()[: rng.randrange(1, path.stat().st_size)])
    yield "without its last byte", lambda path, _: path.write_bytes(path.read_bytes()[:-1])
    yield "empty", lambda path, _: path.write_bytes(b"")
    if file != MAY_BE_LONGER:
        yield "longer", lambda path, rng: path.write_bytes(path.read_bytes() + rng.randbytes(9))
    yield "of other bytes", lambda path, rng: path.write_bytes(rng.randbytes(path.stat().st_size))
    yield "a directory", a_directory
    if file != MAY_BE_MISSING:
        yield "removed", lambda path, _: path.unlink()
        yield "a link to nothing", lambda path, _: (path.unlink(), path.symlink_to("nowhere"))


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def a_directory(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def look_at_damaged(asker: Asker, project: str, what: str, tally: Tally) -> None:
    """Whatever is asked is answered in the right way, or refused with a sentence that names the project."""
    tally.count("files spoilt")
    for method, path, body, status in requests(project):
        reply = asker.ask(method, path, body, allow=[status, 500])
        if reply is None:
            tally.lose(f"{what}: {method} {path} broke the connection")
        elif reply.status == 500:
            tally.count("clear refusals")
            detail = reply.json["detail"]
            is_clear = repr(project) in detail and "active-query check" in detail
            tally.check(is_clear, f"{what}: {method} {path}: {detail}")
    listed = asker.call("GET", "/projects?limit=1000")
    is_listed = listed.status == 200 and "whole" in {each["project_id"] for each in listed.json["projects"]}
    tally.check(is_listed, f"{what}: the whole project cannot be listed: {listed.status} {listed.body[:200]!r}")


def requests(project: str) -> list[tuple[str, str, Any, int]]:
    path = f"/projects/{project}"
    lease = {"project_id": project, "annotator": "cy", "lease_seconds": 60, "strategy": "random"}
    return [
        *(("GET", f"{path}{part}", None, 200) for part in ("", "/labels", "/events", "/annotators", "/leases")),
        ("POST", "/query", {"project_id": project, "strategy": "margin", "batch_size": 3}, 200),
        ("GET", f"{path}/export", None, 200),
        ("POST", "/query", lease, 200),
    ]


def look_at_check(root: Path, project: str, file: str, how: str, tally: Tally) -> None:
    """`active-query check` names the file, unless asking for a lost model has mended it already."""
    status, lines = check_command(root, "--project", project)
    is_named = status == 1 and any(line.startswith(f"{project}: {file}: ") for line in lines)
    is_mended = file.startswith("models/") and not lines
    tally.check(is_named or is_mended, f"{file}, {how}: the check says {status} {lines}")
    tally.count("models mended" if is_mended else "files named by the check")


def looks(asker: Asker, project: str) -> list[bytes]:
    """All that is answered about a project, but the question's name and the request's."""
    question = {"project_id": project, "strategy": "margin", "batch_size": 5}
    parts = ("", "/labels", "/events", "/annotators", "/leases")
    seen = [asker.must("GET", f"/projects/{project}{part}").body for part in parts]
    return [*seen, asker.must("POST", "/query", question).body]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
