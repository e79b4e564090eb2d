"""The proof of a removal: the pruned module against the original with the same channels silenced, in float64.

A channel is silenced in a run of the original, in the output of the operation where it becomes constant; from there
the original's own code carries it. So nothing that maps channel numbers in the removal is trusted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from typing import Any

import torch
from torch import Tensor, nn

from pruning.graph import Made
from pruning.places import NORMS, Place, Places, PruneError, evaluating, tensors

LIMIT = 1e-10
Silence = Mapping[Made, float]
"""Channels of the output of an operation -> the value they are set to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How far two modules are apart in float64, evaluation mode, auxiliary heads included.

    `max_abs_error` and `relative_error` (to the largest value of the same output): pruned against original with its
    removed channels silenced, on `samples` fresh `inputs`. `unsilenced_error`: the same, relative, against the
    original as it is. `data_error`: relative, against the original as it is, on the `data_samples` given; None
    without data.
    """

    max_abs_error: float
    relative_error: float
    unsilenced_error: float
    samples: int
    inputs: str
    data_error: float | None = None
    data_samples: int = 0


def prove(
    original: nn.Module,
    pruned: nn.Module,
    silence: Silence,
    size: Sequence[int],
    *,
    everywhere: bool = True,
    heads: bool = True,
    data: Iterable[Tensor] = (),
    more_inputs: Iterable[Tensor] = (),
    seed: int = 0,
    few: bool = False,
    limit: float = LIMIT,
    until: float = inf,
) -> Proof:
    """Measure `pruned` against `original`, both in float64 on the CPU; inputs are (batch, *size).

    `few` takes 5 fresh inputs, one of each kind and one more, instead of 16. `everywhere` also demands equality with
    the original as it is on every input; on `data` it is always demanded. Raises `PruneError` above `limit`, at NaN,
    and at the time `until`.
    """
    fresh = fresh_inputs(tuple(size), seed)
    if few:  # of each kind its last; of noise the last is the loudest
        fresh = {kind: x[-2:] if kind == "random normal" else x[-1:] for kind, x in fresh.items()}
    kinds = {**fresh, **{f"given {i}": x for i, x in enumerate(more_inputs)}}
    wanted = [_run(original, x, silence, heads, until) for x in kinds.values()]
    plain, got = ([_run(m, x, {}, heads, until) for x in kinds.values()] for m in (original, pruned))
    max_abs, relative = _difference(wanted, got)
    _, unsilenced = _difference(plain, got)
    batches = list(data)
    on_data = None
    if batches:
        _, on_data = _difference(*([_run(m, x, {}, heads, until) for x in batches] for m in (original, pruned)))
    proof = Proof(
        max_abs_error=max_abs,
        relative_error=relative,
        unsilenced_error=unsilenced,
        samples=sum(len(x) for x in kinds.values()),
        inputs=", ".join(f"{len(x)} {words}" for words, x in kinds.items()),
        data_error=on_data,
        data_samples=sum(len(x) for x in batches),
    )
    for what, error in (
        ("the original with the same channels silenced", relative),
        ("the original on every input", unsilenced if everywhere else 0.0),
        ("the original on the given data", on_data or 0.0),
    ):
        if not error <= limit:
            raise PruneError(f"A pruned network must equal {what} to {limit:g}, but is {error:.3g} apart (relative).")
    return proof


def fresh_inputs(size: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """Inputs (batch, channels, *space) in float64, by kind: noise, flat maps, maps lit only at the border."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(8, *size, generator=rng, dtype=torch.float64)
    noise[4:] *= 10
    flat = torch.cat([torch.zeros(1), torch.ones(1), torch.randn(2, generator=rng)]).double()
    border = torch.ones(size, dtype=torch.float64)
    border[tuple(slice(1, -1) if axis else slice(None) for axis in range(len(size)))] = 0
    corners = torch.zeros(2, *size, dtype=torch.float64)
    corners[0].flatten(1)[:, 0] = 5
    corners[1].flatten(1)[:, -1] = -5
    levels = torch.randn(2, size[0], *(1 for _ in size[1:]), generator=rng, dtype=torch.float64)
    return {
        "random normal": noise,
        "constant": flat.view(-1, *(1 for _ in size)) * torch.ones(size, dtype=torch.float64),
        "with only the border lit": border * levels,
        "with only a corner lit": corners,
    }


class _Silencer(Places):
    """Overwrites channels in the outputs of operations."""

    def __init__(self, module: nn.Module, silence: Silence, until: float) -> None:
        super().__init__(module, until)
        self.at: dict[Place, list[tuple[Made, float]]] = {}
        for made, value in silence.items():
            self.at.setdefault(made.place, []).append((made, value))

    def ran(self, place: Place, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        y = out[0] if place.operation in NORMS else out
        for made, value in self.at.get(place, ()):
            y.index_fill_(made.axis, torch.tensor(made.indices), value)
        return out


def _run(module: nn.Module, x: Tensor, silence: Silence, heads: bool, until: float) -> list[Tensor]:
    """Each output of `module`, which may write into its input, and of its heads, in float64."""
    found = []
    for with_heads in (False, True) if heads else (False,):
        with evaluating(module, heads=with_heads), _Silencer(module, silence, until):
            try:
                found += [y.double() for y in tensors(module(x.to("cpu", torch.float64, copy=True)))]
            except PruneError:
                raise
            except Exception as error:  # whatever code that is not ours raises
                raise PruneError(f"A module must run on every input of its proof, but: {error}") from error
    return found


def _difference(wanted: Sequence[Sequence[Tensor]], got: Sequence[Sequence[Tensor]]) -> tuple[float, float]:
    """(largest, largest relative to the largest value of the same output) of runs. NaN anywhere makes both NaN."""
    apart, relative = 0.0, 0.0
    for ours, theirs in zip(zip(*wanted, strict=True), zip(*got, strict=True), strict=True):
        if any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
            return inf, inf
        here = torch.cat([(a - b).abs().flatten() for a, b in zip(ours, theirs, strict=True)]).max().item()
        scale = torch.cat([a.abs().flatten() for a in ours]).max().item()
        apart, relative = _worse(apart, here), _worse(relative, here / scale if scale else here)
    return apart, relative


def _worse(a: float, b: float) -> float:
    return b if isnan(b) or b > a else a
