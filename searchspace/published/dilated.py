"""The dilated context module (Yu & Koltun 2016, arXiv 1511.07122)."""

from __future__ import annotations

from searchspace.architecture import Activation, Architecture, Chain, Conv, Node
from searchspace.fields import choice, integer

DILATIONS = (1, 1, 2, 4, 8, 16, 1)

# Width of each layer, in multiples of `channels`.
SIZES = {"basic": (1, 1, 1, 1, 1, 1, 1), "large": (2, 2, 4, 8, 16, 32, 32)}


def dilated_context(
    *,
    size: str = "basic",
    channels: int = 21,
    classes: int | None = None,
    input: tuple[int, ...] | None = None,
) -> Architecture:
    """Seven 3 x 3 convolutions, spread 1 to 16 apart, and a 1 x 1 one: every position sees 67 x 67, none is pooled.

    It refines `channels` score maps into `classes` maps of the same size, by default as many. The module alone,
    without the front end that makes its input.
    """
    integer("channels", channels)
    layers: list[Node] = []
    for times, dilation in zip(SIZES[choice("size", size, SIZES)], DILATIONS, strict=True):
        layers += [Conv(times * channels, 3, dilation=dilation, bias=True, label="spatial"), Activation()]
    head = Conv(channels if classes is None else classes, bias=True, label="classifier")
    body = Chain((Chain(tuple(layers), label="stage1"), Chain((head,), label="head")))
    return Architecture((channels, 64, 64) if input is None else input, body)
