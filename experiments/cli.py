"""The `nas` command. Each command is a few calls of the packages; heavy imports wait until a command runs.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration,
130 interrupted (everything is saved).
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.import_command import import_command

if TYPE_CHECKING:
    from experiments.models import Model
    from experiments.terminal import Narrator
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
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS", help="A Ray cluster (auto, host:port), or inprocess: no limit on epochs. \\[local Ray]"
    ),
]
TrackingUri = Annotated[
    str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; off for none. \\[sqlite in OUT]")
]
Json = Annotated[bool, typer.Option("--json", help="Machine output on stdout, everything else on stderr.")]
SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep that ships with the package, or a YAML file.")]
OutFolder = Annotated[Path, typer.Argument(metavar="OUT", help="The folder of a sweep.")]
ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A published network, a file (.safetensors, an architecture as JSON), package.module:function, "
        "torchvision:NAME, timm:NAME; with --trial, a sweep's OUT.",
        show_default=False,
    ),
]
More = Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", hidden=True)]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE ...", help="Arguments of what makes the model.")
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A state dict as .safetensors, .pt or .pth; also one under `state_dict` or `model`, or with `module.` "
        "before every name.",
    ),
]
InputSizes = Annotated[
    str | None, typer.Option(metavar="SIZES", help="Such as 3x224x224, or 3x8x224x224 for video, where not known.")
]


def shipped(kind: str) -> dict[str, Path]:
    """The YAML files that ship with the package, by name: `sweeps` or `spaces`."""
    return {path.stem: path for path in sorted((HERE / kind).glob("*.yaml"))}


def open_sweep(name: str) -> Sweep:
    """The sweep called `name`, or in the file `name`."""
    from nas.sweep import read_sweep

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
    from nas.sweep import placed
    from searchspace.choices import SpaceError

    try:
        yield
    except SpaceError as error:
        raise placed(error, _sweep_file(name), shipped("spaces")) from None


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


def emit(record: object) -> None:
    """Machine output."""
    print(json.dumps(record, indent=1))


@app.command("space")
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


@app.command("search")
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

    from nas.rungs import halving
    from nas.sweep import SAMPLERS, SweepError, ray_share
    from searchspace.choices import meant

    def said(values: dict[str, object] | None) -> dict[str, object]:
        return {name: value for name, value in (values or {}).items() if value is not None}

    name = said(plain).get("sampler")
    if name is not None and name not in SAMPLERS:
        raise SweepError([f"--sampler: must be one of {', '.join(SAMPLERS)} (got {name!r}{meant(name, SAMPLERS)})"])
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
        rungs=sweep.rungs if rungs is None else (sweep.halving or halving()) if rungs else None,
    )


app.command("import")(import_command)


@app.command("front")
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


@prune_app.command("inspect")
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


@prune_app.command("dead")
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


@prune_app.command("edges")
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


@app.command("export")
def export_command(
    model: ModelName,
    out: Annotated[Path, typer.Option(metavar="FILE", help="FILE.onnx, or FILE.pt2 for torch.export's own form.")],
    more: More = None,
    settings: Settings = None,
    weights: WeightsFile = None,
    input: InputSizes = None,
    trial: Annotated[int | None, typer.Option(help="A member of the front of the sweep in OUT.")] = None,
    as_json: Json = False,
) -> None:
    """Write a model as ONNX or by torch.export, for any batch size; its outputs are compared with the model's."""
    from experiments.terminal import Narrator

    with Narrator() as narrator:
        narrator.status("reading the model")
        found = open_model(model, [*(settings or []), *(more or [])], weights, input, trial, narrator)
        from experiments.export import export

        narrator.status("tracing, writing, comparing")
        exported = export(found, out)
    if as_json:
        emit(exported.to_json())
        return
    print(f"{exported.file}: {exported.model} on {'x'.join(map(str, exported.input))}, {exported.size_bytes:,} bytes")
    for batch, error in exported.relative_errors.items():
        print(f"  batch of {batch}: outputs differ by {error:.1e} of the greatest")


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
    "nas.results.ResultsError": 2,
    "nas.resident.DataError": 2,
    "nas.training.TrainingError": 2,
    "searchspace.choices.SpaceError": 2,
    "searchspace.fields.ArchitectureError": 2,
    "searchspace.checkpoint.CheckpointError": 2,
    "searchspace.factory.FactoryError": 2,
    "experiments.models.ModelError": 2,
    "experiments.export.ExportError": 1,
    "nas.jobs.WorkersError": 1,
    "nas.train.TrainingFailed": 1,
    "nas.latency.LatencyError": 1,
    "pruning.places.PruneError": 1,
}


def exit_code(error: Exception) -> int | None:
    """2 for what the user wrote, 1 for what failed; None for an error that is ours. By name: nothing is imported."""
    code = USER_ERRORS.get(f"{type(error).__module__}.{type(error).__qualname__}")
    return 1 if code is None and isinstance(error, OSError) else code  # the system's: no room, no permission


if __name__ == "__main__":
    main()
