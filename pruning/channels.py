"""Which channels of a module are constant, and why: proved by the weights, or seen on data; and what they are called.

The two are kept apart: what the weights prove holds for every input; what was seen holds on the samples given, and
its cause says how many they were.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from pruning.graph import Constant
from pruning.places import observe
from pruning.trace import trace
from searchspace import layers
from searchspace.network import Network


class Names:
    """What a channel is called: by the layer of a Network, the high ones of an octave map first, else by the module."""

    def __init__(self, module: nn.Module) -> None:
        self._leaves = dict(_parts(module)) if isinstance(module, Network) else {}

    def __call__(self, module: str, channel: int) -> tuple[str, int]:
        leaf, first = self._leaves.get(module, (module, 0))
        return leaf, first + channel


def _parts(network: Network) -> Iterator[tuple[str, tuple[str, int]]]:
    """Parts of a layer on an octave map -> (the layer, how many channels come before theirs)."""
    for site in network.architecture.sites:
        module, high = network.get_submodule(site.name), site.after.high
        if isinstance(module, layers.OctaveConv):
            yield from ((f"{site.name}.{key}", (site.name, high * (key[1] == "l"))) for key in ("hh", "lh", "hl", "ll"))
        if isinstance(module, layers.Branches):
            yield from ((f"{site.name}.{key}", (site.name, high * (key == "low"))) for key in ("high", "low"))


def constants(
    module: nn.Module, batches: Iterable[Tensor] | None = None, *, example: Tensor | None = None
) -> dict[str, tuple[Constant, ...]]:
    """The constant output channels of each part of `module` that has any.

    Without `batches`, what the weights prove for every input in evaluation mode; with them, what was seen, too.
    `example` is a tensor of (batch, channels, *space) that the module runs on, not needed for a Network.
    """
    plain = copy.deepcopy(module).cpu().double()
    data = None if batches is None else [x.cpu().double() for x in batches]
    if isinstance(module, Network):
        size = module.architecture.input
    else:
        assert example is not None
        size = tuple(example.shape[1:])
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = None if data is None else observe(plain, data)
    names, found = Names(module), dict[str, list[Constant]]()
    for listed in trace(plain, x, seen=seen).constants.values():
        for c in listed:
            name, channel = names(c.at, c.channel)
            found.setdefault(name, []).append(Constant(channel=channel, value=c.value, cause=c.cause, at=name))
    return {name: tuple(sorted(listed, key=lambda c: c.channel)) for name, listed in found.items()}
