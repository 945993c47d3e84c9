"""Randomly changed request bodies: each body reader accepts or refuses them, without crash, hang or memory growth."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.torture.outcome import Tally
from tests.torture.readers import READERS, Reader, Service, serving, without_checksums
from tests.torture.sizes import Sizes

SECONDS = 5
"""Time limit for a body of a few kilobytes."""

GROWTH_MB = 200
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
WORDS = [
    b"NaN",
    b"null",
    b"1e999",
    b"-1",
    b"true",
    b'""',
    b"{}",
    b"[]",
    b"[[]]",
    b"\\ud800",
    b"\x00",
    b"\xff\xfe",
    b"99999999999",
]


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Change bodies at random; with atheris installed, also guided by code coverage."""
    tally = Tally()
    with serving(scratch / "data") as service, without_checksums():
        for number, (name, reader) in enumerate(READERS.items()):
            fuzz_randomly(service, name, reader, sizes.fuzz_inputs, random.Random(f"{seed} {number}"), tally)  # noqa: S311
    if sizes.fuzz_seconds and importlib.util.find_spec("atheris") is None:
        tally.figures["by coverage:"] = "none, atheris is not installed (extra 'fuzz')"
    elif sizes.fuzz_seconds:
        for name in READERS:
            fuzz_by_coverage(name, sizes.fuzz_seconds, seed, scratch, tally)
    return tally


def fuzz_randomly(service: Service, name: str, reader: Reader, times: int, rng: random.Random, tally: Tally) -> None:
    """Send randomly changed bodies to one reader."""
    seeds = reader.seeds(service.client)
    for data in seeds:
        status = service.send(reader, data).status_code
        tally.check(status < 300, f"{name}: a valid body is refused: {status}")
    memory, slowest, n_accepted = 0, 0.0, 0
    for number in range(times):
        data = with_changes(rng.choice(seeds), seeds, rng)
        begin = time.monotonic()
        status = send_with_limit(service, reader, data, name, tally)
        slowest, n_accepted = max(slowest, time.monotonic() - begin), n_accepted + (status < 300)
        if number == times // 4:
            memory = memory_mb()
    tally.count("changed bodies", times)
    tally.count("changed bodies accepted", n_accepted)
    tally.figures[f"slowest {name}"] = f"{slowest * 1000:.0f} ms"
    tally.check(memory_mb() - memory < GROWTH_MB, f"{name}: grew by {memory_mb() - memory} MB")


def send_with_limit(service: Service, reader: Reader, data: bytes, name: str, tally: Tally) -> int:
    """Send a body; return the status, 500 on timeout."""
    try:
        with time_limit(SECONDS):
            status = service.send(reader, data).status_code
    except TimeoutError:
        tally.fail(f"{name}: takes longer than {SECONDS} s: {data.hex()[:4000]}")
        return 500
    if status >= 500:
        where = traceback.extract_tb(service.bug.__traceback__)[-1] if service.bug else "nowhere"
        tally.fail(f"{name}: {status}, {service.bug!r} in {where}: {data.hex()[:4000]}")
    return status


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError after some seconds."""

    def on_alarm(*_: object) -> None:
        raise TimeoutError

    handler = signal.signal(signal.SIGALRM, on_alarm)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)  # pytest-timeout may use the same timer
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def memory_mb() -> int:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# Changes. Each modifies a body in place.


def flip(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def set_byte(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def set_number(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    size, at = rng.choice((1, 2, 4, 8)), rng.randrange(len(data))
    number = rng.choice(NUMBERS) % 2 ** (8 * size)
    data[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))


def insert_word(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at : at + rng.choice((0, 1, 4))] = rng.choice(WORDS)


def set_decimal(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    found = list(re.finditer(rb"\d+", data))
    if found:
        begin, end = rng.choice(found).span()
        data[begin:end] = str(rng.choice((*NUMBERS, -1, 3, 13))).encode()


def cut(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    begin = rng.randrange(len(data))
    del data[begin : begin + rng.choice((1, 2, 8, 64, len(data)))]


def repeat(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    begin, length = rng.randrange(len(data)), rng.choice((1, 8, 64, 512))
    data[begin:begin] = data[begin : begin + length] * rng.choice((1, 2, 30))


def splice(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    other = rng.choice(seeds)
    at, begin = rng.randrange(len(data)), rng.randrange(len(other))
    data[at : at + rng.choice((0, 16))] = other[begin : begin + rng.choice((4, 64, len(other)))]


CHANGES: list[Callable[[bytearray, Sequence[bytes], random.Random], None]] = [
    flip, set_byte, set_number, insert_word, set_decimal, cut, repeat, splice,
]  # fmt: skip


def with_changes(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a body with one to four random changes."""
    body = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if body:
            rng.choice(CHANGES)(body, seeds, rng)
    return bytes(body)


def fuzz_by_coverage(name: str, seconds: int, seed: int, scratch: Path, tally: Tally) -> None:
    """Let atheris search for bodies that reach new code in one reader, in a separate process."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "tests.torture.fuzzing", name, str(seconds), str(seed), str(scratch / name)]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=os.environ)
    done = re.findall(r"#(\d+)\s.*?cov: (\d+)", run.stderr)
    if done:
        tally.count("bodies by coverage", int(done[-1][0]))
        tally.figures[f"coverage of {name}"] = f"{done[0][1]} -> {done[-1][1]}"
    if run.returncode != 0:
        tally.fail(f"{name}, by coverage after {time.monotonic() - begin:.0f} s: {run.stderr[-3000:]}")
