"""The `nas` command. Each command is a few calls of the packages; heavy imports wait until a command runs.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration,
130 interrupted (everything is saved).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nas.sweep import Sweep

HERE = Path(__file__).parent

app = typer.Typer(
    name="nas",
    help="Search, cost and prune convolutional networks under hard limits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
prune_app = typer.Typer(help="Take channels out of trained networks, with proof.", no_args_is_help=True)
app.add_typer(prune_app, name="prune")

Address = Annotated[
    str | None, typer.Option(envvar="RAY_ADDRESS", help="A Ray cluster (auto, host:port), or inprocess. \\[local Ray]")
]
TrackingUri = Annotated[
    str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; off for none. \\[sqlite in OUT]")
]
Json = Annotated[bool, typer.Option("--json", help="Machine output on stdout, everything else on stderr.")]
SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep that ships with the package, or a YAML file.")]
OutFolder = Annotated[Path, typer.Argument(metavar="OUT", help="The folder of a sweep.")]


def shipped(kind: str) -> dict[str, Path]:
    """The YAML files that ship with the package, by name: `sweeps` or `spaces`."""
    return {path.stem: path for path in sorted((HERE / kind).glob("*.yaml"))}


def open_sweep(name: str) -> Sweep:
    """The sweep called `name`, or in the file `name`."""
    from nas.sweep import SweepError, read_sweep
    from searchspace.choices import meant

    sys.path.insert(0, os.getcwd())  # blocks and training functions of the user's own
    path = Path(name)
    known = shipped("sweeps")
    if not os.path.isfile(name):
        if name not in known:
            listed = ", ".join(known)
            raise SweepError([f"SWEEP must be a YAML file or one of {listed} (got {name!r}{meant(name, known)})"])
        path = known[name]
    return read_sweep(path, shipped("spaces"))


def emit(record: object) -> None:
    """Machine output."""
    print(json.dumps(record, indent=1))


@app.command("space")
def space_command(sweep: SweepName, as_json: Json = False) -> None:
    """What a sweep's space holds under its limits: size, costs, feasible share."""
    from random import Random

    from experiments.terminal import Narrator

    with Narrator() as narrator:
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
        report = survey(space, config.limits, rng=Random(config.seed))
    if as_json:
        emit(report.to_json())
    else:
        print("\n".join(lines(report, config.limits)))
    if not report.reachable:
        raise typer.Exit(1)


