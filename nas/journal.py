"""Optuna's journal as one driver writes it: no lock and no wait for the disk at each line.

A trial's parameters are a line each, and Optuna forces every line to disk under a lock of its own. The folder has one
driver already (`folder.held`), and what a power cut takes from the journal is filled from the results table, which
is the truth and is forced to disk. Read by Optuna's own `JournalFileBackend`, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend


class Journal(JournalFileBackend):
    """The journal at `path`, made where there is none."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        with open(self._path, "ab") as file:
            file.write("".join(lines).encode())
