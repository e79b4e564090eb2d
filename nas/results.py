"""The results table: one JSON line per finished rung job, the one source of fronts, pages, replay and resume.

`results.jsonl` is append-only. A line is on disk (flushed and fsynced) before anyone is told of it. A last line
that a crash cut short (`Results.broken`) is moved to `results.jsonl.broken` before the first append.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Literal, Self

FORMAT = "result/1"


class ResultsError(ValueError):
    """A results table that cannot be read: another format, or garbled before its last line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Where a job ran: `node` (Ray node id or host name), process id, torch device."""

    node: str
    pid: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch of training: mean losses (nats) and accuracies (0-1)."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One finished rung job.

    `values` holds every known measure by name: accuracy (0-1, validation), flops, macs, params, activations,
    interactions, latency_ms; `accuracy` is missing where nothing was trained. `final` is true once fully trained.
    `state`: complete (reached its epoch), stopped (ended on purpose: a limit, a rung), failed (`error` says why).
    `choices` is the point of the space, None for what the space does not hold. `parent` is a trial number.
    `name` is that of a published network; one that the study does not know has a `trial` below 0.
    """

    trial: int
    kind: str = "trial"
    name: str = ""
    digest: str
    architecture: dict[str, object]
    choices: dict[str, object] | None = None
    words: str = ""
    epoch: int
    final: bool
    state: Literal["complete", "stopped", "failed"]
    values: dict[str, float]
    curve: tuple[Epoch, ...] = ()
    seconds: float
    worker: Worker
    seed: int
    parent: int | None = None
    error: str | None = None
    checkpoint: str | None = None
    format: str = field(default=FORMAT, init=False)

    @property
    def title(self) -> str:
        """What people see: trial-0003, final-0003, or the name of a published network."""
        number = self.name or f"{self.trial:04d}"
        return number if self.name and self.kind == "seed" else f"{self.kind}-{number}"

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, object]) -> Self:
        """Raises `ResultsError` for another format or missing fields."""
        if record.get("format") != FORMAT:
            raise ResultsError(f"A result must have format {FORMAT!r}, but got {record.get('format')!r}.")
        known = {f.name: record[f.name] for f in fields(cls) if f.init and f.name in record}
        try:
            known["curve"] = tuple(Epoch(**e) for e in record.get("curve") or ())  # type: ignore[attr-defined]
            known["worker"] = Worker(**record["worker"])  # type: ignore[arg-type]
            return cls(**known)  # type: ignore[arg-type]
        except (KeyError, TypeError) as error:
            raise ResultsError(
                f"A result must have all its fields, but {error} (trial {record.get('trial')!r})."
            ) from None


class Results:
    """The table on disk. Iterating gives every record in order of arrival."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken: str | None = None
        self._whole = 0  # bytes of whole lines
        self._rows: list[Result] = []
        if path.exists():
            self._read()
        self._file: IO[bytes] | None = None

    def _read(self) -> None:
        data = self.path.read_bytes()
        kept = 0
        lines = data.splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("cut short")
                record = json.loads(line)
            except ValueError:
                if number < len(lines):
                    raise ResultsError(f"{self.path}:{number}: a line must be JSON, but got {line[:60]!r}.") from None
                self.broken = line.decode(errors="replace")
                break
            self._rows.append(Result.from_json(record))
            kept += len(line)
        self._whole = kept

    def _open(self) -> IO[bytes]:
        """Open for appending; what a crash left half-written goes aside first. Reading alone never writes."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.broken is not None:
                with open(self.path.with_suffix(".jsonl.broken"), "ab") as aside:
                    aside.write(self.path.read_bytes()[self._whole :])
                os.truncate(self.path, self._whole)
                self.broken = None
            self._file = open(self.path, "ab")  # noqa: SIM115 (stays open)
        return self._file

    def append(self, result: Result) -> None:
        file = self._open()
        file.write(json.dumps(result.to_json(), separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
        self._rows.append(result)

    def close(self) -> None:
        """Let go of the file; appending opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Result]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def latest(self) -> dict[int, Result]:
        """The last record of each trial, by trial number, in order of first arrival."""
        return {row.trial: row for row in self._rows}
