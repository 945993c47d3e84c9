"""Labelling tools that tests install with pip and start on this machine, and the bridges to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from service.bridges.web import ToolError, Web
from service.client import Client
from tests.support.serving import Service, free_port

SLOWEST_SECONDS = 1800
"""How long a busy machine may take for anything."""


def install(folder: Path, *packages: str) -> Path:
    """Install packages into an environment, unless it is complete, and return its folder of programs."""
    done = folder / "installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([folder / "bin/pip", "install", "-q", *packages], check=True)
        done.touch()
    return folder / "bin"


def wait_for(holds: Callable[[], Any], seconds: float = SLOWEST_SECONDS) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.5)


class InstalledServer:
    """A server on a free loopback port, which can be killed and started again."""

    health: ClassVar[str]

    def __init__(self, log: Path) -> None:
        self.port, self.log = free_port(), log
        self.url = f"http://127.0.0.1:{self.port}"
        self.command: list[Path | str] = []
        self.folder: Path | None = None
        self.environment = {**os.environ}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the server, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_for(self.answers)
        except BaseException:
            self.end(signal.SIGKILL)
            raise
        return self

    def answers(self) -> bool:
        """Return whether the server answers, if only that it refuses the request. Fails if it has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            Web(self.url, timeout=5).send("GET", self.health)
        except ToolError as error:
            return error.status is not None and error.status < 500
        return True

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server and its workers."""
        assert self.process is not None
        os.killpg(self.process.pid, how)
        self.process.wait(60)


class RunningBridge:
    """The installed command, which can be killed and started again."""

    def __init__(self, arguments: Sequence[str], log: Path, **settings: str) -> None:
        self.command = [sys.executable, "-m", "service", *arguments]
        self.log, self.environment = log, {**os.environ, **settings}
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stderr=log)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(60)


Answers = dict[tuple[str, str], str | None]
"""The label of each sample by each annotator, None for a skip."""


def kill_each_side(
    annotate: Callable[[int], None], bridge: RunningBridge, service: Service, tool: InstalledServer
) -> None:
    """Annotate samples while first the bridge, then the service, and then the tool is killed and started again."""
    annotate(2)
    bridge.end()
    annotate(2)
    bridge.start()
    annotate(1)
    service.kill()
    annotate(2)
    service.start()
    annotate(1)
    tool.end(signal.SIGKILL)
    tool.start()
    annotate(2)


def answers_in(client: Client, project: str) -> Answers:
    """Return the answers that the service has."""
    return {(record["id"], record["annotator"]): record["label"] for record in client.labels(project)}
