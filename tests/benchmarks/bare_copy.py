"""Baseline for uploads: write the bytes to a file and fsync it.

`python -m tests.benchmarks.bare_copy TARGET [SOURCE]` copies a file. Without SOURCE it prints a loopback port and reads
the first connection. It prints the CPU milliseconds used.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path

PIECE = 2**20


def cpu_milliseconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return 1000 * (used.ru_utime + used.ru_stime)


def copy_all(read_into: Callable[[memoryview], int], target: Path) -> None:
    piece = memoryview(bytearray(PIECE))
    with target.open("wb", buffering=0) as file:
        while n := read_into(piece):
            file.write(piece[:n])
        os.fsync(file.fileno())


def main(target: Path, source: Path | None = None) -> None:
    if source is not None:
        before = cpu_milliseconds()
        with source.open("rb", buffering=0) as file:
            copy_all(file.readinto, target)
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            print(server.getsockname()[1], flush=True)
            connection, _ = server.accept()
        before = cpu_milliseconds()
        with connection:
            copy_all(connection.recv_into, target)
    print(cpu_milliseconds() - before)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
