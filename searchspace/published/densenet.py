"""DenseNet (Huang et al. 2016, arXiv 1608.06993), in its bottlenecked and compressed form BC."""

from __future__ import annotations

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    Chain,
    Conv,
    Flatten,
    Linear,
    Node,
    Norm,
    Pool,
)
from searchspace.blocks import dense_layer
from searchspace.fields import choice

# (layers of each dense block, growth: channels that each layer adds).
DEPTHS = {
    121: ((6, 12, 24, 16), 32),
    161: ((6, 12, 36, 24), 48),
    169: ((6, 12, 32, 32), 32),
    201: ((6, 12, 48, 32), 32),
}


def densenet(*, depth: int = 121, classes: int = 1000, input: tuple[int, ...] = (3, 224, 224)) -> Architecture:
    """Four dense blocks, in which every layer reads all maps before it; between them width and grid are halved."""
    layers, growth = DEPTHS[choice("depth", depth, DEPTHS)]
    width = 2 * growth
    stem = Chain((Conv(width, 7, 2, label="stem"), Norm(), Activation(), Pool("max", 3, 2)), label="stem")
    stages: list[Chain] = []
    for number, count in enumerate(layers, 1):
        nodes: list[Node] = [dense_layer(growth, 4 * growth) for _ in range(count)]
        nodes += [Norm(), Activation()]
        width += count * growth
        if number < len(layers):
            width //= 2
            nodes += [Conv(width, label="transition"), Pool("average", 2, 2)]
        stages.append(Chain(tuple(nodes), label=f"stage{number}"))
    head = Chain((AdaptivePool(), Flatten(), Linear(classes, label="classifier")), label="head")
    return Architecture(input, Chain((stem, *stages, head)))
