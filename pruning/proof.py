"""The proof of a removal: the pruned network against the original with the same channels silenced, in float64.

A channel is silenced by a forward hook on the original's own module, where it becomes constant; from there the
original's own wiring carries it. So nothing that maps channel numbers in the removal is trusted here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from searchspace.layers import AuxiliaryHead, Feature
from searchspace.network import Network

LIMIT = 1e-10
Silence = Mapping[str, Mapping[int, float]]
"""Module name -> channel of its output (high ones first) -> the value it is set to."""


class PruneError(ValueError):
    """A removal that cannot be made, or whose proof failed. The network it was asked of is untouched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How far two networks are apart in float64, evaluation mode, auxiliary heads included.

    `max_abs_error` and `relative_error` (to the largest output): pruned against original with its removed channels
    silenced, on `samples` fresh `inputs`. `unsilenced_error`: the same, relative, against the original as it is.
    `data_error`: relative, against the original as it is, on the `data_samples` given; None without data.
    """

    max_abs_error: float
    relative_error: float
    unsilenced_error: float
    samples: int
    inputs: str
    data_error: float | None = None
    data_samples: int = 0


def prove(
    original: Network,
    pruned: Network,
    silence: Silence,
    *,
    everywhere: bool = True,
    data: Iterable[Tensor] = (),
    more_inputs: Iterable[Tensor] = (),
    seed: int = 0,
) -> Proof:
    """Measure `pruned` against `original`; neither is changed.

    `everywhere` also demands equality with the original as it is on every input; on `data` it is always demanded.
    Tensors of `data` and `more_inputs` are (batch, channels, *space). Raises `PruneError` above `LIMIT`, or at NaN.
    """
    size = original.architecture.input
    before, silent, after = (copy.deepcopy(n).cpu().double() for n in (original, original, pruned))
    _silence(silent, silence)
    kinds = {**fresh_inputs(size, seed), **{f"given {i}": x for i, x in enumerate(more_inputs)}}
    wanted, plain, got = ([_run(n, x) for x in kinds.values()] for n in (silent, before, after))
    max_abs, relative = _difference(wanted, got)
    _, unsilenced = _difference(plain, got)
    batches = list(data)
    on_data = None
    if batches:
        _, on_data = _difference(*([_run(n, x) for x in batches] for n in (before, after)))
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
        if not error <= LIMIT:
            raise PruneError(f"A pruned network must equal {what} to {LIMIT:g}, but is {error:.3g} apart (relative).")
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


@contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """Every layer of `network` in evaluation mode, while its auxiliary heads run and are returned."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    for module in modes:
        if module is network or isinstance(module, AuxiliaryHead):
            module.training = True
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _run(network: Network, x: Tensor) -> Tensor:
    """Outputs of `network` and of its heads side by side: (batch, everything)."""
    with torch.no_grad(), evaluating(network):
        y = network(x.cpu().double())
    logits, heads = y if isinstance(y, tuple) else (y, ())
    return torch.cat([out.flatten(1) for out in (logits, *heads)], dim=1)


def _difference(wanted: list[Tensor], got: list[Tensor]) -> tuple[float, float]:
    """(largest, relative to the largest output). NaN anywhere makes both NaN."""
    apart = torch.cat([(a - b).abs().flatten() for a, b in zip(wanted, got, strict=True)]).max().item()
    scale = torch.cat([a.abs().flatten() for a in wanted]).max().item()
    return apart, apart / scale if scale else apart


def _silence(network: nn.Module, silence: Silence) -> None:
    for name, channels in silence.items():

        def hook(_module: nn.Module, _inputs: object, y: Feature, channels: Mapping[int, float] = channels) -> Feature:
            parts = [part.clone() if part is not None else None for part in (y if isinstance(y, tuple) else (y,))]
            high = parts[0].shape[1] if parts[0] is not None else 0
            for channel, value in channels.items():
                part = parts[0] if channel < high else parts[1]
                assert part is not None
                part[:, channel if channel < high else channel - high] = value
            if not isinstance(y, tuple):
                assert parts[0] is not None
                return parts[0]
            return parts[0], parts[1]

        network.get_submodule(name).register_forward_hook(hook)
