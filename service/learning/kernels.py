"""Functions that the extra 'compiled' compiles."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from threading import Lock, Thread
from typing import Any

log = logging.getLogger(__name__)


class Kernel:
    """A compiled function of a module, which a thread compiles when it is first wanted: no request waits for it."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name
        self._function: Callable[..., Any] | None = None
        self._compiling: Thread | None = None
        self._lock = Lock()

    def get(self, *, is_worth_it: bool) -> Callable[..., Any] | None:
        """Return the function, None until it is compiled, which starts if it pays off."""
        if self._function is None and is_worth_it:
            self.start()
        return self._function

    def start(self) -> Thread:
        """Compile in a thread, unless that has been done. The process ends only after it."""
        with self._lock:
            if self._compiling is None:
                self._compiling = Thread(target=self._compile, name=f"compile {self._name}")
                self._compiling.start()
            return self._compiling

    def _compile(self) -> None:
        if find_spec("numba") is None:
            return
        try:
            self._function = getattr(import_module(self._module), self._name)
        except Exception:
            log.exception("numba cannot compile %s, which slower code does instead", self._name)
