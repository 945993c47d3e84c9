"""As many requests a second as a service takes from a few connections: with wrk where there is one, else from here.

What the generator needs of the processor the service does not get, with either of them; wrk needs less.
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


NEW_EACH_TIME = 111_111_111
"""Stands in a body for a number that no other request has: of the connection, the second and the request."""


@dataclass(frozen=True)
class Load:
    """What to post, and where: each connection has bodies of its own and sends them round and round."""

    path: str
    bodies: tuple[tuple[bytes, ...], ...]


def requests_a_second(port: int, load: Load, seconds: int) -> float:
    """Keep every connection busy for some seconds. Raises RuntimeError when an answer is not a success."""
    return wrk_rate(WRK, port, load, seconds) if WRK else python_rate(port, load, seconds)


# A thread of wrk has a Lua of its own; with one connection in each, that is a Lua for each connection.
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
    answered, microseconds, errors = map(int, result[1:])
    if errors or not answered:
        raise RuntimeError(f"{load.path}: {errors} errors\n{output}")
    return answered * 1e6 / microseconds


def python_rate(port: int, load: Load, seconds: int) -> float:
    start = time.monotonic()
    with ThreadPoolExecutor(len(load.bodies)) as threads:
        calls = [
            threads.submit(talk, port, load.path, bodies, start + seconds, number)
            for number, bodies in enumerate(load.bodies, 1)
        ]
        answered = [call.result() for call in calls]
    return sum(answered) / (time.monotonic() - start)


def talk(port: int, path: str, bodies: Sequence[bytes], until: float, number: int) -> int:
    """Post bodies over the connection of a number until a moment, and count the answers."""
    requests = [
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for body in bodies
    ]
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as answers:
        for answered, request in enumerate(cycle(requests)):
            if time.monotonic() > until:
                return answered
            new = f"{number}{int(time.time()) % 1000:03}{answered % 100_000:05}"
            connection.sendall(request.replace(str(NEW_EACH_TIME).encode(), new.encode()))
            status = answers.readline()
            headers = dict(line.decode().lower().split(": ", 1) for line in iter(answers.readline, b"\r\n"))
            body = answers.read(int(headers["content-length"]))
            if b" 200 " not in status:
                raise RuntimeError(f"{path}: {status!r} {body!r}")
    raise AssertionError("a circle has no end")
