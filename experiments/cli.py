"""The `nas` command. Each command is a few calls of the packages; heavy imports wait until a command runs.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration,
130 interrupted (everything is saved).
"""

from __future__ import annotations

import sys

import typer

from experiments.commands.cost import cost_command
from experiments.commands.doctor import doctor_command
from experiments.commands.export import export_command
from experiments.commands.front import front_command, train_command
from experiments.commands.prune import prune_dead_command, prune_edges_command, prune_inspect_command
from experiments.commands.search import search_command, space_command
from experiments.commands.tune import import_command

app = typer.Typer(
    name="nas",
    help="Search, cost and prune convolutional networks under hard limits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
prune_app = typer.Typer(help="Take channels out of trained networks, with proof.", no_args_is_help=True)

app.command("space")(space_command)
app.command("search")(search_command)
app.command("front")(front_command)
app.command("train")(train_command)
app.command("import")(import_command)
app.command("cost")(cost_command)
prune_app.command("inspect")(prune_inspect_command)
prune_app.command("dead")(prune_dead_command)
prune_app.command("edges")(prune_edges_command)
app.add_typer(prune_app, name="prune")
app.command("export")(export_command)
app.command("doctor")(doctor_command)


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