@app.command("search")
def search_command(
    sweep: SweepName,
    out: Annotated[Path | None, typer.Option(help="Where results go; again there, it goes on. \\[runs/NAME]")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all.")] = None,
    hours: Annotated[float | None, typer.Option(min=0.0, help="Stop proposing after so many hours.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs a trial trains for.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, nsga2 or random.")] = None,
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

    with Narrator() as narrator:
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


def override(
    sweep: Sweep,
    *,
    workers: dict[str, object],
    tracking: dict[str, object],
    budget: dict[str, object] | None = None,
    training: dict[str, object] | None = None,
    plain: dict[str, object] | None = None,
) -> Sweep:
    """The sweep with what the command line says; None says nothing."""
    from dataclasses import replace

    from nas.sweep import SAMPLERS, SweepError
    from searchspace.choices import meant

    def said(values: dict[str, object] | None) -> dict[str, object]:
        return {name: value for name, value in (values or {}).items() if value is not None}

    name = said(plain).get("sampler")
    if name is not None and name not in SAMPLERS:
        raise SweepError([f"--sampler: must be one of {', '.join(SAMPLERS)} (got {name!r}{meant(name, SAMPLERS)})"])
    return replace(
        sweep,
        budget=replace(sweep.budget, **said(budget)),  # type: ignore[arg-type]
        training=replace(sweep.training, **said(training)),  # type: ignore[arg-type]
        workers=replace(sweep.workers, **said(workers)),  # type: ignore[arg-type]
        tracking=replace(sweep.tracking, **said(tracking)),  # type: ignore[arg-type]
        **said(plain),  # type: ignore[arg-type]
    )


@app.command("front")
def front_command(
    out: OutFolder,
    trial: Annotated[int | None, typer.Option(help="One trial: its choices, costs and architecture.")] = None,
    as_json: Json = False,
) -> None:
    """The Pareto front of a sweep; with --json for machines (with --trial, the architecture)."""
    from experiments.report import front_table
    from nas.folder import find_trial, read_front, read_sweep_of
    from nas.pareto import OBJECTIVES

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
    else:
        print(front_table(members, [OBJECTIVES[name] for name in read_sweep_of(out).objectives]))


@app.command("cost")
def cost_command(
    network: Annotated[
        str | None,
        typer.Argument(
            metavar="NETWORK",
            help="A published network (--list shows them), or a file: an architecture as JSON, a network "
            "(.safetensors). A name beats a file of that name: ./NAME is the file. With --trial, a sweep's OUT.",
            show_default=False,
        ),
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", hidden=True)] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE ...", help="Settings of a published network.")
    ] = None,
    input: Annotated[
        str | None, typer.Option(metavar="SIZES", help="Such as 3x224x224, or 3x8x224x224 for video; else the paper's.")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Width of the classifier; else the paper's.")] = None,
    trial: Annotated[int | None, typer.Option(help="A trial of the sweep in OUT.")] = None,
    every: Annotated[
        bool, typer.Option("--list", help="Every published network, and what is printed for it elsewhere.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="With --list: the table of docs/networks.md.")] = False,
    as_json: Json = False,
) -> None:
    """What a network costs before any training, and the design principles that it breaks."""
    if (network is None) != every or (markdown and not every):
        raise typer.BadParameter("give either a NETWORK or --list; --markdown goes with --list.")
    if trial is not None and (settings or more or input or classes):
        raise typer.BadParameter("--trial says all of its network: --set, --input and --classes do not go with it.")
    from experiments.terminal import Narrator

    with Narrator() as narrator:
        narrator.status("loading the libraries")
        if network is None:
            from experiments import network_table
            from searchspace.published.printed import rows

            narrator.status("costing the published networks")
            table = list(rows())
        else:
            from experiments.cost import lines, record
            from experiments.named import find, read_trial

            words = [*(settings or []), *(more or [])]
            found = find(network, words, input, classes) if trial is None else read_trial(Path(network), trial)
    if network is None and as_json:
        emit(network_table.record(table))
    elif network is None:
        print(network_table.markdown(table) if markdown else network_table.text(table))
    elif as_json:
        emit(record(found))
    else:
        print("\n".join(lines(found)))


@app.command("train")
def train_command(
    out: OutFolder,
    trial: Annotated[int, typer.Option(help="The trial to train again.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many fresh seeds.")] = 3,
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
    else:
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


@prune_app.callback()
def prune_callback() -> None:
    """Keeps `dead` a command of its own."""


@prune_app.command("dead")
def prune_dead_command(
    out: OutFolder,
    trial: Annotated[int, typer.Option(help="A member of the front.")],
    data: Annotated[
        str | None,
        typer.Option(help="Also take out what is constant on all its training and validation images."),
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:
    """Remove channels that are always zero or constant; the function stays, and the proof is written with it."""
    from experiments.terminal import Narrator

    with Narrator() as narrator:
        narrator.status("reading the network")
        from experiments.prune import prune_dead

        narrator.status("looking for dead channels, proving the removal")
        pruned, record = prune_dead(out, trial, data, narrator.say, tracking_uri)
    if as_json:
        emit(record)
        return
    print(pruned.words)
    for layer, found in pruned.removed.items():
        print(f"  removed  {layer}: {len(found)} channels ({', '.join(sorted({c.cause for c in found}))})")
    for layer, kept in pruned.kept.items():
        for reason in sorted({k.reason for k in kept}):
            print(f"  stays    {layer}: {sum(k.reason == reason for k in kept)} channels ({reason})")
    for split in ("val", "test"):
        if f"{split}_accuracy_before" in record:
            before, after = record[f"{split}_accuracy_before"], record[f"{split}_accuracy_after"]
            print(f"  accuracy {split}: {before:.4f} before, {after:.4f} after")
    proof = pruned.proof
    print(f"  proof    relative error {proof.relative_error:.1e} on {proof.samples} fresh inputs: {proof.inputs}")
    if proof.data_samples:
        print(f"           largest difference {proof.data_error:.1e} on the {proof.data_samples:,} images of the data")
    for path in record["files"]:  # type: ignore[attr-defined]
        print(f"  wrote    {path}")


@app.command("doctor")
def doctor_command(as_json: Json = False) -> None:
    """Versions, devices, and whether the Ray and the MLflow of the environment answer; exit code 1 where not."""
    import torch

    from nas.jobs import WorkersError
    from nas.provenance import provenance
    from nas.ray_session import reachable

    facts = provenance()
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts["devices"] = ", ".join(cards) or "cpu"
    address, uri = os.environ.get("RAY_ADDRESS"), os.environ.get("MLFLOW_TRACKING_URI")
    silent = False
    facts["RAY_ADDRESS"] = "not set: a local session is used"
    if address:
        try:
            facts["RAY_ADDRESS"] = f"{reachable(address, 5.0)} answers"
        except WorkersError as error:
            facts["RAY_ADDRESS"], silent = f"{address} does not answer: {error}", True
    facts["MLFLOW_TRACKING_URI"] = "not set: a sqlite file in OUT is used"
    if uri:
        from nas.tracking import problem_with

        problem = problem_with(uri)
        silent = silent or bool(problem)
        facts["MLFLOW_TRACKING_URI"] = f"{uri} does not answer: {problem}" if problem else f"{uri} answers"
    if as_json:
        emit({"format": "doctor/1", **facts})
    else:
        for name, value in facts.items():
            print(f"{name:<22}{value}")
    if silent:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; what the user can mend is a message, never a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except (ValueError, RuntimeError, OSError) as error:
        code = exit_code(error)
        if code is None:
            raise
        print(f"nas: {error}", file=sys.stderr)
        sys.exit(code)


USER_ERRORS = {
    "nas.sweep.SweepError": 2,
    "nas.resident.DataError": 2,
    "nas.training.TrainingError": 2,
    "searchspace.choices.SpaceError": 2,
    "searchspace.fields.ArchitectureError": 2,
    "searchspace.checkpoint.CheckpointError": 2,
    "nas.jobs.WorkersError": 1,
    "nas.results.ResultsError": 1,
    "nas.train.TrainingFailed": 1,
    "nas.latency.LatencyError": 1,
    "pruning.proof.PruneError": 1,
}


def exit_code(error: Exception) -> int | None:
    """2 for what the user wrote, 1 for what failed; None for an error that is ours. By name: nothing is imported."""
    code = USER_ERRORS.get(f"{type(error).__module__}.{type(error).__qualname__}")
    return 1 if code is None and isinstance(error, OSError) else code  # the system's: no room, no permission


if __name__ == "__main__":
    main()
