"""Turns of timing and thinking in one machine: nothing may take cores or caches from what is timed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Turns:
    """Threads that time and threads that think exclude each other; whoever waits to think goes before the next timing.

    Timings are many and short, thoughts are few: they would hardly ever find a gap otherwise.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._timing = self._thinking = self._waiting = 0

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits to think."""
        return self._waiting > 0

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Wait until nobody thinks, or waits to."""
        with self._changed:
            self._changed.wait_for(lambda: not self._thinking and not self._waiting)
            self._timing += 1
        try:
            yield
        finally:
            with self._changed:
                self._timing -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def thinking(self) -> Iterator[None]:
        """Wait until nothing is timed."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._timing)
                self._thinking += 1
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._thinking -= 1
                self._changed.notify_all()
