"""A sampling profile of a fresh query: the current line of every thread, each millisecond."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any

from flask.testing import FlaskClient

import service
from service.app import create_app
from service.settings import Settings
from tests.benchmarks.measure import milliseconds
from tests.benchmarks.pools import create, form, label, label_records, served
from tests.benchmarks.sizes import BATCH, WIDTH, Sizes

HOME = Path(service.__file__).parent
ROUNDS = 20
SAMPLE_SECONDS = 0.001
N_LINES = 15


@dataclass(frozen=True)
class LineShare:
    """A line of the service and its share of the query time. Shares of two threads add up to 200 %."""

    line: str
    share: float


@dataclass(frozen=True)
class Profile:
    """The duration of a query in this process, without gunicorn, and the lines that take most of it."""

    work: str
    milliseconds: float
    lines: list[LineShare]


class Sampler:
    """Counts the current service line of each thread while active."""

    def __init__(self) -> None:
        self.n_samples = 0
        self.lines: Counter[str] = Counter()
        self.done = threading.Event()

    @contextmanager
    def active(self) -> Iterator[None]:
        self.done.clear()
        thread = threading.Thread(target=self.sample)
        thread.start()
        try:
            yield
        finally:
            self.done.set()
            thread.join()

    def sample(self) -> None:
        while not self.done.wait(SAMPLE_SECONDS):
            self.n_samples += 1
            lines = (innermost_line(frame) for frame in sys._current_frames().values())
            self.lines.update(line for line in lines if line is not None)


def innermost_line(frame: FrameType | None) -> str | None:
    """Return the innermost line of the service on a thread's stack."""
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(HOME):
            return f"{file.relative_to(HOME.parent)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return None


def profile_query(sizes: Sizes, directory: Path) -> Profile:
    """Row 9: profile fresh queries to the application in this process."""
    with served(directory, AQ_WORKERS="1") as running:
        create(running, "pool", form("pool", sizes.pool))
        label(running, "pool", sizes.labels)
    client = create_app(Settings(data_dir=directory / "data", log_level="error")).test_client()
    sampler, durations = Sampler(), []
    for turn in range(ROUNDS):
        post(client, "/label", project_id="pool", labels=label_records(0, 1, turn + 1))
        send_query = partial(post, client, "/query", project_id="pool", strategy="margin", batch_size=BATCH)
        with sampler.active():
            durations.append(milliseconds(send_query))
    lines = [LineShare(line, n / sampler.n_samples) for line, n in sampler.lines.most_common(N_LINES)]
    return Profile(f"fresh /query margin, {sizes.pool:,} x {WIDTH} float32, in process", fmean(durations), lines)


def post(client: FlaskClient, path: str, **body: Any) -> None:
    reply = client.post(path, json=body)
    if reply.status_code != 200:
        raise RuntimeError(f"{path}: {reply.get_data(as_text=True)}")
