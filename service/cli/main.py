"""The command line: active-query serve | keys | check | demo | openapi."""

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

from service import __version__
from service.auth.keyfile import read_keys
from service.auth.keys import KeysError
from service.backends import refuse_missing_extra
from service.cli.keys import keys
from service.errors import StoreBusy, StoreUnwritable
from service.settings import Settings, SettingsError
from service.store import Store
from service.store.check import check_project, project_directories

MAX_OPEN_FILES = 2**16

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's own, made for this
COUNTERS_PREFIX = ".active-query-counters-"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="active-query")
def main() -> None:
    """Active Query: which samples should be labelled next? Settings are read from AQ_* variables."""


main.add_command(keys)


@main.command()
def serve() -> None:
    """Serve over HTTP with gunicorn until told to stop.

    What no AQ_* variable sets, gunicorn's own GUNICORN_CMD_ARGS may; paths in it must be absolute.
    """
    try:
        settings = Settings.from_process()
        settings.require_access_control()
        refuse_missing_extra(settings)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    if settings.api_keys_file is not None:
        check_keys(settings.api_keys_file)
    check_address(settings.host.strip("[]"), settings.port)
    check_data_dir(settings.data_dir)
    memory = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    command = gunicorn_command(settings, memory)
    environment = {
        # One thread for each computation: eight requests with a pool of threads each starve one another.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        # glibc gives what a chunk took back to the kernel, and takes it again page by page for the next: a fifth of the
        # time of a pass over a pool. It keeps up to so many bytes now.
        "MALLOC_MMAP_THRESHOLD_": str(2**24),
        "MALLOC_TRIM_THRESHOLD_": str(2**24),
        **os.environ,
        "AQ_DATA_DIR": str(settings.data_dir.absolute()),
        "AQ_API_KEYS_FILE": "none" if settings.api_keys_file is None else str(settings.api_keys_file.absolute()),
        "PROMETHEUS_MULTIPROC_DIR": str(make_counters_directory(memory)),
    }
    raise_open_file_limit()
    # gunicorn looks for modules in its working directory first, and many a project has a `service` of its own.
    os.chdir(Path(__file__).parents[2])
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is what is wanted


def raise_open_file_limit() -> None:
    """Let this process and its children have as many files open as it may ask for: each mapped array is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = MAX_OPEN_FILES if most == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))


def gunicorn_command(settings: Settings, memory: Path) -> list[str]:
    """Return the command line that serves. No preload: an OpenMP fit in the master would hang its children."""
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    return [
        *(sys.executable, "-P", "-m", "gunicorn", "service.app:create_app()"),
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
    """Fail at once where gunicorn would try for five seconds."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as error:
        raise click.ClickException(f"AQ_HOST={host!r}, AQ_PORT={port}: cannot listen there: {error}") from None


def check_keys(path: Path) -> None:
    """Fail where nobody could be let in."""
    try:
        if read_keys(path).all:
            return
        problem = f"{str(path)!r} holds no key"
    except KeysError as error:
        problem = str(error)
    raise click.ClickException(f"AQ_API_KEYS_FILE: {problem}; `active-query keys new` makes one") from None


def check_data_dir(path: Path) -> None:
    """Fail once and in one sentence where every worker would fail with a traceback."""
    try:
        store = Store(path)
        # What lies there can still be read.
        with suppress(StoreUnwritable):
            store.check_writable()
        store.sweep()
    except (OSError, StoreBusy, StoreUnwritable) as error:
        message = f"AQ_DATA_DIR={str(path)!r}: the directory cannot be used by user {os.getuid()}: {error}"
        raise click.ClickException(message) from None


def make_counters_directory(memory: Path) -> Path:
    """Make the directory that all workers count in, and remove those of services that were killed.

    A lock on it passes on to gunicorn and its workers, and is free when the last of them is gone.
    """
    for left in memory.glob(f"{COUNTERS_PREFIX}*"):
        with suppress(OSError):
            lock = lock_directory(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    while True:
        path = Path(tempfile.mkdtemp(prefix=COUNTERS_PREFIX, dir=memory))
        # Another service that starts may have found it before it was locked.
        with suppress(BlockingIOError, FileNotFoundError):
            os.set_inheritable(lock_directory(path), True)
            if path.exists():
                return path


def lock_directory(path: Path) -> int:
    """Lock a directory and return its descriptor, or raise OSError when another process has it locked."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@main.command()
@click.option("--project", "project_id", help="Check this project alone.")
def check(project_id: str | None) -> None:
    """Verify the data directory, every byte of it, and say what is wrong: one line for each thing, and exit status 1.

    Nothing is changed, and a service may be running.
    """
    try:
        directories = project_directories(Settings.from_process().data_dir)
    except (SettingsError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if project_id is not None:
        directories = [path for path in directories if path.name == project_id]
        if not directories:
            raise click.ClickException(f"there is no project {project_id!r}")
    n_findings = 0
    for directory in directories:
        for finding in check_project(directory):
            n_findings += 1
            click.echo(f"{finding.project_id}: {finding.file}: {finding.problem}")
    click.echo(f"{len(directories)} projects checked, {n_findings} findings", err=True)
    sys.exit(1 if n_findings else 0)


@main.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("active-query-demo"),
    show_default=True,
    help="Directory for the pictures and curves.json.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="How many runs with random questions.  [default: 20 of the yardstick, 5 of the digits]",
)
@click.option("--url", help="A running service to measure, instead of one of the demo's own.")
def demo(out: Path, seeds: int | None, url: str | None) -> None:
    """Measure chosen questions against random ones, and draw both. Needs the extra 'demo'."""
    try:
        from service.demo import run  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise
        raise click.ClickException("the pictures need matplotlib: pip install 'active-query[demo]'") from None
    run(out, seeds, url)


@main.command()
@click.option("--check", is_flag=True, help="Fail when the file is not what the code says.")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), default=Path("openapi.yaml"))
def openapi(path: Path, check: bool) -> None:
    """Write openapi.yaml, made from the code. Needs the extra 'dev'."""
    try:
        from service.http.contract.openapi import render  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'active-query[dev]'") from None

    if not check:
        path.write_text(render(), encoding="utf-8")
    elif path.read_text(encoding="utf-8") != render():
        raise click.ClickException(f"{path} is not what the code says: run `active-query openapi`")
