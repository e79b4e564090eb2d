"""What a trial under Ray Tune leaves, as `nas.tune.trainable` reports it: written there, read back from Tune's folder.

Tune keeps a folder for each trial: `params.json`, its config; `result.json`, a line for each report; `error.txt` where
it failed; checkpoints. They are read as files, without Ray.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from nas.results import EPOCH, Epoch, Result, Worker
from nas.sweep import Sweep, SweepError

FORMAT = "tune/1"
NETWORK = "network.safetensors"  # in the checkpoint of a trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A trial that was trained to its end. `setting` is what `setting_of` said there; `network` may not be there."""

    trial: str
    config: Mapping[str, object]
    digest: str
    setting: Mapping[str, object]
    curve: tuple[Epoch, ...]
    latency_ms: float | None
    seconds: float
    seed: int
    worker: Worker
    network: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """The trials in a folder of Tune: `reports` in order of arrival, how many `failed`, how many are `unfinished`."""

    reports: tuple[Report, ...]
    failed: int
    unfinished: int


def setting_of(sweep: Sweep, fingerprint: str) -> dict[str, object]:
    """What must be equal for two trainings to compare, as plain data; `fingerprint` is that of the data, split."""
    return {
        "data": fingerprint,
        "train": sweep.train,
        **{f"training.{k}": v for k, v in asdict(sweep.training).items()},
    }


def record_of(result: Result, setting: Mapping[str, object]) -> dict[str, object]:
    """What a report says beside its metrics, under the key `nas`."""
    return {
        "format": FORMAT,
        "final": result.final,
        "setting": dict(setting),
        "curve": [list(attrgetter(*EPOCH)(point)) for point in result.curve],
        "seconds": result.seconds,
        "seed": result.seed,
        "worker": asdict(result.worker),
    }


def read_experiment(folder: Path) -> Experiment:
    """The trials of the experiment in `folder`. Raises `SweepError` for another folder, other reports, broken lines."""
    trials = sorted(path.parent for path in folder.glob("*/params.json"))
    if not trials:
        within = sorted({path.parent.parent for path in folder.glob("*/*/params.json")})
        hint = f"; {within[0]} is one" if within else ""
        rule = "must be the folder of a Ray Tune experiment, which holds a folder with params.json for each trial"
        raise SweepError([f"{folder}: {rule}{hint}"])
    found: list[tuple[float, Report]] = []
    failed = 0
    for trial in trials:
        final = _final(trial / "result.json")
        if final is not None:
            found.append((float(final.get("timestamp", 0)), _report(trial, final)))
        else:
            failed += (trial / "error.txt").exists()
    reports = tuple(report for _, report in sorted(found, key=lambda pair: (pair[0], pair[1].trial)))
    return Experiment(reports=reports, failed=failed, unfinished=len(trials) - len(found) - failed)


def _final(path: Path) -> dict[str, Any] | None:
    """The report of the trained network; None where there is none. A last line that was cut short is none."""
    try:
        *lines, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise SweepError([f"{path}: must be a readable file ({error.strerror})"]) from None
    for number, line in reversed(list(enumerate(lines, 1))):
        try:
            record = json.loads(line)
            said = record.get("nas", {}).get("format")
        except (ValueError, RecursionError, AttributeError):
            raise SweepError([f"{path}:{number}: a line must be a report as JSON (got {line[:60]!r})"]) from None
        if said != FORMAT:
            rule = f"must be a report of nas.tune.trainable, format {FORMAT!r}: others do not say how they trained"
            raise SweepError([f"{path}:{number}: {rule} (got {said!r})"])
        if record["nas"].get("final") is True:
            return dict(record)
    return None


def _report(trial: Path, record: Mapping[str, Any]) -> Report:
    try:
        said = record["nas"]
        curve = tuple(Epoch(**dict(zip(EPOCH, map(_number, values), strict=True))) for values in said["curve"])
        return Report(
            trial=str(record["trial_id"]),
            config=dict(record["config"]),
            digest=str(record["digest"]),
            setting=dict(said["setting"]),
            curve=curve,
            latency_ms=_number(record["latency_ms"]) if "latency_ms" in record else None,
            seconds=_number(said["seconds"]),
            seed=int(said["seed"]),
            worker=Worker(**said["worker"]),
            network=trial / str(record.get("checkpoint_dir_name")) / NETWORK,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        rule = f"the final report must have all its parts ({type(error).__name__}: {error})"
        raise SweepError([f"{trial / 'result.json'}: {rule}"]) from None


def _number(value: object) -> Any:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"a finite number, not {value!r}")
    return value
