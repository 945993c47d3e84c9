"""An in-process LRU cache with a limit in bytes."""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

from service.telemetry.metrics import count_cache_lookup, set_cache_bytes

Key = tuple[Hashable, ...]

OVERHEAD = 1_000
"""Bytes counted for each entry in addition to its size: its keys and objects."""

MAPPING_BYTES = 2**16
"""Bytes counted for a memory map: it takes almost no memory, but keeps a file open."""


class Cache:
    """The values used last, up to `capacity` bytes. Losing them costs only time.

    A key must always stand for the same value: cached values are never checked for being out of date.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Half of the open files that the process may have are left for requests and connections.
        most_mappings = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self.n_bytes_of_mapping = max(MAPPING_BYTES, capacity // max(most_mappings, 1))
        self._values: OrderedDict[Key, tuple[int, Any]] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, key: Key) -> Any:
        """Return the value of a key, None if it is not cached."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][1]

    def size_of(self, key: Key) -> int:
        """Return the bytes counted for a key, 0 if it is not cached."""
        with self._lock:
            return self._values[key][0] if key in self._values else 0

    def put(self, key: Key, value: Any, n_bytes: int) -> None:
        """Store a value that takes `n_bytes`; the values used longest ago are dropped to make room."""
        size = n_bytes + OVERHEAD
        with self._lock:
            if key in self._values:
                self._size -= self._values.pop(key)[0]
            if size > self.capacity:
                return  # it would evict all others and not fit itself
            self._values[key] = (size, value)
            self._size += size
            while self._size > self.capacity:
                _, (dropped, _) = self._values.popitem(last=False)
                self._size -= dropped
            set_cache_bytes(self._size)

    def get_or_make(self, key: Key, make: Callable[[], tuple[Any, int]], kind: str = "other") -> Any:
        """Return the value of a key, or that of `make`, which returns it with its size; `kind` is for the metric."""
        value = self.get(key)
        if value is not None:
            count_cache_lookup(kind, is_hit=True)
            return value
        value, n_bytes = make()
        count_cache_lookup(kind, is_hit=False)
        self.put(key, value, n_bytes)
        return value

    def move_to(self, other: Cache) -> None:
        """Move all values to another cache."""
        with self._lock:
            moved, self._values, self._size = self._values, OrderedDict(), 0
        for key, (size, value) in moved.items():
            other.put(key, value, size - OVERHEAD)

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> list[Key]:
        """Return the cached keys."""
        with self._lock:
            return list(self._values)

    def drop(self, is_stale: Callable[[Key], bool]) -> None:
        """Drop the keys for which `is_stale` returns true."""
        with self._lock:
            for key in [key for key in self._values if is_stale(key)]:
                self._size -= self._values.pop(key)[0]
            set_cache_bytes(self._size)
