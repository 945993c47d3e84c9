"""What gunicorn calls in its master process. It is given this module as its configuration."""

from __future__ import annotations

import os
import shutil
from typing import Any

from prometheus_client.multiprocess import mark_process_dead


def child_exit(_server: Any, worker: Any) -> None:
    """Tell prometheus-client that a worker is gone."""
    mark_process_dead(worker.pid)


def on_exit(_server: Any) -> None:
    """Remove the directory of counters that `serve` made."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
