"""The results table: one JSON line per finished rung job, the one source of fronts, pages, replay and resume.

`results.jsonl` is append-only. A line is on disk (flushed and fsynced) before anyone is told of it. A last line
that a crash cut short (`Results.broken`) is moved to `results.jsonl.broken` before the first append.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from io import FileIO
from operator import attrgetter
from pathlib import Path
from typing import Literal, Self

FORMAT = "result/1"


class ResultsError(ValueError):
    """Results that cannot be read: another format, garbled before the last line."""


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


EPOCH = tuple(f.name for f in fields(Epoch))  # asdict takes ten times as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One finished rung job.

    `values` holds every known measure by name: accuracy (0-1, validation), flops, macs, params, activations,
    interactions, latency_ms; `accuracy` is missing where nothing was trained. `final` is true once fully trained.
    `state`: complete (reached its epoch), stopped (over the latency limit), failed (`error` says why). A trial has a
    record for each rung that it reached: `curve` is whole each time, `seconds` are those of that job.
    `choices` is the point of the space, None for what the space does not hold. `parent` is a trial number.
    `note` is for people: a checkpoint that could not be used. `name` is that of a published network; one that the
    study does not know has a `trial` below 0.
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
    note: str | None = None
    checkpoint: str | None = None
    format: str = field(default=FORMAT, init=False)

    @property
    def ended(self) -> bool:
        """Whether the trial is over: fully trained, stopped at a limit, or failed. Else it waits at a rung."""
        return self.final or self.state != "complete"

    @property
    def title(self) -> str:
        """What people see: trial-0003, final-0003, or the name of a published network."""
        number = self.name or f"{self.trial:04d}"
        return number if self.name and self.kind == "seed" else f"{self.kind}-{number}"

    def to_json(self) -> dict[str, object]:
        """Plain data; `architecture`, `choices` and `values` are this result's own, not copies."""
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        curve = [dict(zip(EPOCH, values, strict=True)) for values in map(attrgetter(*EPOCH), self.curve)]
        return record | {"curve": curve, "worker": asdict(self.worker)}

    @classmethod
    def from_json(cls, record: dict[str, object]) -> Self:
        """Raises `ResultsError` for another format or missing fields."""
        got = record.get("format") if isinstance(record, dict) else record
        if got != FORMAT:
            raise ResultsError(f"A result must have format {FORMAT!r}, but got {got!r}.")
        known = {f.name: record[f.name] for f in fields(cls) if f.init and f.name in record}
        try:
            known["curve"] = tuple(Epoch(**e) for e in record.get("curve") or ())  # type: ignore[attr-defined]
            known["worker"] = Worker(**record["worker"])  # type: ignore[arg-type]
            numbers = [record["trial"], record["epoch"], *record["values"].values()]  # type: ignore[attr-defined]
            if not all(type(number) in (int, float) for number in numbers):
                raise TypeError(f"trial, epoch and values must be numbers, not {numbers}")
            return cls(**known)  # type: ignore[arg-type]
        except (KeyError, TypeError, AttributeError) as error:
            raise ResultsError(
                f"A result must have all its fields, but {error} (trial {record.get('trial')!r})."
            ) from None


class Results:
    """The table on disk. Iterating gives every record in order of arrival.

    Architectures of one sweep are much alike: equal layers are held once, so a record is not to be changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._layers: dict[str, dict[str, object]] = {}
        self.broken: str | None = None
        self._whole = 0  # bytes of whole lines
        self._rows: list[Result] = []
        if path.exists():
            self._read()
        self._file: FileIO | None = None

    def _read(self) -> None:
        data = self.path.read_bytes()
        kept = 0
        lines = [line + b"\n" for line in data.split(b"\n")]
        lines[-1] = lines[-1][:-1]  # what is behind the last line end: nothing, or a line cut short
        for number, line in enumerate(filter(None, lines), 1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("cut short")
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("no record")
            except (ValueError, RecursionError):
                if kept + len(line) < len(data):
                    raise ResultsError(f"{self.path}:{number}: a line must be JSON, but got {line[:60]!r}.") from None
                self.broken = line.decode(errors="replace")
                break
            try:
                self._keep(Result.from_json(record))
            except ResultsError as error:
                raise ResultsError(f"{self.path}:{number}: {error}") from None
            kept += len(line)
        self._whole = kept

    def _open(self) -> FileIO:
        """Open for appending; what a crash left half-written goes aside first. Reading alone never writes."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.broken is not None:
                with open(self.path.with_suffix(".jsonl.broken"), "ab") as aside:
                    aside.write(self.path.read_bytes()[self._whole :])
                os.truncate(self.path, self._whole)
                self.broken = None
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (stays open)
        return self._file

    def append(self, result: Result) -> None:
        """Raises `OSError` where the disk is full; what of the line is on it then is broken, and goes aside."""
        file = self._open()
        line = json.dumps(result.to_json(), separators=(",", ":")).encode() + b"\n"
        while line:
            line = line[file.write(line) :]
        os.fsync(file.fileno())
        self._keep(result)

    def _keep(self, result: Result) -> None:
        shared = self._shared(result.architecture)
        assert isinstance(shared, dict)
        self._rows.append(replace(result, architecture=shared))

    def _shared(self, part: object) -> object:
        """`part`, the dicts in it that hold no others (its layers) being those of earlier records where equal."""
        if isinstance(part, list):
            return [self._shared(value) for value in part]
        if not isinstance(part, dict):
            return part
        if any(
            isinstance(value, dict) or (isinstance(value, list) and dict in map(type, value)) for value in part.values()
        ):
            return {key: self._shared(value) for key, value in part.items()}
        return self._layers.setdefault(repr(part), part)

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
