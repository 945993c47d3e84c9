"""The command line: active-query serve | keys | check | demo | openapi."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import click

from service import __version__
from service.auth.keyfile import read_keys
from service.auth.keys import KeysError
from service.backends import refuse_missing_extra
from service.cli.bridges import label_studio
from service.cli.keys import keys
from service.errors import StoreBusy, StoreUnwritable
from service.settings import Settings, SettingsError, variable_name
from service.store import Store
from service.store.check import check_project, project_directories

MAX_OPEN_FILES = 2**16

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's own tmpfs
COUNTERS_PREFIX = ".active-query-counters-"

SETTINGS = {item.name: item for item in fields(Settings)}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="active-query")
def main() -> None:
    """Active Query: which samples should be labelled next? Settings are read from AQ_* variables."""


main.add_command(keys)
main.add_command(label_studio)


def setting_option(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option for a setting; it overrides the setting's variable."""
    item = SETTINGS[name]
    text = f"{item.metadata['sentence']} Overrides {variable_name(item)}.  [default: {item.default}]"
    return click.option(f"--{name.replace('_', '-')}", name, help=text)


def environment_with(options: Mapping[str, str | None]) -> dict[str, str]:
    """Return this process's environment, with the options that were given in place of their variables."""
    given = {variable_name(SETTINGS[name]): text for name, text in options.items() if text is not None}
    return {**os.environ, **given}


@main.command()
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
    """Return gunicorn's command line. No --preload: an OpenMP fit in the master would hang the workers."""
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
    """Raise ClickException at once if the address cannot be bound; gunicorn would retry for five seconds."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as error:
        raise click.ClickException(f"AQ_HOST={host!r}, AQ_PORT={port}: cannot listen there: {error}") from None


def check_keys(path: Path) -> None:
    """Raise ClickException if the file holds no usable key."""
    try:
        if read_keys(path).all:
            return
        problem = f"{str(path)!r} holds no key"
    except KeysError as error:
        problem = str(error)
    raise click.ClickException(f"AQ_API_KEYS_FILE: {problem}; `active-query keys new` makes one") from None


def check_data_dir(path: Path) -> None:
    """Raise ClickException if the data directory is unusable; each worker would fail with a traceback."""
    try:
        store = Store(path)
        # A read-only directory is served for reading.
        with suppress(StoreUnwritable):
            store.check_writable()
        store.sweep()
    except (OSError, StoreBusy, StoreUnwritable) as error:
        message = f"AQ_DATA_DIR={str(path)!r}: the directory cannot be used by user {os.getuid()}: {error}"
        raise click.ClickException(message) from None


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


@main.command()
@setting_option("data_dir")
@click.option("--project", "project_id", help="Check only this project.")
def check(project_id: str | None, **options: str | None) -> None:
    """Verify every byte of the data directory. Print a line for each problem, and exit with status 1 if there is one.

    Nothing is changed, and the service may be running.
    """
    try:
        data_dir = Settings.from_env(environment_with(options)).data_dir
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    try:
        directories = project_directories(data_dir)
    except FileNotFoundError:
        lacks = "holds no directory 'projects'" if data_dir.is_dir() else "does not exist"
        raise click.ClickException(f"AQ_DATA_DIR={str(data_dir)!r} {lacks}: no data to check") from None
    except OSError as error:
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
    help="Directory for the plots and curves.json.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Number of runs with random queries.  [default: 20 for the yardstick, 5 for the digits]",
)
@click.option("--url", help="URL of a running service to measure; by default the demo starts its own.")
def demo(out: Path, seeds: int | None, url: str | None) -> None:
    """Compare active queries with random ones and plot both. Needs the extra 'demo'."""
    try:
        from service.demo import run  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise
        raise click.ClickException("the plots need matplotlib: pip install 'active-query[demo]'") from None
    run(out, seeds, url)


@main.command()
@click.option("--check", is_flag=True, help="Fail if the file differs from what the code generates.")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), default=Path("openapi.yaml"))
def openapi(path: Path, check: bool) -> None:
    """Write openapi.yaml, generated from the code. Needs the extra 'dev'."""
    try:
        from service.http.contract.openapi import render  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'active-query[dev]'") from None

    if not check:
        path.write_text(render(), encoding="utf-8")
    elif path.read_text(encoding="utf-8") != render():
        raise click.ClickException(f"{path} is out of date: run `active-query openapi`")
