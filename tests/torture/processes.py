"""Services that end with the trial that started them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.serving import Service


@contextmanager
def running(data_dir: Path, log: Path, **settings: str) -> Iterator[Service]:
    """Start a service and kill it on exit if it still runs."""
    service = Service(data_dir, log, **settings)
    try:
        yield service.start()
    finally:
        if service.process is not None and service.process.poll() is None:
            service.kill()
