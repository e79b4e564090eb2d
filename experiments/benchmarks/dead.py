"""Removing dead channels from torchvision's models, against torch-pruning told to remove the same channels.

    python -m experiments.benchmarks.dead [--quick] [--json]

Needs torchvision. 30% of the channels of every batch norm are made dead, at random: scale 0 and a shift of 0 (zero)
or of 0.3 (constant); weights and statistics are random. Not all can leave: a channel that is added to one that
varies, or read through padding where it is not 0. Ours removes what it proves and says why the rest stays;
torch-pruning is given what ours removed. Errors are of the outputs on 8 random inputs, relative to the greatest, in
float64 and float32. One core; seconds of CPU, for ours with tracing and proof.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.provenance import provenance
from pruning.exact import remove_dead
from pruning.places import tensors
from searchspace.factory import Factory

Norms = nn.BatchNorm2d | nn.BatchNorm3d
SHARE = 0.3
SHIFTS = {"zero": 0.0, "constant": 0.3}
IMAGES, VIDEO = (3, 224, 224), (3, 8, 112, 112)
MODELS: dict[str, tuple[int, ...]] = {
    "resnet18": IMAGES,
    "resnet50": IMAGES,
    "mobilenet_v2": IMAGES,
    "googlenet": IMAGES,
    "shufflenet_v2_x1_0": IMAGES,
    "densenet121": IMAGES,
    "efficientnet_b0": IMAGES,
    "r3d_18": VIDEO,
}
QUICK: dict[str, tuple[int, ...]] = {"resnet18": (3, 32, 32), "shufflenet_v2_x0_5": (3, 32, 32)}
REASONS = (
    "added",
    "multiplied",
    "border",
    "padded in",
    "carries",
    "varies",
    "split",
    "every group",
    "at least one",
    "",
)


def made(name: str, shift: float, seed: int = 0) -> nn.Module:
    """The model with random weights and statistics, and its dead channels."""
    model = Factory(name=f"torchvision:{name}").make().eval()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in (part for part in model.modules() if isinstance(part, Norms)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0, 0.3, generator=rng)
            norm.running_var.uniform_(0.5, 1.5, generator=rng)
            norm.weight.normal_(1, 0.3, generator=rng)
            norm.bias.normal_(0, 0.3, generator=rng)
            dead = torch.rand(len(norm.weight), generator=rng) < SHARE
            norm.weight[dead], norm.bias[dead] = 0.0, shift
    return model


def errors(before: nn.Module, after: nn.Module, size: tuple[int, ...]) -> dict[str, object]:
    """Of the outputs on 8 random inputs, by precision, and how many predictions changed in float32."""
    x = torch.randn(8, *size, generator=torch.Generator().manual_seed(1))
    found: dict[str, object] = {}
    for kind, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        wanted, got = (_output(copy.deepcopy(m).to(dtype), x.to(dtype)) for m in (before, after))
        found[kind] = float((wanted - got).abs().max() / wanted.abs().max())
        found["changed"] = int((wanted.argmax(1) != got.argmax(1)).sum())
    return found


@torch.no_grad()
def _output(module: nn.Module, x: Tensor) -> Tensor:
    return tensors(module(x))[0]


def ours(model: nn.Module, size: tuple[int, ...]) -> tuple[dict[str, object], dict[str, list[int]]]:
    """The row, and the channels that left, by layer."""
    start = time.process_time()
    pruned = remove_dead(model, example=torch.zeros(1, *size))
    seconds = time.process_time() - start
    removed = {name: [c.channel for c in found] for name, found in pruned.removed.items()}
    why = Counter(next(kind for kind in REASONS if kind in k.reason) for kept in pruned.kept.values() for k in kept)
    row = {
        "removed": sum(map(len, removed.values())),
        "stay": dict(why.most_common()),
        "flops": [pruned.cost_before.flops, pruned.cost_after.flops],
        **errors(model, pruned.network, size),
        "proof": pruned.proof.relative_error,
        "seconds": seconds,
    }
    return row, removed


def torch_pruning(model: nn.Module, size: tuple[int, ...], channels: dict[str, list[int]]) -> dict[str, object]:
    """The same channels as groups of torch-pruning's dependency graph; groups that hold several layers once."""
    import torch_pruning as tp

    start = time.process_time()
    pruned = copy.deepcopy(model)
    try:
        graph = tp.DependencyGraph().build_dependency(pruned, torch.randn(1, *size, dtype=torch.float64))
        for name, dead in channels.items():
            layer = pruned.get_submodule(name)
            linear = isinstance(layer, nn.Linear)
            if len(layer.weight) < len(model.get_submodule(name).weight):  # type: ignore[arg-type]
                continue  # left with a layer that it is added to
            cut = tp.prune_linear_out_channels if linear else tp.prune_conv_out_channels
            graph.get_pruning_group(layer, cut, idxs=dead).prune()
        seconds = time.process_time() - start
        return {**errors(model, pruned, size), "seconds": seconds}
    except Exception as error:  # whatever it raises is the result
        said = (str(error).splitlines() or [""])[0][:100]
        return {"failed": f"{type(error).__name__}: {said}", "seconds": time.process_time() - start}


def measure(models: dict[str, tuple[int, ...]]) -> dict[str, object]:
    torch.set_num_threads(1)
    rows = []
    for name, size in models.items():
        for kind, shift in SHIFTS.items():
            model = made(name, shift).double()
            dead = sum(int((m.weight == 0).sum()) for m in model.modules() if isinstance(m, Norms))
            row, removed = ours(model, size)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                other = torch_pruning(model, size, removed)
            rows.append({"model": name, "input": size, "dead": kind, "planted": dead, "ours": row, "other": other})
            print(line(rows[-1]), file=sys.stderr, flush=True)
    conditions = {"share": SHARE, "threads": 1, "load": os.getloadavg()[0], **provenance()}
    return {"format": "benchmark/1", "benchmark": "dead", "conditions": conditions, "rows": rows}


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    our, other = row["ours"], row["other"]
    theirs = other.get("failed") or f"{other['float64']:.0e}, {other['changed']}/8 changed, {other['seconds']:.1f} s"
    return (
        f"{row['model']} {'x'.join(map(str, row['input']))}, {row['planted']} {row['dead']}: {our['removed']} removed, "
        f"{our['flops'][0]:,} -> {our['flops'][1]:,} flops, errors {our['float64']:.0e} {our['float32']:.0e}, "
        f"{our['changed']}/8 changed, {our['seconds']:.1f} s; torch-pruning {theirs}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(QUICK if arguments.quick else MODELS)
    if not arguments.quick:
        (Path(__file__).parent / "results" / "dead.json").write_text(json.dumps(found, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
