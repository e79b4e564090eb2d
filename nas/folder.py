"""An output folder: who holds it, whose sweep it is, and its files."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from nas.results import Result, Results, ResultsError
from nas.sweep import FORMAT, Sweep, SweepError

FREE = {"budget", "workers", "tracking", "storage"}  # of a sweep, what may change between two calls on one folder


class DiskFull(OSError):
    """There is no room for results."""


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold the folder against a second driver; the system lets go when this process ends, however it ends.

    A folder that was made for this, and that nothing was written into, is taken away again.
    """
    try:
        made = [path for path in (out, *out.parents) if not path.exists()]
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
                [f"{out}: must not be in use by another search (held by {file.read().strip() or 'one that starts'})"]
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}")
        file.flush()
        try:
            yield
        finally:
            if made and [path.name for path in out.iterdir()] == ["lock"]:
                (out / "lock").unlink()
                with suppress(OSError):  # of a parent that another has begun to use
                    for path in made:
                        path.rmdir()


@contextmanager
def full_disk_said(out: Path) -> Iterator[None]:
    """Raises `DiskFull`, which says what to do, in place of the system's error."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            f"{out}: there must be room on the disk, but it is full ({error}). What was finished is saved: make room, "
            "then run the same command again."
        ) from None


def refuse_another(sweep: Sweep, out: Path) -> None:
    """Raises `SweepError`, with what differs, where `out` belongs to a sweep other than `sweep`."""
    path = out / "sweep.json"
    now = json.loads(json.dumps(sweep.to_json()))
    if path.exists():
        before = read_json(path, FORMAT)
        changed = [k for k in now if k not in FREE and now[k] != before.get(k)]
        if changed:
            faults = [f"{path}: {k}: must stay as it was ({_cut(before.get(k))}; got {_cut(now[k])})" for k in changed]
            raise SweepError([*faults, f"{out} belongs to another sweep: choose another --out, or delete it."])


def refuse_other_data(out: Path, fingerprint: str) -> None:
    """Raises `SweepError` where the data of the sweep in `out` had another fingerprint; remembers the first."""
    path = out / "data.json"
    if not path.exists():
        write_json(path, {"format": "data/1", "fingerprint": fingerprint})
    before = read_json(path, "data/1").get("fingerprint")
    if before != fingerprint:
        raise SweepError(
            [f"data: must be what it was when {out} was begun ({before}; got {fingerprint}); use another --out"]
        )


def identity(out: Path) -> str:
    """Eight hexadecimal digits that tell `out` from every other folder, made once."""
    path = out / "id"
    if not path.exists():
        _write_whole(path, uuid4().hex[:8])
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


def trial_of(name: str) -> int | None:
    """The trial whose training the file `name` is; None for any other file."""
    number = name.removeprefix("trial-")
    return int(number) if name != number and number.isdecimal() else None


def _cut(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 120 else text[:117] + "..."


def read_sweep_of(out: Path) -> Sweep:
    """The sweep whose folder `out` is. Raises `SweepError` where it is nobody's."""
    path = out / "sweep.json"
    try:
        return Sweep.from_json(read_json(path, FORMAT))
    except SweepError as error:
        raise SweepError([f if f.startswith(str(path)) else f"{path}: {f}" for f in error.faults]) from None


def read_front(out: Path) -> list[Result]:
    """The members in `out/front.json`. Raises `SweepError` for a folder without one, or another format."""
    path = out / "front.json"
    members = read_json(path, "front/1").get("members")
    if not isinstance(members, list):
        raise SweepError([f"{path}: members must be a list (got {members!r})"])
    try:
        return [Result.from_json(member) for member in members]
    except ResultsError as error:
        raise SweepError([f"{path}: {error}"]) from None


def find_trial(out: Path, number: int) -> Result:
    """The fully trained trial `number` of the sweep in `out`. Raises `SweepError`, naming the front, for another."""
    row = Results(out / "results.jsonl").latest().get(number)
    if row is None or row.state != "complete" or not row.final:
        members = ", ".join(str(member.trial) for member in read_front(out))
        state = "is not there" if row is None else f"ended at epoch {row.epoch}" if not row.ended else f"is {row.state}"
        raise SweepError(
            [f"--trial: must be a fully trained trial of {out} (got {number}, which {state}; front: {members})"]
        )
    return row


def read_json(path: Path, form: str) -> dict[str, Any]:
    """The object in one of our files. Raises `SweepError` where it is missing, no JSON or of a format not `form`."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        rule = f"must be there; `nas search` writes it (no sweep has run into {path.parent}?)"
        raise SweepError([f"{path}: {rule}"]) from None
    except OSError as error:
        raise SweepError([f"{path}: must be a readable file ({error.strerror})"]) from None
    except (ValueError, RecursionError) as error:
        raise SweepError([f"{path}: must be JSON ({error})"]) from None
    got = record.get("format") if isinstance(record, dict) else None
    if got != form:
        rule = f"format must be {form!r} (got {got!r}); another version of this package reads it"
        raise SweepError([f"{path}: {rule}"])
    return cast(dict[str, Any], record)


def write_json(path: Path, record: object, *, indent: int | None = 1) -> None:
    _write_whole(path, json.dumps(record, indent=indent) + "\n")


def _write_whole(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
