"""`nas prune inspect`: a model and data in, the report's files and table out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.models import Model
from experiments.terminal import table
from nas.data import DataError, Resident, load
from nas.folder import write_json
from nas.train import resized
from pruning.report import HEAD, Report, Thresholds
from pruning.statistics import inspect

SAMPLES = 256
BATCH = 32
FILES = ("inspect.json", "inspect.html", "correlations.npz")


def inspect_model(
    model: Model, data: str, *, samples: int = SAMPLES, thresholds: Thresholds | None = None, seed: int = 0
) -> Report:
    """What `samples` training images of `data`, a dataset's name or an .npz file, show of `model`: evenly chosen ones.

    Images are brought to the size of the model's input. Raises `DataError` where they have other channels or axes.
    """
    loaded = load(data, seed=seed)
    if loaded.input[0] != model.input[0] or len(loaded.input) != len(model.input):
        raise DataError(
            f"--data: must have the channels and axes of the model's input, {_size(model.input)}, but {data!r} has "
            f"{_size(loaded.input)}."
        )
    return inspect(model.module, images(loaded, samples, model.input[1:]), thresholds=thresholds, seed=seed)


def images(data: Resident, samples: int, space: tuple[int, ...]) -> Iterator[Tensor]:
    """So many training images, evenly chosen, as batches at the size `space`."""
    every = len(data.labels["train"])
    chosen = torch.linspace(0, every - 1, min(samples, every)).round().long()
    for start, (x, _) in zip(range(0, every, BATCH), data.batches("train", BATCH), strict=True):
        here = chosen[(chosen >= start) & (chosen < start + len(x))] - start
        if len(here):
            yield resized(x[here], space)


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def write(report: Report, out: Path, title: str, note: str) -> list[Path]:
    """Write the report as JSON, as a page, and its correlation matrices by layer, into `out`; the files."""
    from dashboards.inspection import inspection_html

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in FILES]
    write_json(paths[0], report.to_json())
    paths[1].write_text(inspection_html(report, title, note), "utf-8")
    matrices = {layer.name or "itself": layer.matrix() for layer in report.layers}
    np.savez_compressed(paths[2], **{name: m.numpy() for name, m in matrices.items() if m is not None})  # type: ignore[arg-type]
    return paths


def text(report: Report) -> str:
    """The table for a terminal, and what its columns mean."""
    lines = [table(HEAD, report.rows()), "", *textwrap.wrap(report.reading, 120)]
    for layer in report.layers:
        for reason in sorted({c.reason for c in layer.channels if c.reason}):
            some = [str(c.channel) for c in layer.channels if c.reason == reason]
            lines.append(f"  stays     {layer.name}: {_several(some)}: {reason}")
        ways = {(c.dead_for, c.live_for) for c in layer.channels if c.dead == "for some"}
        for dead, live in sorted(ways):
            some = [str(c.channel) for c in layer.channels if (c.dead_for, c.live_for) == (dead, live)]
            lines.append(
                f"  dead      {layer.name}: {_several(some)}: for {', '.join(dead)}, not for {', '.join(live)}"
            )
    if report.refusal:
        lines.append(f"What is removable is not known: {report.refusal}")
    return "\n".join(lines)


def _several(channels: list[str]) -> str:
    shown = ", ".join(channels[:8]) + (", ..." if len(channels) > 8 else "")
    return f"channel{'s' if len(channels) > 1 else ''} {shown}"
