"""`nas export`: a model as ONNX or in the form of torch.export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.opened import open_model
from experiments.options import InputSizes, Json, ModelName, More, Settings, WeightsFile, emit


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
