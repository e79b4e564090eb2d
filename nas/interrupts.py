"""Ctrl-C and SIGTERM at safe places only, so that a table, a journal or a front is never left half-written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

PATIENCE = 3  # so many signals end even what is not safe to end


class Interrupts:
    """While entered, SIGINT and SIGTERM raise `KeyboardInterrupt` inside `allowed()`, or at the next one.

    The third signal raises anywhere. In a thread other than the main one, where Python has no say over signals,
    it changes nothing.
    """

    def __init__(self) -> None:
        self._count = 0
        self._open = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        self.take()
        return self

    def take(self) -> None:
        """Take the signals from whoever has them now: Ray's start takes SIGTERM, and ends the process by it."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, self._handle)
                self._before.setdefault(number, before)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._open or self._count >= PATIENCE:
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """A place where waiting may end at once."""
        self._open = True
        try:
            if self._count:
                raise KeyboardInterrupt
            yield
        finally:
            self._open = False
