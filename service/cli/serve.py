"""active-query serve: serve over HTTP with gunicorn."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import click

from service.cli.setting_options import environment_with, setting_option
from service.settings import Settings, SettingsError

MAX_OPEN_FILES = 2**16

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's own tmpfs
COUNTERS_PREFIX = ".active-query-counters-"


@click.command()
@setting_option("host")
@setting_option("port")
@setting_option("data_dir")
def serve(**options: str | None) -> None:
    """Serve over HTTP with gunicorn until stopped.

    GUNICORN_CMD_ARGS may hold options of gunicorn that no AQ_* variable sets; paths in it must be absolute.
    """
    variables = environment_with(options)
    try:
        settings = Settings.from_env(variables)
        settings.require_access_control()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    check_address(settings.host.strip("[]"), settings.port)
    memory = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    command = gunicorn_command(settings, memory)
    environment = {
        # One thread per computation: eight requests with a thread pool each would starve one another.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        # glibc returns the memory of each chunk to the kernel and faults it in again for the next, which takes a fifth
        # of the time of a pass over a pool. With these it keeps up to 16 MB.
        "MALLOC_MMAP_THRESHOLD_": str(2**24),
        "MALLOC_TRIM_THRESHOLD_": str(2**24),
        **variables,
        "AQ_DATA_DIR": str(settings.data_dir.absolute()),
        "AQ_API_KEYS_FILE": "none" if settings.api_keys_file is None else str(settings.api_keys_file.absolute()),
        "PROMETHEUS_MULTIPROC_DIR": str(make_counters_directory(memory)),
    }
    raise_open_file_limit()
    # gunicorn imports from its working directory first, and the caller's may hold another package `service`.
    os.chdir(Path(__file__).parents[2])
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is needed


def raise_open_file_limit() -> None:
    """Raise the limit of open files for this process and its children: each mapped array is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def gunicorn_command(settings: Settings, memory: Path) -> list[str]:
    """Return the command line of `service.server.start`, with gunicorn's options."""
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    return [
        *(sys.executable, "-P", "-m", "service.server.start", "service.app:create_app()"),
        *("--config", "python:service.server.hooks"),
        *("--bind", f"{host}:{settings.port}"),
        *("--worker-class", "service.server.gunicorn_adapter.Worker"),
        *("--workers", str(settings.workers)),
        *("--threads", str(settings.threads)),
        *("--graceful-timeout", "30"),
        *("--keep-alive", "5"),
        *("--log-level", settings.log_level),
        *("--worker-tmp-dir", str(memory)),
        "--no-control-socket",
    ]


def check_address(host: str, port: int) -> None:
    """Raise ClickException at once if the address cannot be bound; gunicorn would retry for five seconds."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as error:
        raise click.ClickException(f"AQ_HOST={host!r}, AQ_PORT={port}: cannot listen there: {error}") from None


def make_counters_directory(memory: Path) -> Path:
    """Make the directory in which all workers count, and remove those of services that were killed.

    gunicorn and its workers inherit a lock on it, which is released when the last of them exits.
    """
    for old in memory.glob(f"{COUNTERS_PREFIX}*"):
        with suppress(OSError):
            lock = lock_directory(old)
            shutil.rmtree(old, ignore_errors=True)
            os.close(lock)
    while True:
        path = Path(tempfile.mkdtemp(prefix=COUNTERS_PREFIX, dir=memory))
        # Another service may start now and remove the directory before it is locked.
        with suppress(BlockingIOError, FileNotFoundError):
            os.set_inheritable(lock_directory(path), True)
            if path.exists():
                return path


def lock_directory(path: Path) -> int:
    """Lock a directory and return its descriptor, or raise OSError if another process holds the lock."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
