"""Pruning a model: take out what is dead, write the result with its proof; a member of a front is recorded, too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.models import Model, ModelError, save_model
from nas.data import Resident, Split, load
from nas.folder import find_trial, read_sweep_of, stem, write_json
from nas.search import open_tracker
from nas.train import evaluate, resized
from pruning.checkpoint import refuse_unnameable
from pruning.edges import Edges
from pruning.exact import SECONDS, Pruned, remove_dead
from pruning.regroup import Regrouped, regroup
from searchspace.network import Network
from searchspace.notation import to_json, words

CHOOSING: tuple[Split, ...] = ("train", "val")  # test images choose nothing


def prune_dead(
    model: Model, out: Path | None, data_name: str | None = None, *, seed: int = 0, seconds: float = SECONDS
) -> tuple[Pruned, dict[str, object]]:
    """Take the dead, constant and doubled channels out of `model`; (the pruned, what was written).

    With data, channels that are constant on all of its training and validation images go too, and accuracies before
    and after are measured. Writes `out`, a .safetensors file that opens as a model again, beside it the record with
    the proof (.json), and a network's architecture; nothing where `out` is None or nothing can be removed.
    """
    if model.factory is not None and out is not None:
        refuse_unnameable(model.factory)
    if out is not None and out.suffix != ".safetensors":
        raise ModelError(f"--out: must be a .safetensors file (got {out}).")
    data = None if data_name is None else _fitting(model, data_name, seed)
    images = None if data is None else _images(data, model.input[1:])
    pruned = remove_dead(model.module, images, example=model.example, seconds=seconds)
    record: dict[str, object] = {**pruned.to_json(), "model": model.name, "input": model.input, "data": data_name}
    if isinstance(pruned.network, Network):
        record["words"] = words(pruned.architecture)
    if data is not None and model.classes == data.classes:
        for split in ("val", "test"):
            for when, module in (("before", model.module), ("after", pruned.network)):
                record[f"{split}_accuracy_{when}"] = accuracy(module, data, split, model.input[1:])
    paths: list[Path] = []
    if pruned.removed and out is not None:
        paths = [out, out.with_suffix(".json")]
        save_model(out, model, pruned.network, {"proof": json.dumps(asdict(pruned.proof))})
        write_json(paths[1], record)
        if isinstance(pruned.network, Network):
            paths.append(out.with_suffix(".architecture.json"))
            write_json(paths[2], to_json(pruned.architecture))
    return pruned, {**record, "files": [str(path) for path in paths]}


def prune_trial(
    model: Model,
    out: Path,
    trial: int,
    data_name: str | None,
    say: Callable[[str], None],
    tracking_uri: str | None = None,
    seconds: float = SECONDS,
) -> tuple[Pruned, dict[str, object]]:
    """The same of `trial` of the sweep in `out`: files in its folder `pruned`, and a run of kind `prune`."""
    row, sweep = find_trial(out, trial), read_sweep_of(out)
    if tracking_uri:
        sweep = replace(sweep, tracking=replace(sweep.tracking, uri=tracking_uri))
    path = out / "pruned" / f"{stem(trial)}.safetensors"
    pruned, record = prune_dead(model, path, data_name, seed=sweep.seed, seconds=seconds)
    record |= {"trial": trial}
    tracker = open_tracker(sweep, out, {}, say) if pruned.removed else None
    if tracker:
        values = pruned.cost_after.values()
        for split, name in (("val", "accuracy"), ("test", "test_accuracy")):
            measured = record.get(f"{split}_accuracy_after")
            if isinstance(measured, float):
                values[name] = measured
        result = replace(
            row,
            kind="prune",
            digest=pruned.architecture.digest,
            architecture=to_json(pruned.architecture),
            words=words(pruned.architecture),
            choices=None,
            values=values,
            curve=(),
            parent=trial,
            checkpoint=str(path),
        )
        facts = {"prunes": trial, "relative_error": pruned.proof.relative_error, "data": data_name or "none"}
        tracker.log_run("prune", result, facts, [Path(str(file)) for file in record["files"]])  # type: ignore[attr-defined]
        tracker.flush(30)
        tracker.close()
    return pruned, record


def accuracy(module: nn.Module, data: Resident, split: Split, space: tuple[int, ...]) -> float:
    """The share of a split that the first output of `module` tells right, in evaluation mode."""
    if isinstance(module, Network):
        return evaluate(module, data, split)[1]
    right = seen = 0
    like = next(module.parameters())
    with torch.no_grad():
        for x, labels in data.batches(split, 256):
            y = module.eval()(resized(x, space).to(like))
            first = y if isinstance(y, Tensor) else next(iter(y.values() if isinstance(y, dict) else y))
            right += int((first.argmax(1).cpu() == labels.cpu()).sum())
            seen += len(labels)
    return right / seen


def _fitting(model: Model, name: str, seed: int) -> Resident:
    """The dataset called `name`, where the model can read it."""
    data = load(name, seed=seed)
    dims = len(data.input) == len(model.input)
    if data.input[0] != model.input[0] or not dims or (model.factory is None and data.classes != model.classes):
        raise ModelError(
            f"--data: must have the channels and classes of the network: {model.input[0]} channels and "
            f"{len(model.input) - 1} axes, {model.classes} classes (got {name!r} with {data.input[0]}, "
            f"{len(data.input) - 1} and {data.classes})."
        )
    return data


def _images(data: Resident, space: tuple[int, ...]) -> Iterator[Tensor]:
    """The training and validation images as the network sees them."""
    for split in CHOOSING:
        for x, _ in data.batches(split, 256):
            yield resized(x, space)


def lines(pruned: Pruned, record: dict[str, object]) -> list[str]:
    """What happened, for people."""
    said = [pruned.words]
    for layer, found in pruned.removed.items():
        said.append(f"  removed  {layer}: {len(found)} channels ({_causes(sorted({c.cause for c in found}))})")
    for layer, kept in pruned.kept.items():
        for reason in sorted({k.reason for k in kept}):
            said.append(f"  stays    {layer}: {sum(k.reason == reason for k in kept)} channels ({reason})")
    for split in (*CHOOSING[1:], "test"):
        if f"{split}_accuracy_before" in record:
            before, after = record[f"{split}_accuracy_before"], record[f"{split}_accuracy_after"]
            said.append(f"  accuracy {split}: {before:.4f} before, {after:.4f} after")
    proof = pruned.proof
    said.append(f"  proof    relative error {proof.relative_error:.1e} on {proof.samples} fresh inputs: {proof.inputs}")
    if proof.data_samples:
        on = f"the {proof.data_samples:,} images of the data"
        said.append(f"           largest difference {proof.data_error:.1e} on {on}")
    said += [f"  wrote    {path}" for path in record["files"]]  # type: ignore[attr-defined]
    return said


def _causes(causes: list[str]) -> str:
    """The first few: a channel that equals another has a cause of its own."""
    return ", ".join(causes[:3]) + (", ..." if len(causes) > 3 else "")


def default_file(model: Model) -> Path:
    """pruned/NAME.safetensors."""
    return Path("pruned") / f"{re.sub('[^A-Za-z0-9_-]+', '-', Path(model.name).stem).strip('-')}.safetensors"


def regrouped(
    model: Model, out: Path, layers: Sequence[Edges], tolerance: float
) -> tuple[Regrouped | None, Path | None]:
    """`model` with its block-diagonal convolutions in groups, and the file written; nothing where there are none."""
    if model.factory is not None:
        refuse_unnameable(model.factory)
    if out.suffix != ".safetensors":
        raise ModelError(f"--out: must be a .safetensors file (got {out}).")
    if not any(layer.regroups for layer in layers):
        return None, None
    result = regroup(model.module, model.example, tolerance=tolerance)
    save_model(out, model, result.network, {"proof": json.dumps(asdict(result.proof))})
    return result, out
