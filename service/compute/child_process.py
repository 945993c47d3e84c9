"""Work in a process of its own, which can be ended: `python -m service.compute.child_process`.

The work and its arguments come on the standard input, and the result leaves on the standard output, both pickled. A
process whose reader is gone exits: the worker that started it has died.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from service.compute.imports import quick_imports
from service.compute.threads import COMPUTING, count_thread, idle_cores, n_cores

Result = TypeVar("Result")


def run_in_process(work: Callable[..., Result], *arguments: Any, seconds: float) -> Result:
    """Return `work(*arguments)`, computed in a process of its own on this thread's core and on idle ones.

    `work` is a function at the top of a module. Its errors are raised here. Raises TimeoutError if it takes longer than
    `seconds`, and MemoryError if the process was killed, which the kernel does when memory runs out; no process is left
    then.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    with count_thread(), idle_cores(n_cores()) as n_idle:
        try:
            process = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "service.compute.child_process"],
                input=pickle.dumps((n_cores() - 1 - n_idle, work, arguments), pickle.HIGHEST_PROTOCOL),
                stdout=subprocess.PIPE,
                timeout=seconds,
                check=False,
                cwd=Path(__file__).parents[2],
                env=environment,
                start_new_session=True,  # Ctrl-C is for the service
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
    if process.returncode == -signal.SIGKILL:
        raise MemoryError
    if process.returncode != 0:
        raise ChildProcessError(f"the process ended with status {process.returncode}")
    is_done, result = pickle.loads(process.stdout)  # noqa: S301 - written by the process
    if not is_done:
        raise result
    return result  # type: ignore[no-any-return]


def main() -> None:
    """Run the work that comes on the standard input."""
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no result
    Thread(target=exit_with_reader, args=(results.fileno(),), daemon=True).start()
    try:
        with quick_imports():
            n_busy, work, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the worker
    except (EOFError, pickle.UnpicklingError):
        sys.exit(1)  # the worker died before it had written all
    COMPUTING.add(n_busy)
    try:
        outcome = True, work(*arguments)
    except Exception as error:  # noqa: BLE001 - the worker raises it
        outcome = False, error
    with suppress(BrokenPipeError), results:
        pickle.dump(outcome, results, pickle.HIGHEST_PROTOCOL)


def exit_with_reader(pipe: int) -> None:
    """Exit when the reader of a pipe is gone."""
    poll = select.poll()
    poll.register(pipe, 0)  # errors are always reported
    poll.poll()
    os._exit(1)


if __name__ == "__main__":
    main()
