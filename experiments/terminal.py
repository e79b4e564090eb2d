"""What people see while they wait: a live line on a terminal, plain lines elsewhere, never silent for two seconds.

Everything here goes to stderr; results go to stdout.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import IO, Self

SILENCE_S = 2.0


class Narrator:
    """Says lines and keeps one status: redrawn in place on a terminal, else repeated after two seconds of silence."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = (
            self.stream.isatty() and not ({"NO_COLOR", "CI"} & set(os.environ)) and os.environ.get("TERM") != "dumb"
        )
        self._status = ""
        self._drawn = 0
        self._last = self._start = time.monotonic()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(timeout=1)
        with self._lock:
            self._erase()

    def say(self, line: str = "") -> None:
        """A line that stays."""
        with self._lock:
            self._erase()
            print(line, file=self.stream, flush=True)
            self._draw()
            self._last = time.monotonic()

    def status(self, text: str) -> None:
        """What is going on now."""
        with self._lock:
            self._status = text
            self._erase()
            self._draw()

    def _draw(self) -> None:
        if self.live and self._status:
            width = os.get_terminal_size(self.stream.fileno()).columns - 1
            text = f"{'|/-'[int(time.monotonic() * 4) % 3]} {self._status}"[:width]
            self.stream.write(text)
            self.stream.flush()
            self._drawn = len(text)

    def _erase(self) -> None:
        if self._drawn:
            self.stream.write("\r" + " " * self._drawn + "\r")
            self.stream.flush()
            self._drawn = 0

    def _beat(self) -> None:
        while not self._end.wait(0.25):
            with self._lock:
                if self.live:
                    self._erase()
                    self._draw()
                elif self._status and time.monotonic() - self._last > SILENCE_S - 0.3:
                    elapsed = time.monotonic() - self._start
                    print(f"  ... {self._status} ({elapsed:.0f} s)", file=self.stream, flush=True)
                    self._last = time.monotonic()


def table(head: list[str], rows: list[list[str]], wide: int | None = None) -> str:
    """Aligned columns; numbers to the right. The last column is cut to what `wide` leaves (None: the terminal)."""
    if wide is None:
        wide = os.get_terminal_size().columns if sys.stdout.isatty() else 160
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    widths[-1] = max(len(head[-1]), min(widths[-1], wide - sum(widths[:-1]) - 2 * len(widths) + 2))
    lines = []
    for cells in [head, *rows]:
        *front, last = cells
        cut = last if len(last) <= widths[-1] else last[: max(1, widths[-1] - 3)] + "..."
        padded = [c.rjust(w) for c, w in zip(front, widths, strict=False)]
        lines.append("  ".join([*padded, cut]).rstrip())
    return "\n".join(lines)
