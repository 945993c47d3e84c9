"""The program that `active-query serve` becomes: it checks what a service needs, and runs gunicorn.

It imports the application before gunicorn forks, so that all workers share its modules. gunicorn's --preload would also
create the application, and an OpenMP fit in the master would hang the workers.
"""

from __future__ import annotations

import runpy
import shutil
import sys
from importlib import import_module

from service.compute.imports import quick_imports
from service.telemetry.multiprocess import begin_master, drop_master, shared_directory


def main() -> None:
    """Start a service with the options of gunicorn on the command line, or exit with a message."""
    # How `metrics` counts is decided when it is imported, so this comes before all other modules.
    begin_master()
    with quick_imports():
        import_module("service.app")
        checks = import_module("service.server.checks")
    problem = checks.find_problem()
    drop_master(shared_directory())
    if problem is not None:
        shutil.rmtree(shared_directory(), ignore_errors=True)
        sys.exit(f"Error: {problem}")
    runpy.run_module("gunicorn", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
