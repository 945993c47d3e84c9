"""Changes of a project that wait for its lock at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.store import Store


def in_one_group(store: Store, *calls: Callable[[], Any], project_id: str = "p") -> list[Any]:
    """Run calls in threads while the project is locked, so that all but the first wait for each other.

    Return their results or exceptions.
    """
    with ThreadPoolExecutor(len(calls)) as threads:
        with store.transaction(project_id):
            futures = []
            for n_before, call in enumerate(calls):
                futures.append(threads.submit(call))
                groups = store._groups
                while not groups.are_waiting(project_id) or len(groups._waiting[project_id]) < n_before:
                    time.sleep(0.001)
        return [future.exception() or future.result() for future in futures]
