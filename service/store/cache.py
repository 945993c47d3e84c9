"""What a worker keeps at hand and may lose."""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

from service.telemetry.metrics import count_cache_lookup, set_cache_bytes

Key = tuple[Hashable, ...]

OVERHEAD = 1_000
"""Bytes that an entry counts on top of its own size: its names and objects."""

MAPPING_BYTES = 2**16
"""Bytes that a mapping counts, which takes next to no memory, but a file that stays open."""


class Cache:
    """Values that were asked for lately, up to a number of bytes. Losing them costs only time.

    A key must name what it stands for once and for all: nothing at hand is ever looked at for being out of date.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Half of the files that the process may have open are left to requests and connections.
        most_mappings = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self.n_bytes_of_mapping = max(MAPPING_BYTES, capacity // max(most_mappings, 1))
        self._values: OrderedDict[Key, tuple[int, Any]] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, key: Key) -> Any:
        """Return the value of a key, None where it is not at hand."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][1]

    def size_of(self, key: Key) -> int:
        """Return how many bytes the value of a key counts, 0 where it is not at hand."""
        with self._lock:
            return self._values[key][0] if key in self._values else 0

    def put(self, key: Key, value: Any, n_bytes: int) -> None:
        """Keep a value that takes `n_bytes`, in the place of what the key had; others go to make room for it."""
        size = n_bytes + OVERHEAD
        with self._lock:
            if key in self._values:
                self._size -= self._values.pop(key)[0]
            if size > self.capacity:
                return  # it would drive out all others and not stay itself
            self._values[key] = (size, value)
            self._size += size
            while self._size > self.capacity:
                _, (dropped, _) = self._values.popitem(last=False)
                self._size -= dropped
            set_cache_bytes(self._size)

    def get_or_make(self, key: Key, make: Callable[[], tuple[Any, int]], kind: str = "other") -> Any:
        """Return the value of a key, which is of a kind, made with its size where it is not at hand."""
        value = self.get(key)
        if value is not None:
            count_cache_lookup(kind, is_hit=True)
            return value
        value, n_bytes = make()
        count_cache_lookup(kind, is_hit=False)
        self.put(key, value, n_bytes)
        return value

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> list[Key]:
        """List the keys of what is at hand."""
        with self._lock:
            return list(self._values)

    def drop(self, is_stale: Callable[[Key], bool]) -> None:
        """Forget the values of some keys."""
        with self._lock:
            for key in [key for key in self._values if is_stale(key)]:
                self._size -= self._values.pop(key)[0]
            set_cache_bytes(self._size)
