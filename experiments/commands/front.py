"""`nas front` and `nas train`: looking at members of a front, and training them again."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from experiments.opened import override
from experiments.options import Address, Json, OutFolder, TrackingUri, emit


def front_command(
    out: OutFolder,
    trial: Annotated[int | None, typer.Option(help="One trial: its choices, costs and architecture.")] = None,
    as_json: Json = False,
) -> None:
    """The Pareto front of a sweep; with --json for machines (with --trial, the architecture)."""
    from experiments.report import front_table, no_front
    from nas.folder import find_trial, read_front, read_sweep_of
    from nas.pareto import OBJECTIVES
    from nas.results import Results

    if trial is not None:
        row = find_trial(out, trial)
        if as_json:
            emit(row.architecture)
        else:
            print(row.words)
            for name, value in {**(row.choices or {}), **row.values}.items():
                print(f"{name:<24} {value:,}" if type(value) in (int, float) else f"{name:<24} {value}")
        return
    members = read_front(out)
    if as_json:
        emit(json.loads((out / "front.json").read_text()))
    elif members:
        print(front_table(members, [OBJECTIVES[name] for name in read_sweep_of(out).objectives]))
    if not members:
        print(no_front(Results(out / "results.jsonl")), file=sys.stderr)
        raise typer.Exit(1)


def train_command(
    out: OutFolder,
    trial: Annotated[int, typer.Option(help="The trial to train again.")],
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many fresh seeds.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of each. \\[the sweep's]")] = None,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Train a front member again with fresh seeds: mean and spread on test data."""
    from experiments.terminal import Narrator

    with Narrator() as narrator:
        narrator.status("starting workers")
        from nas.folder import read_sweep_of
        from nas.retrain import retrain

        config = override(read_sweep_of(out), workers={"address": address}, tracking={"uri": tracking_uri})
        found = retrain(
            out,
            trial,
            seeds,
            sweep=config,
            epochs=epochs,
            say=narrator.say,
            watch=lambda done: narrator.status(f"{len(done)}/{seeds} seeds trained"),
        )
    if as_json:
        emit(found.to_json())
    elif found.test:
        print(f"trial {trial}, {len(found.test)} fresh seeds")
        print(f"  validation  {found.searched:.3f} in the search, {found.validation_mean:.3f} mean of the fresh seeds")
        print(f"  test        {found.test_mean:.3f} mean, {found.test_spread:.3f} spread (standard deviation)")
        print(
            "The search keeps what was lucky: its own value is optimistic, the mean of fresh seeds is what to expect."
        )
        for path in found.checkpoints:
            print(f"  network     {path}")
    for failure in found.failures:
        print(f"a seed failed: {failure}", file=sys.stderr)
    if not found.test:
        raise typer.Exit(1)
