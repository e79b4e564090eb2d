"""Pruning a trained member of a front: load it, take out what is dead, write the result with its proof, record it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from nas.data import Resident, Split, load
from nas.folder import find_trial, read_front, read_sweep_of, stem, weights, write_json
from nas.search import open_tracker
from nas.sweep import SweepError
from nas.train import evaluate, resized
from pruning.exact import Pruned, remove_dead
from searchspace.checkpoint import load as load_network
from searchspace.checkpoint import save
from searchspace.notation import to_json, words


def prune_dead(
    out: Path, trial: int, data_name: str | None, say: Callable[[str], None], tracking_uri: str | None = None
) -> tuple[Pruned, dict[str, object]]:
    """Take the dead and constant channels out of `trial` of the sweep in `out`; (the pruned, what was written).

    With data, channels that are constant on all of its training and validation images go too, and accuracies before
    and after are measured.
    Writes `pruned/trial-NNNN.safetensors`, `.architecture.json` and `.json` (the proof), and a run of kind `prune`.
    """
    row, sweep = find_trial(out, trial), read_sweep_of(out)
    if tracking_uri:
        sweep = replace(sweep, tracking=replace(sweep.tracking, uri=tracking_uri))
    path = weights(out, trial)
    if not path.exists():
        front = ", ".join(str(member.trial) for member in read_front(out))
        raise SweepError([f"--trial: must be on the front, whose weights are kept (got {trial}; front: {front})"])
    network = load_network(path)
    data = load(data_name, seed=sweep.seed) if data_name else None
    if data is not None and (data.input[0], data.classes) != (
        network.architecture.input[0],
        network.architecture.output.channels,
    ):
        raise SweepError([f"--data: must have the channels and classes of the network (got {data_name!r})"])
    space = network.architecture.input[1:]
    pruned = remove_dead(network, None if data is None else _images(data, space))
    record: dict[str, object] = {
        **pruned.to_json(),
        "trial": trial,
        "data": data_name,
        "words": words(pruned.architecture),
    }
    values = pruned.cost_after.values()
    if data is not None:
        for split in ("val", "test"):
            before, after = (evaluate(n, data, split)[1] for n in (network, pruned.network))
            record[f"{split}_accuracy_before"], record[f"{split}_accuracy_after"] = before, after
            values["accuracy" if split == "val" else "test_accuracy"] = after
    folder = out / "pruned"
    paths = [folder / f"{stem(trial)}.{kind}" for kind in ("safetensors", "architecture.json", "json")]
    save(paths[0], pruned.network, {"proof": json.dumps(asdict(pruned.proof))})
    write_json(paths[1], to_json(pruned.architecture))
    write_json(paths[2], record)
    tracker = open_tracker(sweep, out, {}, say)
    if tracker:
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
            checkpoint=str(paths[0]),
        )
        facts = {"prunes": trial, "relative_error": pruned.proof.relative_error, "data": data_name or "none"}
        tracker.log_run("prune", result, facts, paths)
        tracker.flush(30)
        tracker.close()
    return pruned, {**record, "files": [str(path) for path in paths]}


def _images(data: Resident, space: tuple[int, ...]) -> Iterator[Tensor]:
    """The training and validation images as the network sees them; test images choose nothing."""
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        for x, _ in data.batches(split, 256):
            yield resized(x, space)
