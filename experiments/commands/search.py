"""`nas space` and `nas search`: what a sweep would be, and running it."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.opened import open_sweep, override, space_faults_placed
from experiments.options import Address, Json, SweepName, TrackingUri, emit


def space_command(sweep: SweepName, as_json: Json = False) -> None:
    """What a sweep's space holds under its limits: size, costs, feasible share."""
    from random import Random

    from experiments.terminal import Narrator

    with Narrator() as narrator, space_faults_placed(sweep):
        narrator.status("reading the sweep")
        config = open_sweep(sweep)
        from nas.data import load
        from nas.seeds import seeds_of
        from nas.survey import lines, survey
        from searchspace.spaces import open_space

        data = load(config.data, seed=config.seed)
        narrator.status("drawing members of the space")
        space = open_space(config.space, input=data.input, classes=data.classes)
        seeds_of(config, data)
        gc.freeze()
        report = survey(space, config.limits, rng=Random(config.seed))
    if as_json:
        emit(report.to_json())
    else:
        print("\n".join(lines(report, config.limits)))
    if not report.reachable:
        raise typer.Exit(1)


def search_command(
    sweep: SweepName,
    out: Annotated[Path | None, typer.Option(help="Where results go; again there, it goes on. \\[runs/NAME]")] = None,
    trials: Annotated[int | None, typer.Option(min=1, max=10**9, help="Trials in all.")] = None,
    hours: Annotated[float | None, typer.Option(min=0.0, help="Stop proposing after so many hours.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs a trial trains for.")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="surrogate, moasha, screen, random, tpe, nsga2, evolution or local.")
    ] = None,
    rungs: Annotated[
        bool | None, typer.Option("--rungs/--no-rungs", help="Stop early what others outrank. \\[as the sampler does]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1)] = None,
    address: Address = None,
    cpus_per_trial: Annotated[float | None, typer.Option(min=0.0)] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(min=0.0, help="A fraction shares a card.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="Trials at the same time.")] = None,
    tracking_uri: TrackingUri = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would cost, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Run a sweep: propose, train, record; ends with the Pareto front."""
    from experiments.terminal import Narrator

    with Narrator() as narrator, space_faults_placed(sweep):
        narrator.status("reading the sweep")
        config = override(
            open_sweep(sweep),
            budget={"trials": trials, "hours": hours},
            training={"epochs": epochs},
            workers={
                "address": address,
                "cpus_per_trial": cpus_per_trial,
                "gpus_per_trial": gpus_per_trial,
                "max_concurrent": max_concurrent,
            },
            tracking={"uri": tracking_uri},
            plain={"sampler": sampler, "seed": seed},
            rungs=rungs,
        )
        narrator.status("loading the libraries")
        from experiments.progress import continuing, describe, run_search, show_outcome

        out = out or Path("runs") / config.name
        for line in describe(config, out):
            narrator.say(line)
        if dry_run:
            narrator.status("measuring the median candidate")
            from experiments.estimate import estimate

            lines, record = estimate(config)
            if as_json:
                emit(record)
            else:
                print("\n".join(lines))
            return
        gc.freeze()  # what was imported stays: the collector took up to a quarter of screening looking through it
        outcome = run_search(config, out, narrator)
    if as_json:
        emit(json.loads((out / "front.json").read_text()))
    else:
        show_outcome(outcome)
    if outcome.interrupted:
        print(f"\nInterrupted; all of it is saved. To go on:\n  {continuing(out)}", file=sys.stderr)
        raise typer.Exit(130)
    if not outcome.front:
        raise typer.Exit(1)
