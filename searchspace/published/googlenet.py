"""GoogLeNet, the first Inception network (Szegedy et al. 2014, arXiv 1409.4842)."""

from __future__ import annotations

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    Chain,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Linear,
    LocalNorm,
    Node,
    Norm,
    Pool,
    Shape,
    Tap,
)
from searchspace.blocks import chain
from searchspace.fields import choice, switch

VARIANTS = ("original", "batch_norm")

# Widths of each module: 1 x 1; before and of 3 x 3; before and of 5 x 5; after pooling.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(
    *,
    variant: str = "original",
    aux: bool = True,
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> Architecture:
    """Nine modules of 1 x 1, 3 x 3 and 5 x 5 convolutions and pooling, side by side, and two auxiliary heads (`aux`).

    "batch_norm" is torchvision's: norms for biases and local norms, 3 x 3 where the paper has 5 x 5, and a smaller
    last pooling.
    """
    norm = choice("variant", variant, VARIANTS) == "batch_norm"
    switch("aux", aux)
    local: list[Node] = [] if norm else [LocalNorm()]
    pool = Pool("max", 3, 2, padding=0, ceil=True)
    last_pool = Pool("max", 2, 2, ceil=True) if norm else pool

    def conv(out: int, label: str, kernel: int = 1, stride: int = 1) -> tuple[Node, ...]:
        convolution = Conv(out, kernel, stride, bias=not norm, label=label)
        return (convolution, Norm(1e-3), Activation()) if norm else (convolution, Activation())

    def module(label: str) -> Chain:
        one, before_three, three, before_five, five, pooled = MODULES[label]
        branches = (
            conv(one, "pointwise"),
            (*conv(before_three, "reduce"), *conv(three, "spatial", 3)),
            (*conv(before_five, "reduce"), *conv(five, "spatial", 3 if norm else 5)),
            (Pool("max", 3, 1), *conv(pooled, "project")),
        )
        return Chain((Concat(tuple(Chain(branch) for branch in branches)),), label=label)

    def head(into: Shape) -> Tap:
        """The auxiliary classifier; its window is at most the map, which small inputs make small."""
        window = tuple(min(5, size) for size in into.space)
        pooled = AdaptivePool(4) if norm else Pool("average", window, 3, padding=0)
        hidden = (Linear(1024), Activation(), Dropout(0.7), Linear(classes, label="classifier"))
        return Tap(Chain((pooled, *conv(128, "reduce"), Flatten(), *hidden)), 0.3)

    stem = (*conv(64, "stem", 7, 2), pool, *local, *conv(64, "reduce"), *conv(192, "spatial", 3), *local)
    fourth = (module("4a"), head, module("4b"), module("4c"), module("4d"), head, module("4e"))
    body = chain(
        Architecture(input, Chain()).output,
        Chain(stem, label="stem"),
        Chain((pool, module("3a"), module("3b")), label="stage3"),
        lambda into: chain(into, pool, *(part for part in fourth if aux or part is not head), label="stage4"),
        Chain((last_pool, module("5a"), module("5b")), label="stage5"),
        Chain(
            (AdaptivePool(), Flatten(), Dropout(0.2 if norm else 0.4), Linear(classes, label="classifier")),
            label="head",
        ),
    )
    return Architecture(input, body)
