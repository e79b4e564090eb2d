"""What the command line names, opened: a sweep with what was said beside it, a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.models import Model
    from experiments.terminal import Narrator
    from nas.sweep import Sweep

HERE = Path(__file__).parent


def shipped(kind: str) -> dict[str, Path]:
    """The YAML files that ship with the package, by name: `sweeps` or `spaces`."""
    return {path.stem: path for path in sorted((HERE / kind).glob("*.yaml"))}


def open_sweep(name: str) -> Sweep:
    """The sweep called `name`, or in the file `name`."""
    from nas.sweep_file import read_sweep

    sys.path.insert(0, os.getcwd())  # blocks and training functions of the user's own
    return read_sweep(_sweep_file(name), shipped("spaces"))


def _sweep_file(name: str) -> Path:
    from nas.sweep import SweepError
    from searchspace.choices import meant

    known = shipped("sweeps")
    if os.path.isfile(name):
        return Path(name)
    if name not in known:
        listed = ", ".join(known)
        raise SweepError([f"SWEEP must be a YAML file or one of {listed} (got {name!r}{meant(name, known)})"])
    return known[name]


@contextmanager
def space_faults_placed(name: str) -> Iterator[None]:
    """What is wrong with the space of the sweep `name`, and shows with its data only, said with file and line."""
    from nas.sweep_file import placed
    from searchspace.choices import SpaceError

    try:
        yield
    except SpaceError as error:
        raise placed(error, _sweep_file(name), shipped("spaces")) from None


def override(
    sweep: Sweep,
    *,
    workers: dict[str, object],
    tracking: dict[str, object],
    budget: dict[str, object] | None = None,
    training: dict[str, object] | None = None,
    plain: dict[str, object] | None = None,
    rungs: bool | None = None,
) -> Sweep:
    """The sweep with what the command line says; None says nothing."""
    from dataclasses import replace

    from nas.sweep import SAMPLERS, SweepError, ray_share, rungs_on
    from searchspace.choices import meant

    def said(values: dict[str, object] | None) -> dict[str, object]:
        return {name: value for name, value in (values or {}).items() if value is not None}

    sampler = said(plain).get("sampler", sweep.sampler)
    if sampler not in SAMPLERS:
        listed = ", ".join(SAMPLERS)
        raise SweepError([f"--sampler: must be one of {listed} (got {sampler!r}{meant(sampler, SAMPLERS)})"])
    held = sweep.rungs if rungs is None else rungs_on(str(sampler), sweep.rungs) if rungs else None
    for name in ("cpus_per_trial", "gpus_per_trial"):
        try:
            ray_share(name, workers.get(name) or 0)  # type: ignore[arg-type]
        except ValueError as error:
            raise SweepError([f"--{name.replace('_', '-')}: {error}"]) from None
    return replace(
        sweep,
        budget=replace(sweep.budget, **said(budget)),  # type: ignore[arg-type]
        training=replace(sweep.training, **said(training)),  # type: ignore[arg-type]
        workers=replace(sweep.workers, **said(workers)),  # type: ignore[arg-type]
        tracking=replace(sweep.tracking, **said(tracking)),  # type: ignore[arg-type]
        **said(plain),  # type: ignore[arg-type]
        rungs=held,
    )


def open_model(
    model: str,
    words: list[str],
    weights: Path | None,
    input: str | None,
    trial: int | None,
    narrator: Narrator,
) -> Model:
    """The model that the command line names; says what was done to read its weights."""
    from experiments.models import open_model as opened

    sys.path.insert(0, os.getcwd())  # factories of the user's own
    found = opened(model, words, weights, input, trial)
    for note in found.notes:
        narrator.say(note)
    return found
