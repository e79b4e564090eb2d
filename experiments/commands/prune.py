"""`nas prune`: what is dead in a trained network, and taking it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.opened import open_model
from experiments.options import InputSizes, Json, ModelName, More, Settings, TrackingUri, WeightsFile, emit


def prune_inspect_command(
    model: ModelName,
    data: Annotated[str, typer.Option(help="digits, digits-video or an .npz file.")],
    more: More = None,
    settings: Settings = None,
    weights: WeightsFile = None,
    input: InputSizes = None,
    trial: Annotated[int | None, typer.Option(help="A member of the front of the sweep in OUT.")] = None,
    samples: Annotated[
        int, typer.Option(min=2, max=10**6, help="How many of its training images are looked at.")
    ] = 256,
    negligible: Annotated[
        float,
        typer.Option(min=0.0, max=0.999, help="Edges up to this share of their layer's largest norm count as dead."),
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also write the report as JSON, a page, and the correlations.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What data shows of each channel and edge: zeros, constants, doubles, correlations; nothing is changed."""
    from experiments.terminal import Narrator

    with Narrator() as narrator:
        narrator.status("reading the model")
        found = open_model(model, [*(settings or []), *(more or [])], weights, input, trial, narrator)
        from experiments.inspect import inspect_model, text, write
        from pruning.report import Thresholds

        narrator.status("looking at channels, edges and what would leave")
        report = inspect_model(found, data, samples=samples, thresholds=Thresholds(negligible=negligible))
        files = [] if out is None else write(report, out, found.name, f"{report.samples} training images of {data}.")
    if as_json:
        emit({"model": found.name, "data": data, **report.to_json(), "files": [str(file) for file in files]})
        return
    print(text(report))
    for file in files:
        print(f"wrote {file}")


def prune_dead_command(
    model: ModelName,
    more: More = None,
    settings: Settings = None,
    weights: WeightsFile = None,
    input: InputSizes = None,
    trial: Annotated[int | None, typer.Option(help="A member of the front of the sweep in OUT.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, digits-video or an .npz file: also take out what is constant on all its training and "
            "validation images."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .safetensors file. \\[pruned/NAME, or in OUT with --trial]")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="Time limit.")] = 600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would leave, write nothing.")] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Remove channels that are always zero, constant or doubled; the function stays, with the proof."""
    if trial is not None and out is not None:
        raise typer.BadParameter("--trial writes into its sweep's folder: --out does not go with it.")
    from experiments.terminal import Narrator

    with Narrator() as narrator:
        narrator.status("reading the model")
        found = open_model(model, [*(settings or []), *(more or [])], weights, input, trial, narrator)
        from experiments.prune import default_file, lines, prune_dead, prune_trial

        narrator.status("looking for dead channels, proving the removal")
        if dry_run:
            pruned, record = prune_dead(found, None, data, seconds=seconds)
        elif trial is not None:
            pruned, record = prune_trial(found, Path(model), trial, data, narrator.say, tracking_uri, seconds)
        else:
            pruned, record = prune_dead(found, out or default_file(found), data, seconds=seconds)
    if as_json:
        emit(record)
    else:
        print("\n".join(lines(pruned, record)))


def prune_edges_command(
    model: ModelName,
    more: More = None,
    settings: Settings = None,
    weights: WeightsFile = None,
    input: InputSizes = None,
    trial: Annotated[int | None, typer.Option(help="A member of the front of the sweep in OUT.")] = None,
    regroup: Annotated[
        bool, typer.Option("--regroup", help="Write the model with its block-diagonal convolutions in groups.")
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Edges up to this share of their layer's largest norm count as dead."),
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --regroup, a .safetensors file. \\[pruned/NAME]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Kernel slices that are zero, apart from dead channels, and the groups that the live ones would fit into."""
    if out is not None and not regroup:
        raise typer.BadParameter("--out goes with --regroup.")
    from experiments.terminal import Narrator

    with Narrator() as narrator:
        narrator.status("reading the model")
        found = open_model(model, [*(settings or []), *(more or [])], weights, input, trial, narrator)
        from experiments.edges import record, text
        from experiments.prune import default_file, regrouped
        from pruning.edges import edges

        narrator.status("looking at the edges" + (", regrouping, proving it" if regroup else ""))
        layers = edges(found.module, tolerance)
        result, file = regrouped(found, out or default_file(found), layers, tolerance) if regroup else (None, None)
    if as_json:
        emit({**record(layers, tolerance, result), "file": None if file is None else str(file)})
    else:
        print(text(layers, tolerance, result))
        if file is not None:
            print(f"wrote {file}")
