"""Small staged networks of one block, as a space builds them, for the tests of transforms."""

import torch

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    Chain,
    Conv,
    Flatten,
    Linear,
    Norm,
    Shape,
    shape_after,
)
from searchspace.blocks import BLOCKS
from searchspace.cost import cost, trace_flops
from searchspace.network import build
from searchspace.transforms import role, under

SPACES = [(16, 12), (3, 16, 12)]
STAGES = under("stage1", "stage2")


def staged(name, space=(16, 12), width=32, depths=(1, 2), stem=16, pool=True, **given) -> Architecture:
    """Stem, two stages of a block (the second strides and doubles), head: as a space builds them."""
    body: list = [Chain((Conv(stem, 3, label="stem"), Norm(), Activation()), label="stem")]
    shape = Shape(stem, space)
    for i, depth in enumerate(depths):
        items = []
        for j in range(depth):
            options = {"stride": 2 if i and not j else 1, "out": width * 2**i, **given}
            items.append(BLOCKS[name](shape, **options))
            shape = shape_after(items[-1], shape)
        body.append(Chain(tuple(items), label=f"stage{i + 1}"))
    body.append(Chain((AdaptivePool(), Flatten(), Linear(3, label="classifier")), label="head"))
    return Architecture((3, *space), Chain(tuple(body)))


def runs(a: Architecture) -> None:
    network = build(a, 0)
    output = network(torch.randn(2, *a.input))
    logits, *heads = (output[0], *output[1]) if isinstance(output, tuple) else (output,)
    sum(map(torch.sum, heads), logits.sum()).backward()
    assert cost(a).flops == trace_flops(network, a.input)


def labels(a: Architecture) -> list[tuple[tuple[str, ...], str]]:
    return [(site.path, site.role) for site in a.sites]


NOWHERE = role("nothing is called so")

# Blocks whose options reach all their convolutions: Inception modules and dense blocks have some of fixed form too.
WHOLE = ("plain", "residual", "bottleneck", "depthwise_separable", "inverted_residual", "fire", "shuffle_unit")
