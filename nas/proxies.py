"""Scores of an untrained network, as one more feature of the surrogate: on trial, beside a noise that knows nothing.

naswot: how differently the first batch of images switches the activations of a network with random weights on and off,
the log-determinant of the kernel of their binary codes [naswot]. A proxy that does not beat `noise` is worth nothing.

Source: [naswot] Mellor, Turner, Storkey, Crowley, "Neural Architecture Search without Training", ICML 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas.data import Data
from nas.train import resized
from searchspace.architecture import Architecture
from searchspace.layers import ACTIVATION_MODULES
from searchspace.network import build

BATCH = 32


def proxy(name: str, data: Data) -> Callable[[Architecture], float] | None:
    """The score called `name`; None for "none"."""
    if name == "naswot":
        images, _ = next(data.batches("train", BATCH))
        return lambda architecture: naswot(architecture, images)
    return noise if name == "noise" else None


def noise(architecture: Architecture) -> float:
    """A number in [0, 1) that says nothing about the network, always the same for it."""
    return int(architecture.digest[:8], 16) / 16**8


def naswot(architecture: Architecture, images: Tensor) -> float:
    """The log-determinant (nats) of the kernel of activation codes over `images` (batch, channels, *space)."""
    network = build(architecture, 0).train()
    kinds = tuple(kind for kind in ACTIVATION_MODULES.values() if isinstance(kind, type))
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        code = (inputs[0].flatten(1) > 0).double()
        kernel.add_(code @ code.T + (1 - code) @ (1 - code).T)

    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_pre_hook(count)
    with torch.no_grad():
        network(resized(images, architecture.input[1:]))
    return float(torch.linalg.slogdet(kernel + torch.eye(len(images))).logabsdet)
