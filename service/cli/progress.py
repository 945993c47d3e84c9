"""The progress of a command: one line of the terminal, which is erased at the end."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DRAW_SECONDS = 0.1
QUIET_SECONDS = 1.0
"""How long a command may wait without a line that says so."""

BAR_WIDTH = 24


class Progress:
    """Shows the steps of a command on the standard error, if that and the standard output are terminals."""

    def __init__(self, *, is_wanted: bool) -> None:
        self._is_shown = is_wanted and sys.stderr.isatty() and sys.stdout.isatty()

    @contextmanager
    def step(self, label: str, total: int = 0) -> Iterator[Callable[[int], None]]:
        """Show a step of a command: a bar if it has a `total`, else the seconds that it takes.

        The function that is yielded is called with how much of the total is done. A step within another one, or in
        another thread, is not shown.
        """
        if not self._is_shown or threading.current_thread() is not threading.main_thread():
            yield lambda _: None
            return
        self._is_shown, line = False, Line(label, total)
        try:
            with line.drawn():
                yield line.set_done
        finally:
            self._is_shown = True


class Line:
    """A line that a thread draws until its step is over."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._began = time.monotonic()
        self._width = 0

    def set_done(self, done: int) -> None:
        """Set how much of the total is done."""
        self._done = done

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw the line again and again, and erase it at the end."""
        is_over = threading.Event()

        def draw() -> None:
            while not is_over.wait(DRAW_SECONDS):
                self._write(self.text())

        thread = threading.Thread(target=draw, daemon=True)
        self._write(self.text())
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def text(self) -> str:
        """Return the line as it is now; when everything is sent, the service is at work."""
        seconds = time.monotonic() - self._began
        if self._done < self._total:
            share = self._done / self._total
            bar = ("#" * round(BAR_WIDTH * share)).ljust(BAR_WIDTH, "-")
            return f"{self._label}  [{bar}]  {share:4.0%}  {seconds:.0f} s"
        label = "Waiting for the service" if self._total else self._label
        return f"{label}  {seconds:.0f} s" if self._width or seconds > QUIET_SECONDS else ""

    def _write(self, text: str) -> None:
        """Write over what was written before."""
        text = text[: shutil.get_terminal_size().columns - 1]
        if text or self._width:
            sys.stderr.write(f"\r{text.ljust(self._width)}")
            sys.stderr.flush()
        self._width = len(text)
