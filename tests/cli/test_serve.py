"""`active-query serve`: its error messages, its address, and its shutdown."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from service import __version__
from service.cli.main import main
from service.cli.serve import COUNTERS_PREFIX, SHARED_MEMORY, gunicorn_command
from service.server.checks import find_problem
from service.server.hooks import SOCKET_TIMEOUT_SECONDS, when_ready
from service.settings import Settings
from tests.support.prometheus import metric_value
from tests.support.serving import Service, free_port, is_alive, wait_until

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must not be listened on unasked
Start = Callable[..., tuple[str, int]]
COMMAND = str(Path(sys.executable).with_name("active-query"))


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without its AQ_ variables, and the given variables."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("AQ_")}, **variables}


def refused(directory: Path, *options: str, **variables: str) -> str:
    """Start a service that must not start, and return its error message."""
    settings = environment(**{"AQ_PORT": "0", "AQ_DATA_DIR": str(directory / "data"), **variables})
    ended = subprocess.run([COMMAND, "serve", *options], env=settings, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1, ended
    assert ended.stderr.startswith("Error: "), ended.stderr
    assert "Traceback" not in ended.stderr
    assert "gunicorn" not in ended.stderr
    return ended.stderr


def refused_here(monkeypatch: pytest.MonkeyPatch, directory: Path, **variables: str) -> str:
    """Run `serve` in this process, where it must not get as far as gunicorn, and return its error."""

    def start(*_: object) -> None:
        raise AssertionError("it was not refused")

    monkeypatch.setattr(os, "execve", start)
    settings = environment(**{"AQ_PORT": "0", "AQ_DATA_DIR": str(directory / "data"), **variables})
    monkeypatch.setattr(os, "environ", settings)
    ended = CliRunner().invoke(main, ["serve"])
    assert ended.exit_code == 1, ended
    assert ended.stderr.startswith("Error: "), ended.stderr
    return ended.stderr


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Start]:
    """Start services that choose their ports, from a directory of this test; return host and port."""
    processes: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "log"

    def start(*options: str, **variables: str) -> tuple[str, int]:
        with log.open("wb") as output:
            settings = environment(**{"AQ_PORT": "0", "AQ_WORKERS": "1", **variables})
            command = [COMMAND, "serve", *options]
            process = subprocess.Popen(command, env=settings, stdout=output, stderr=output, cwd=tmp_path)
        processes.append(process)
        wait_until_logged(log, "Using worker")
        found = re.search(r"Listening at: http://(\S+):(\d+) ", log.read_text())
        assert found is not None, log.read_text()
        return found[1], int(found[2])

    yield start
    for process in processes:
        process.terminate()
        process.wait(40)


def get(host: str, port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AQ_PORT": "tcp://10.0.0.1:8000"}, ["AQ_PORT='tcp://10.0.0.1:8000'", "Kubernetes", "enableServiceLinks"]),
        ({"AQ_PORT": "65536"}, ["must be an integer from 0 to 65535"]),
        ({"AQ_WORKRES": "4"}, ["AQ_WORKRES is not a setting", "did you mean AQ_WORKERS?"]),
        ({"AQ_HOST": EVERYWHERE}, ["AQ_HOST='0.0.0.0'", "AQ_ALLOW_ANONYMOUS=1"]),
        ({"AQ_HOST": "::"}, ["AQ_HOST='::'", "AQ_ALLOW_ANONYMOUS=1", "AQ_API_KEYS_FILE"]),
        ({"AQ_HOST": "192.0.2.1", "AQ_ALLOW_ANONYMOUS": "1"}, ["AQ_HOST='192.0.2.1'", "cannot listen there"]),
        ({"AQ_HOST": "unix:/run/aq", "AQ_ALLOW_ANONYMOUS": "1"}, ["AQ_HOST='unix:/run/aq'", "cannot listen there"]),
    ],
)
def test_an_invalid_setting_is_an_error_message(
    variables: dict[str, str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused_here(monkeypatch, tmp_path, **variables)
    assert all(word in said for word in words), said


def test_an_option_is_checked_as_its_variable(tmp_path: Path) -> None:
    assert "AQ_PORT='http': must be an integer" in refused(tmp_path, "--port", "http")


def test_a_port_in_use_is_an_error_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"AQ_PORT={port}: cannot listen there" in refused(tmp_path, AQ_PORT=str(port))


def test_a_file_in_place_of_the_data_directory_is_an_error_message(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a letter")
    assert "the directory cannot be used" in refused(tmp_path)
    assert (tmp_path / "data").read_text() == "a letter"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_project_of_another_user_is_an_error_message(tmp_path: Path) -> None:
    project = tmp_path / "data" / "projects" / "theirs"
    project.mkdir(parents=True)
    (project / "lock").touch(mode=0o000)
    assert "Permission denied" in refused(tmp_path)


def test_a_failed_start_leaves_no_files(tmp_path: Path) -> None:
    refused(tmp_path, AQ_HOST=EVERYWHERE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_listens_on_ipv6(started: Start) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    shown, port = started(AQ_HOST="::1")
    assert shown in ("::1", "[::1]")
    assert get("::1", port, "/healthz")[0] == 200


@pytest.mark.slow
def test_it_serves_its_own_code_and_a_relative_directory_named_by_an_option(started: Start, tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("raise SystemExit('the caller has a package of this name')")
    (tmp_path / "joblib.py").write_text("raise SystemExit('and one of that')")
    options = ("--host", "127.0.0.1", "--port", "0", "--data-dir", "here")
    host, port = started(*options, AQ_HOST=EVERYWHERE, AQ_PORT="not a port", AQ_DATA_DIR="/proc/nowhere")
    assert get(host, port, "/readyz")[0] == 200
    assert (tmp_path / "here" / "projects").is_dir()
    messages = [json.loads(line)["message"] for line in (tmp_path / "log").read_text().splitlines()]
    assert f"active-query {__version__}" in messages


@pytest.mark.slow
def test_gunicorns_variable_cannot_change_the_address(
    started: Start,
) -> None:
    other = free_port()
    host, port = started(GUNICORN_CMD_ARGS=f"--bind {EVERYWHERE}:{other} --worker-class sync --limit-request-line 99")
    assert get(host, port, "/healthz")[0] == 200
    assert get(host, port, "/healthz?" + 99 * "x")[0] == 414
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", other)).close()


@pytest.mark.parametrize(("host", "bind"), [("::1", "[::1]:80"), ("[::1]", "[::1]:80"), ("127.0.0.1", "127.0.0.1:80")])
def test_an_ipv6_address_is_bound_in_brackets(host: str, bind: str) -> None:
    command = gunicorn_command(Settings(host=host, port=80), SHARED_MEMORY)
    assert command[command.index("--bind") + 1] == bind


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"AQ_API_KEYS_FILE": "/proc/nowhere/keys"},
            ["'/proc/nowhere/keys' cannot be read", "`active-query keys new` makes one"],
        ),
        ({"AQ_DATA_DIR": "/proc/nowhere/data"}, ["AQ_DATA_DIR='/proc/nowhere/data'", f"user {os.getuid()}"]),
    ],
)
def test_a_wrong_file_is_a_problem(
    variables: dict[str, str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"AQ_DATA_DIR": str(tmp_path / "data"), **variables}.items():
        monkeypatch.setenv(name, value)
    problem = find_problem()
    assert problem is not None
    assert all(word in problem for word in words), problem


@pytest.mark.slow
def test_workers_share_the_modules_and_count_for_themselves(serve: Callable[..., Service]) -> None:
    service = serve(AQ_WORKERS="2")
    assert service.process is not None
    assert "sklearn" in Path(f"/proc/{service.process.pid}/maps").read_text()
    for _ in range(10):
        assert service.call("GET", "/projects").status == 200
    text = service.call("GET", "/metrics").body.decode()
    assert metric_value(text, "active_query_requests_total", route="/projects") == 10
    counters = service.counters()
    assert counters is not None
    assert [path.name for path in counters.glob("*_-1.db")] == []


def test_the_application_is_not_preloaded() -> None:
    assert "--preload" not in gunicorn_command(Settings(), SHARED_MEMORY)


@pytest.mark.slow
def test_a_shutdown_waits_for_requests_in_progress(serve: Callable[..., Service]) -> None:
    service = serve(AQ_WORKERS="1")
    body = b'{"project_id": "late", "estimator": "logistic_regression", "X": [[0.0], [1.0]], "y": [0, 1]}'
    head = (
        f"POST /fit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # a worker has taken the request
        connection.sendall(body[:10])
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        wait_until_logged(service.log, "Handling signal: term")
        connection.sendall(body[10:])
        assert connection.recv(100).startswith(b"HTTP/1.1 201 ")
    assert service.process.wait(30) == 0
    assert service.start().call("GET", "/projects/late").status == 200


def wait_until_logged(log: Path, text: str) -> None:
    """Wait until a text appears in a log."""
    wait_until(lambda: text in log.read_text(), log.read_text)


@pytest.mark.slow
def test_counters_are_removed_at_the_end_or_by_the_next_service(serve: Callable[..., Service]) -> None:
    service = serve(AQ_WORKERS="1")
    killed = counters_of(service)
    assert service.process is not None
    pids = [service.process.pid, *service.workers()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    service.process.wait(30)
    while any(is_alive(pid) for pid in pids):
        time.sleep(0.01)
    service.start()
    assert not killed.exists()
    assert b"active_query_requests_total" in service.call("GET", "/metrics").body
    ended = counters_of(service)
    assert service.stop() == 0
    assert not ended.exists()


def counters_of(service: Service) -> Path:
    """The directory of counters of a running service."""
    assert service.process is not None
    open_files = Path(f"/proc/{service.process.pid}/fd").iterdir()
    (path,) = {file.readlink() for file in open_files if file.readlink().name.startswith(COUNTERS_PREFIX)}
    return path


def test_connections_inherit_the_socket_timeout():
    with socket.socket() as listening, socket.socket() as caller:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        when_ready(SimpleNamespace(LISTENERS=[SimpleNamespace(sock=listening)]))
        caller.connect(listening.getsockname())
        connection, _ = listening.accept()
        with connection:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                assert connection.getsockopt(socket.SOL_SOCKET, option, 16) == struct.pack(
                    "ll", SOCKET_TIMEOUT_SECONDS, 0
                )
