"""What a worker keeps at hand and may lose."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from service.store.files import load


class ModelCache:
    """Fitted models that were loaded lately, up to a number of bytes on disk. Losing it costs only time."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._models: OrderedDict[tuple[str, int], tuple[int, Any]] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, key: tuple[str, int], path: Path) -> Any:
        """Return the model of a project's incarnation and model version, loading it when it is not at hand."""
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
                return self._models[key][1]
        size, model = path.stat().st_size, load(path)
        if size > self.capacity:
            return model  # it would drive out all others and not stay itself
        with self._lock:
            if key not in self._models:
                self._models[key] = (size, model)
                self._size += size
            while self._size > self.capacity:
                _, (dropped, _) = self._models.popitem(last=False)
                self._size -= dropped
        return model
