"""`nas cost`: what a network costs before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.options import Json, emit


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
