"""A large pool takes no more memory than a small one: it is streamed to disk, and mapped to be read."""

from __future__ import annotations

import threading
from pathlib import Path

import joblib
import numpy as np
import pytest

from tests.support.serving import Upload

MB = 2**20
SHAPE = (200_000, 64)
POOL_MB = 200_000 * 64 * 4 / MB
CHUNK_ROWS = 2_000


def rows(n_rows):
    """The bytes of a pool, generated while they are sent and the same each time."""
    rng = np.random.default_rng(1)
    for start in range(0, n_rows, CHUNK_ROWS):
        yield rng.standard_normal((min(CHUNK_ROWS, n_rows - start), SHAPE[1]), np.float32).tobytes()


def own_mb(pid):
    """The anonymous memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no memory")


class Watch:
    """The peak anonymous memory of each process, and whether one of them mapped the large pool."""

    def __init__(self, pids):
        self.before = {pid: own_mb(pid) for pid in pids}
        self.peak = dict(self.before)
        self.mapped = False
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.done.wait(0.002):
            for pid in self.peak:
                self.peak[pid] = max(self.peak[pid], own_mb(pid))
                self.mapped |= "projects/large/pool/" in Path(f"/proc/{pid}/maps").read_text()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    @property
    def growth(self):
        return {pid: self.peak[pid] - self.before[pid] for pid in self.before}


def upload(service, project_id, n_rows):
    """Create a project with two labelled rows."""
    form = Upload(
        {"project_id": project_id, "estimator": "logistic_regression"}, "<f4", (n_rows, SHAPE[1]), rows(n_rows)
    )
    created = service.call("POST", "/fit", form)
    assert created.status == 201, created.body
    assert created.json["n_samples"] == n_rows


def label(service, project_id):
    answers = [{"index": index, "label": index} for index in range(2)]
    service.post("/label", {"project_id": project_id, "labels": answers})


def query(service, project_id):
    return service.post("/query", {"project_id": project_id, "strategy": "margin", "batch_size": 5})


def written_bytes(pid):
    """The bytes that a process has written since it started."""
    return int(Path(f"/proc/{pid}/io").read_text().split("wchar:")[1].split()[0])


def warm_up(service):
    """Run the requests for a large pool with small ones, until every worker has served some."""
    before = {pid: written_bytes(pid) for pid in service.workers()}
    for n in range(100):
        upload(service, f"small-{n}", 2 * CHUNK_ROWS)
        label(service, f"small-{n}")
        query(service, f"small-{n}")
        if n >= 5 and all(written_bytes(pid) > bytes_ + 5 * MB for pid, bytes_ in before.items()):
            return
    raise AssertionError("one worker has all the work")


@pytest.mark.slow
def test_a_large_pool_takes_little_memory_to_upload_and_query(serve, tmp_path):
    service = serve(AQ_WORKERS="2")
    warm_up(service)
    with Watch(service.workers()) as bringing:
        upload(service, "large", SHAPE[0])
    assert max(bringing.growth.values()) < 32
    pool = joblib.load(tmp_path / "data/projects/large/pool/000001.joblib", mmap_mode="r")
    assert isinstance(pool, np.memmap)
    assert pool.tobytes() == b"".join(rows(SHAPE[0]))

    label(service, "large")
    before = query(service, "large")

    service.kill()
    service.environment["AQ_WORKERS"] = "1"
    service.start()
    assert query(service, "large") == before
    with Watch(service.workers()) as asking:
        for _ in range(100):
            assert query(service, "large") == before
            if asking.mapped:
                break
    assert asking.mapped
    assert max(asking.growth.values()) < 16 < POOL_MB / 3
