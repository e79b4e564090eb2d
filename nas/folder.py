"""An output folder: who holds it, whose sweep it is, and its files."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from nas.results import Result, Results
from nas.sweep import Sweep, SweepError

FREE = {"budget", "workers", "tracking", "storage"}  # of a sweep, what may change between two calls on one folder


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder against a second driver; the system lets go when this process ends, however it ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / "lock", "a+")  # noqa: SIM115 (held open: closing lets go of the lock)
    except OSError as error:
        raise SweepError([f"{out}: must be a folder that can be written ({error.strerror})"]) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise SweepError(
                [f"{out}: must not be in use by another search (process {file.read().strip()} holds it)"]
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def refuse_another(sweep: Sweep, out: Path) -> None:
    """Raises `SweepError`, with what differs, where `out` belongs to a sweep other than `sweep`."""
    path = out / "sweep.json"
    now = json.loads(json.dumps(sweep.to_json()))
    if path.exists():
        before = json.loads(path.read_text())
        changed = [k for k in now if k not in FREE and now[k] != before.get(k)]
        if changed:
            faults = [f"{path}: {k}: must stay as it was ({_cut(before.get(k))}; got {_cut(now[k])})" for k in changed]
            raise SweepError([*faults, f"{out} belongs to another sweep: choose another --out, or delete it."])


def refuse_other_data(out: Path, fingerprint: str) -> None:
    """Raises `SweepError` where the data of the sweep in `out` had another fingerprint; remembers the first."""
    path = out / "data.json"
    if not path.exists():
        write_json(path, {"format": "data/1", "fingerprint": fingerprint})
    before = json.loads(path.read_text()).get("fingerprint")
    if before != fingerprint:
        raise SweepError(
            [f"data: must be what it was when {out} was begun ({before}; got {fingerprint}); use another --out"]
        )


def identity(out: Path) -> str:
    """Eight hexadecimal digits that tell `out` from every other folder, made once."""
    path = out / "id"
    if not path.exists():
        path.write_text(uuid4().hex[:8])
    return path.read_text().strip()


def weights(out: Path, trial: int) -> Path:
    """Where the trained network of a front member lies."""
    return checkpoint(out, trial).with_suffix(".safetensors")


def checkpoint(out: Path, trial: int) -> Path:
    """Where a trial's training is kept while it runs."""
    return out.resolve() / "checkpoints" / stem(trial)


def stem(trial: int) -> str:
    """What the files of a trial are called: trial-0003, or, of a published network beside the study, seed-0001."""
    return f"trial-{trial:04d}" if trial >= 0 else f"seed-{-trial:04d}"


def _cut(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 120 else text[:117] + "..."


def read_sweep_of(out: Path) -> Sweep:
    """The sweep whose folder `out` is. Raises `SweepError` where it is nobody's."""
    path = out / "sweep.json"
    try:
        record = json.loads(path.read_text())
    except OSError:
        raise SweepError([f"{path}: must be there; `nas search` writes it (no sweep has run into {out}?)"]) from None
    except ValueError as error:
        raise SweepError([f"{path}: must be JSON ({error})"]) from None
    return Sweep.from_json(record)


def read_front(out: Path) -> list[Result]:
    """The members in `out/front.json`. Raises `SweepError` for a folder without one, or another format."""
    path = out / "front.json"
    try:
        record = json.loads(path.read_text())
    except OSError:
        raise SweepError([f"{path}: must be there; `nas search` writes it (no sweep has run into {out}?)"]) from None
    except ValueError as error:
        raise SweepError([f"{path}: must be JSON ({error})"]) from None
    if record.get("format") != "front/1":
        raise SweepError([f"{path}: format must be 'front/1' (got {record.get('format')!r})"])
    return [Result.from_json(member) for member in record["members"]]


def find_trial(out: Path, number: int) -> Result:
    """The fully trained trial `number` of the sweep in `out`. Raises `SweepError`, naming the front, for another."""
    row = Results(out / "results.jsonl").latest().get(number)
    if row is None or row.state != "complete" or not row.final:
        members = ", ".join(str(member.trial) for member in read_front(out))
        state = "is not there" if row is None else f"is {row.state}"
        raise SweepError(
            [f"--trial: must be a fully trained trial of {out} (got {number}, which {state}; front: {members})"]
        )
    return row


def write_json(path: Path, record: object) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(temporary, path)
