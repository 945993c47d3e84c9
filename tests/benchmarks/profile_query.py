"""Where the time of a fresh query goes: what the threads of this process are at, looked up every millisecond."""

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
from tests.benchmarks.pools import answers, create, form, label, served
from tests.benchmarks.sizes import BATCH, WIDTH, Sizes

HOME = Path(service.__file__).parent
ROUNDS = 20
LOOK_EVERY = 0.001
N_PLACES = 15


@dataclass(frozen=True)
class Place:
    """A line of the service and, of the time of a query, the share that threads spent there: two threads make 200 %."""

    line: str
    share: float


@dataclass(frozen=True)
class Profile:
    """How many milliseconds a query takes in this process, without gunicorn and sockets, and where they go."""

    work: str
    milliseconds: float
    places: list[Place]


class Look:
    """Counts at which line of the service each thread is, as long as it is told to."""

    def __init__(self) -> None:
        self.looks = 0
        self.lines: Counter[str] = Counter()
        self.done = threading.Event()

    @contextmanager
    def looking(self) -> Iterator[None]:
        self.done.clear()
        thread = threading.Thread(target=self.look)
        thread.start()
        try:
            yield
        finally:
            self.done.set()
            thread.join()

    def look(self) -> None:
        while not self.done.wait(LOOK_EVERY):
            self.looks += 1
            lines = (innermost(frame) for frame in sys._current_frames().values())
            self.lines.update(line for line in lines if line is not None)


def innermost(frame: FrameType | None) -> str | None:
    """The line of the service that a thread is at, or that called what it is at."""
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(HOME):
            return f"{file.relative_to(HOME.parent)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return None


def profile_query(sizes: Sizes, directory: Path) -> Profile:
    """Row 9: fresh queries, asked of the application in this process."""
    with served(directory, AQ_WORKERS="1") as running:
        create(running, "pool", form("pool", sizes.pool))
        label(running, "pool", sizes.labels)
    client = create_app(Settings(data_dir=directory / "data", log_level="error")).test_client()
    look, taken = Look(), []
    for turn in range(ROUNDS):
        post(client, "/label", project_id="pool", labels=answers(0, 1, turn + 1))
        ask = partial(post, client, "/query", project_id="pool", strategy="margin", batch_size=BATCH)
        with look.looking():
            taken.append(milliseconds(ask))
    places = [Place(line, n / look.looks) for line, n in look.lines.most_common(N_PLACES)]
    return Profile(f"fresh /query margin, {sizes.pool:,} x {WIDTH} float32, in process", fmean(taken), places)


def post(client: FlaskClient, path: str, **body: Any) -> None:
    reply = client.post(path, json=body)
    if reply.status_code != 200:
        raise RuntimeError(f"{path}: {reply.get_data(as_text=True)}")
