"""Which channels of a network are constant, and why: proved by the weights, or seen on data.

The two are kept apart: what the weights prove holds for every input; what was seen holds on the samples given, and
its cause says how many they were.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pruning.flow import Constant, Flow, Observed
from pruning.proof import PruneError, evaluating
from pruning.rules import VARIES
from pruning.weights import exact
from searchspace import leaves
from searchspace.layers import Feature
from searchspace.network import Network

WATCHED = (leaves.Conv, leaves.Depthwise, leaves.Norm, leaves.Activation, leaves.Linear, leaves.SqueezeExcite)


def constants(network: Network, observed: Observed | None = None) -> dict[str, tuple[Constant, ...]]:
    """The constant output channels of each module that has any, in order of execution.

    Without `observed`, what the weights prove for every input in evaluation mode; with it, what was seen, too.
    """
    return {name: tuple(found) for name, found in Flow(network, observed).constants.items()}


def observe(network: Network, batches: Iterable[Tensor]) -> Observed:
    """Which channels kept one value over whole maps on all of `batches`: (batch, channels, *space), evaluation mode.

    Values are those of `network` in its own precision. Raises `PruneError` with fewer than 2 samples, on which
    everything after a global pooling would look constant.
    """
    lowest: dict[str, Tensor] = {}
    highest: dict[str, Tensor] = {}

    def watch(name: str) -> RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, y: Feature) -> None:
            parts = [p.transpose(0, 1).flatten(1) for p in (y if isinstance(y, tuple) else (y,)) if p is not None]
            low, high = torch.cat([p.amin(1) for p in parts]), torch.cat([p.amax(1) for p in parts])
            lowest[name] = torch.minimum(low, lowest.get(name, low))
            highest[name] = torch.maximum(high, highest.get(name, high))

        return network.get_submodule(name).register_forward_hook(hook)

    like = next(network.parameters())
    handles, samples = [watch(name) for name in _watched(network)], 0
    try:
        with torch.no_grad(), evaluating(network):
            for x in batches:
                network(x.to(like))
                samples += len(x)
    finally:
        for handle in handles:
            handle.remove()
    if samples < 2:
        raise PruneError(f"At least 2 samples must be given to see what is constant, but got {samples}.")
    values = {name: torch.where(low == highest[name], low, VARIES) for name, low in lowest.items()}
    return Observed(samples=samples, values={name: exact(v) for name, v in values.items()})


def _watched(network: Network) -> list[str]:
    names = []
    for site in network.architecture.sites:
        if isinstance(site.leaf, leaves.SqueezeExcite):
            names.append(f"{site.name}.activation")
        if isinstance(site.leaf, WATCHED):
            names.append(site.name)
    return names
