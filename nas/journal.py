"""Optuna's journal as one driver writes it: no lock, no wait for the disk, and nothing read back from it.

A trial's parameters are a line each, and Optuna forces every line to disk under a lock of its own, then reads the file
again. The folder has one driver already (`folder.held`), and what a power cut takes from the journal is filled from
the results table, which is the truth and is forced to disk. Read by Optuna's own `JournalFileBackend`, too.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend


class Journal(JournalFileBackend):
    """The journal at `path`, made where there is none; what others append after the first reading is not seen."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._own: list[bytes] | None = None  # lines appended since the last reading

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        with open(self._path, "ab") as file:
            file.write(b"".join(lines))
        if self._own is not None:
            self._own += lines

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        if self._own is None:
            self._own = []
            yield from super().read_logs(log_number_from)
        else:
            lines, self._own = self._own, []
            yield from map(json.loads, lines)
