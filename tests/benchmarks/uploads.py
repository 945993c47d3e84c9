"""CPU time and memory of a large upload, compared with a bare copy of its bytes to disk."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.measure import PeakMemory, cpu_milliseconds, in_turns
from tests.benchmarks.pools import create, form, materialized, served
from tests.benchmarks.rows import Row, at_most, times
from tests.benchmarks.sizes import Sizes

UPLOAD_WIDTH = 32
BARE_COPY = (sys.executable, "-m", "tests.benchmarks.bare_copy")


def measure_upload(sizes: Sizes, directory: Path) -> list[Row]:
    """Row 4: CPU time of an upload, and of a bare copy of the same bytes to the same disk."""
    upload = materialized(form("pool", sizes.upload, UPLOAD_WIDTH))
    source, target = directory / "source", directory / "copy"
    source.write_bytes(b"".join(upload))
    with served(directory) as service:

        def fit() -> float:
            before = cpu_milliseconds(service.workers())
            create(service, "pool", upload)
            used = cpu_milliseconds(service.workers()) - before
            service.call("DELETE", "/projects/pool")
            return used

        fits, received, copied = in_turns(
            sizes.rounds, fit, lambda: receive(upload, target), lambda: copy(source, target)
        )
        with PeakMemory(service.workers()) as memory:
            create(service, "pool", upload)
    work = f"/fit multipart .npy, {sizes.upload:,} x {UPLOAD_WIDTH} float32"
    return [
        times(4, f"{work}, CPU", fits, "ms", "bytes from a socket to a file, fsync: CPU", received, at_most=2),
        times(4, f"{work}, CPU", fits, "ms", "bytes from a file to a file, fsync: CPU", copied, at_most=2),
        at_most(4, f"{work}, own memory", memory.growth_mb, "MB", 32),
    ]


def receive(upload: Iterable[bytes], target: Path) -> float:
    """Send an upload to a process that only writes its bytes to a file; return the CPU time of that process."""
    with subprocess.Popen([*BARE_COPY, target], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with socket.create_connection(("127.0.0.1", int(process.stdout.readline()))) as connection:
            for piece in upload:
                connection.sendall(piece)
        return float(process.stdout.readline())


def copy(source: Path, target: Path) -> float:
    """Copy a file in a separate process; return its CPU time."""
    ended = subprocess.run([*BARE_COPY, target, source], stdout=subprocess.PIPE, text=True, check=True)
    return float(ended.stdout)
