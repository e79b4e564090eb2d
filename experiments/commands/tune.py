"""`nas import`: results of Ray Tune into the folder of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.opened import open_sweep, override
from experiments.options import emit


def import_command(
    tune: Annotated[
        Path, typer.Argument(metavar="TUNE", help="The folder of a Ray Tune experiment that ran nas.tune.trainable.")
    ],
    into: Annotated[Path, typer.Option(metavar="OUT", help="The folder of a sweep; with --sweep, it may be new.")],
    sweep: Annotated[
        str | None,
        typer.Option(metavar="SWEEP", help="A sweep that ships with the package, or a YAML file. \\[that of OUT]"),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; off for none. \\[the sweep's]")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Machine output on stdout, everything else on stderr.")
    ] = False,
) -> None:
    """Put what Ray Tune trained onto the front of a sweep; nothing is trained, and a second time nothing is added."""
    from experiments.terminal import Narrator

    with Narrator() as narrator:
        narrator.status("reading the trials, then front, pictures and MLflow")
        from experiments.report import front_table, no_front, write_report
        from nas.folder import read_sweep_of
        from nas.imports import import_tune
        from nas.sweep import SweepError

        if sweep is None and not (into / "sweep.json").exists():
            raise SweepError([f"--into: must be the folder of a sweep, or --sweep say whose it becomes (got {into})"])

        config = open_sweep(sweep) if sweep else read_sweep_of(into)
        config = override(config, workers={}, tracking={"uri": tracking_uri})
        found = import_tune(tune, into, config, say=narrator.say, report=write_report)
    outcome = found.outcome
    if as_json:
        emit(found.to_json())
    else:
        print(f"{found}\n")
        print(front_table(outcome.front, outcome.objectives) if outcome.front else no_front(outcome.results))
        print(f"\nlook at    {into / 'front.html'}   {into / 'front.png'}")
    if not outcome.front:
        raise typer.Exit(1)
