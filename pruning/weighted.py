"""Operations that have weights: convolutions, linear layers, norms by running statistics."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from pruning import rules
from pruning.cells import numbers
from pruning.graph import Dense, Map, Norm
from pruning.rules import exact
from pruning.run import Run

PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)  # layers whose own forward adds a bias if they have one


def convolution(run: Run, func: Any, args: Any, kwargs: Any) -> Any:
    x, weight, bias, _, padding, _, transposed, _, groups = args
    channels = numbers(run.read(x), 1)
    name, biased = run.whole(weight), run.whole(bias)
    if transposed or channels is None or name is None or (bias is not None and biased is None):
        return None
    out = func(*args, **kwargs)
    padded = any(p > 0 for p in padding)
    if groups == len(channels) == len(weight) and groups > 1 and run.place.module not in run.octave:
        if run.rigid and not isinstance(run.module.get_submodule(run.place.module), PLAIN):
            run.pin(run.read(x), f"is convolved in as many groups as are written in {run.where}")
        _depthwise(run, out, channels, name, biased, padded, repr(args[3:]))
    else:
        _weights(run, out, channels, name, biased, groups, padded, repr(args[3:]))
    return out


def linear(run: Run, func: Any, args: Any, kwargs: Any) -> Any:
    bias, x, weight = args if run.place.operation == "addmm" else (None, *args)
    if run.named(x):
        return None
    channels = numbers(run.read(x), 1)
    name, biased = run.whole(weight, transposed=True), run.whole(bias)
    if kwargs or channels is None or name is None or (bias is not None and biased is None):
        return None
    out = func(*args, **kwargs)
    _weights(run, out, channels, name, biased, 1, padded=False)
    return out


def _weights(
    run: Run, out: Tensor, channels: list[int], name: str, biased: str | None, groups: int, padded: bool, how: str = ""
) -> None:
    table, weight = run.cells, exact(run.tensors[name])
    known = run.graph.dense.get(name)
    outputs = known.outputs if known else run.graph.new(name.rpartition(".")[0], len(weight))
    dense = Dense(
        name=name.rpartition(".")[0],
        weight=name,
        takes=biased or _new_bias(run, name),
        tensor=weight,
        offset=None if biased is None else exact(run.tensors[biased]),
        groups=groups,
        padded=padded,
        inputs=Map(table.slots_of(channels), table.values_of(channels), [table.equal[n] for n in channels]),
        outputs=outputs,
    )
    run.graph.read(dense)
    if biased is not None:
        run.graph.cut(biased, 0, outputs)
        run.uses[biased] += 1
    run.weights.append((run.number, dense))
    run.uses[name] += 1
    values, causes = rules.dense(dense)
    run.give_channels(out, outputs, _rows(run, dense, how), values.tolist(), causes)


def _new_bias(run: Run, weight: str) -> str | None:
    """The name of a bias that the layer that runs would add, if it had one."""
    layer, name = run.module.get_submodule(run.place.module), f"{run.place.module}.bias".removeprefix(".")
    plain = isinstance(layer, PLAIN) and type(layer).forward in {kind.forward for kind in PLAIN}
    return name if plain and layer.bias is None and layer.weight is run.tensors[weight] else None


def _rows(run: Run, dense: Dense, how: str) -> list[Hashable]:
    """Rows of equal weights on equal inputs are equal; `how` the weights are laid on them."""
    flat, found = dense.tensor.flatten(1).numpy(), list[Hashable]()
    for rows, columns in dense.blocks():
        read = tuple(dense.inputs.equal[columns])
        reads = run.graph.key(read) if None not in read else (run.title, run.number, columns.start)
        for row in range(rows.start, rows.stop):
            offset = 0.0 if dense.offset is None else float(dense.offset[row])
            found.append(run.graph.key((reads, dense.weight, flat[row].tobytes(), offset, how)))
    return found


def _depthwise(
    run: Run, out: Tensor, channels: list[int], name: str, biased: str | None, padded: bool, how: str
) -> None:
    slots, values = run.cells.slots_of(channels), run.cells.values_of(channels)
    run.graph.cut(name, 0, slots)
    filters, offsets = exact(run.tensors[name]).flatten(1), torch.zeros(len(slots), dtype=torch.float64)
    if biased is not None:
        run.graph.cut(biased, 0, slots)
        offsets = exact(run.tensors[biased])
    facts = [(name, f.tobytes(), o, how) for f, o in zip(filters.numpy(), offsets.tolist(), strict=True)]
    after, causes = rules.depthwise(filters, offsets, values, padded)
    run.give_channels(out, slots, run.keys(channels, facts), after.tolist(), causes, values.tolist())


def norm(run: Run, func: Any, args: Any, kwargs: Any) -> Any:
    short = run.place.operation == "_native_batch_norm_legit_no_training"
    x, weight, bias, mean, variance, training, _, eps = (*args[:5], False, *args[5:]) if short else args
    channels, names = numbers(run.read(x), 1), [run.whole(t) for t in (weight, bias, mean, variance)]
    given = [t is not None for t in (weight, bias, mean, variance)]
    if training or channels is None or given[2:] != [True, True] or given != [n is not None for n in names]:
        return None
    slots, values = run.cells.slots_of(channels), run.cells.values_of(channels)
    for name in names:
        if name is not None:
            run.graph.cut(name, 0, slots)
    scale, shift, mu, var = (
        torch.full((len(slots),), float(default), dtype=torch.float64) if name is None else exact(run.tensors[name])
        for name, default in zip(names, (1, 0, 0, 1), strict=True)
    )
    facts = [("norm", eps, *row) for row in torch.stack([scale, shift, mu, var], 1).tolist()]
    after, causes = rules.norm(scale, shift, mu, var, eps, values)
    out = func(*args, **kwargs)
    if names[2] is not None:
        run.uses[names[2]] += 1
        run.norms[run.number] = Norm(names[0], names[2])
    run.give_channels(out[0], slots, run.keys(channels, facts), after.tolist(), causes, values.tolist())
    return out
