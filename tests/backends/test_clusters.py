"""Real Dask and Ray clusters on this machine: the results are those of threads, even while a cluster fails."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.support.serving import Service, Upload, free_port

N_ROWS = 270_000
LOOPBACK = "127.0.0.2"  # Ray takes 127.0.0.1 for the machine's own address, which others can reach
N_CHUNKS = 34  # 33 of the first segment, one of the second


class Processes:
    """Commands that run, with their child processes, until they are stopped."""

    environment: ClassVar[dict[str, str]] = {}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "cluster.log").open("ab") as log:
            environment = {**os.environ, **self.environment}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.started.append(process)
        return process

    def stop(self) -> None:
        for pid in [pid for process in self.started for pid in descendants(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait(30)


class Dask(Processes):
    """A scheduler, and two workers of one thread."""

    name, library = "dask", "distributed"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        port = free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        scheduler = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        self.start(sys.executable, "-m", "distributed.cli.dask_scheduler", *scheduler)
        for name in ("one", "two"):
            options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder / name))
            self.start(sys.executable, "-m", "distributed.cli.dask_worker", self.address, *options)

    def kill_a_worker(self) -> None:
        self.started[1].kill()


class Ray(Processes):
    """A head with two processors."""

    name, library = "ray", "ray"
    # Ray requires a token if it finds one in the user's home.
    environment: ClassVar[dict[str, str]] = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        port = free_port()
        self.address = f"ray://{LOOPBACK}:{port}"
        options = {
            "node-ip-address": LOOPBACK,
            "port": free_port(),
            "ray-client-server-port": port,
            "num-cpus": 2,
            "object-store-memory": 150_000_000,
            "include-dashboard": "false",
            "temp-dir": folder,
        }
        arguments = [f"--{option}={value}" for option, value in options.items()]
        self.start(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *arguments)

    def kill_a_worker(self) -> None:
        at_work = [pid for pid in descendants(self.started[0].pid) if command_of(pid).startswith("ray::score_task")]
        os.kill(at_work[0], signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """A process and its descendants, the youngest first."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*(below for child in children for below in descendants(int(child))), pid]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def installed(engine: type[Dask] | type[Ray]) -> Any:
    missing = pytest.mark.skipif(find_spec(engine.library) is None, reason=f"needs the extra '{engine.name}'")
    return pytest.param(engine, id=engine.name, marks=missing)


pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Dask | Ray]:
    """A running cluster, in a folder whose name is short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="aq"))
    cluster = request.param(folder)
    yield cluster
    cluster.stop()
    shutil.rmtree(folder)


def make_project(service: Service, estimator: dict[str, Any]) -> None:
    """A pool of two segments with labels of five classes."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(1000, 64)).astype("<f4").tobytes() for _ in range(N_ROWS // 1000))
    upload = Upload({"project_id": "cats", "estimator": estimator}, "<f4", (N_ROWS, 64), rows)
    assert service.call("POST", "/fit", upload).status == 201
    service.post("/projects/cats/pool", {"X": rng.normal(size=(100, 64)).tolist()})
    service.post("/label", {"project_id": "cats", "labels": [{"index": i, "label": i % 5} for i in range(100)]})


def answers(service: Service, name: str) -> tuple[list[int], list[float]]:
    """The samples to label next, and their scores."""
    reply = service.post("/query", {"project_id": "cats", "batch_size": 50, "strategy": name})
    return reply["indices"], reply["scores"]


def on(cluster: Dask | Ray) -> dict[str, str]:
    """The settings of a service with a cluster."""
    return {
        "AQ_BACKEND": cluster.name,
        "AQ_BACKEND_ADDRESS": cluster.address,
        "AQ_LOG_LEVEL": "debug",
    } | cluster.environment


def wait_for_cluster(service: Service) -> None:
    """Query until the cluster is used: after a failure the service does not use it for half a minute."""
    deadline = time.monotonic() + 150
    while f"scored {N_CHUNKS} of {N_CHUNKS} chunks" not in service.log.read_text():
        assert time.monotonic() < deadline, service.log.read_text()[-2000:]
        relabel(service, 7)
        answers(service, "margin")
        time.sleep(1)


def relabel(service: Service, index: int) -> None:
    """Fit another model."""
    label = int(time.monotonic() * 1000) % 5
    service.post("/label", {"project_id": "cats", "labels": [{"index": index, "label": label}]})


FOREST = {"name": "random_forest", "params": {"n_estimators": 20}}


@pytest.mark.parametrize("engine", [installed(Dask), installed(Ray)], indirect=True)
@pytest.mark.parametrize("estimator", [{"name": "logistic_regression"}, FOREST], ids=["linear", "forest"])
def test_a_cluster_answers_as_threads_do(engine: Dask | Ray, estimator: dict[str, Any], serve: Callable[..., Service]):
    threads = serve()
    make_project(threads, estimator)
    cluster = serve(AQ_WORKERS="1", **on(engine))
    wait_for_cluster(cluster)
    n_before = cluster.log.read_text().count(f"scored {N_CHUNKS} of {N_CHUNKS} chunks")
    names = ("margin", "entropy", "ratio", "least_confidence")
    for index in (200, 201):
        relabel(cluster, index)
        with ThreadPoolExecutor(len(names)) as pool:
            asked_at_once = pool.map(lambda name: answers(cluster, name), names)
        assert list(asked_at_once) == [answers(threads, name) for name in names]
    assert cluster.log.read_text().count(f"scored {N_CHUNKS} of {N_CHUNKS} chunks") == n_before + 2 * len(names)


@pytest.mark.parametrize("engine", [installed(Dask), installed(Ray)], indirect=True)
def test_a_failing_cluster_changes_no_reply(engine: Dask | Ray, serve: Callable[..., Service]):
    threads = serve()
    make_project(threads, {"name": "random_forest", "params": {"n_estimators": 500}})
    cluster = serve(AQ_WORKERS="1", **on(engine))
    wait_for_cluster(cluster)
    relabel(cluster, 200)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(answers, cluster, "margin")
        time.sleep(0.5)
        engine.kill_a_worker()
        assert not asked.done()
        assert asked.result() == answers(threads, "margin")
    relabel(cluster, 201)
    engine.stop()
    assert answers(cluster, "margin") == answers(threads, "margin")


@pytest.mark.parametrize("engine", [installed(Dask), installed(Ray)])
def test_without_the_cluster_the_reply_takes_seconds(engine: type[Dask] | type[Ray], serve: Callable[..., Service]):
    scheme = {"dask": "tcp", "ray": "ray"}[engine.name]
    address = f"{scheme}://127.0.0.1:{free_port()}"
    service = serve(AQ_WORKERS="1", AQ_BACKEND=engine.name, AQ_BACKEND_ADDRESS=address)
    make_project(service, {"name": "logistic_regression"})
    started = time.monotonic()
    assert len(answers(service, "margin")[0]) == 50
    assert time.monotonic() - started < 15
    assert service.log.read_text().count(f"{engine.name} at {address} failed") == 1
    assert service.stop() == 0
