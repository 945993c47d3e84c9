"""Requests per second that a service handles on a few connections, sent by wrk if installed, else by Python threads.

The load generator shares the CPU with the service; wrk uses less of it.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

WRK = shutil.which("wrk")
GENERATOR = "wrk" if WRK else "threads of Python"


UNIQUE_NUMBER = 111_111_111
"""Placeholder in a body, replaced by a number that differs in each request."""


@dataclass(frozen=True)
class Load:
    """A path and, for each connection, the bodies that it sends in a cycle."""

    path: str
    bodies: tuple[tuple[bytes, ...], ...]


def requests_per_second(port: int, load: Load, seconds: int) -> float:
    """Keep every connection busy for some seconds. Raises RuntimeError on a response other than 200."""
    return wrk_rate(WRK, port, load, seconds) if WRK else python_rate(port, load, seconds)


# Each wrk thread has its own Lua state; one connection per thread gives each connection its own bodies.
SCRIPT = """
local bodies = {%s}
local threads = 0
function setup(thread) threads = threads + 1; thread:set("number", threads) end
function init()
  requests, sent = {}, 0
  for i, body in ipairs(bodies[number]) do
    requests[i] = wrk.format("POST", nil, {["Content-Type"] = "application/json", Host = wrk.host}, body)
  end
end
function request()
  sent = sent + 1
  local new = string.format("%%d%%03d%%05d", number, os.time() %% 1000, sent %% 100000)
  return (string.gsub(requests[(sent - 1) %% #requests + 1], "111111111", new))
end
function done(summary)
  local e = summary.errors
  print("RESULT", summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout)
end
"""


def wrk_rate(wrk: str, port: int, load: Load, seconds: int) -> float:
    lists = ("{" + ",".join(f"[==[{body.decode()}]==]" for body in bodies) + "}" for bodies in load.bodies)
    n = str(len(load.bodies))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % ",".join(lists))
        script.flush()
        url = f"http://127.0.0.1:{port}{load.path}"
        command = [wrk, "-t", n, "-c", n, "-d", f"{seconds}s", "-s", script.name, url]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    (result,) = (line.split() for line in output.splitlines() if line.startswith("RESULT"))
    n_responses, microseconds, errors = map(int, result[1:])
    if errors or not n_responses:
        raise RuntimeError(f"{load.path}: {errors} errors\n{output}")
    return n_responses * 1e6 / microseconds


def python_rate(port: int, load: Load, seconds: int) -> float:
    start = time.monotonic()
    with ThreadPoolExecutor(len(load.bodies)) as threads:
        calls = [
            threads.submit(post_until, port, load.path, bodies, start + seconds, number)
            for number, bodies in enumerate(load.bodies, 1)
        ]
        n_responses = [call.result() for call in calls]
    return sum(n_responses) / (time.monotonic() - start)


def post_until(port: int, path: str, bodies: Sequence[bytes], deadline: float, number: int) -> int:
    """Post bodies on one connection until the deadline; return the number of responses."""
    requests = [
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for body in bodies
    ]
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as responses:
        for n_responses, request in enumerate(cycle(requests)):
            if time.monotonic() > deadline:
                return n_responses
            new = f"{number}{int(time.time()) % 1000:03}{n_responses % 100_000:05}"
            connection.sendall(request.replace(str(UNIQUE_NUMBER).encode(), new.encode()))
            status = responses.readline()
            headers = dict(line.decode().lower().split(": ", 1) for line in iter(responses.readline, b"\r\n"))
            body = responses.read(int(headers["content-length"]))
            if b" 200 " not in status:
                raise RuntimeError(f"{path}: {status!r} {body!r}")
    raise AssertionError("unreachable: cycle() is endless")
