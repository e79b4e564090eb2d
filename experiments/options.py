"""The options and arguments that several commands have, and how all of them print for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

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


def emit(record: object) -> None:
    """Machine output."""
    print(json.dumps(record, indent=1))
