"""AlexNet (Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks")."""

from __future__ import annotations

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    Chain,
    Conv,
    Dropout,
    Flatten,
    Linear,
    LocalNorm,
    Node,
    Pool,
)
from searchspace.fields import choice

# The one tower of "One weird trick" is narrower in front, pads its stem and has no local response normalisation.
VARIANTS = {"two_group": (96, 256, 384, 384, 256), "one_weird_trick": (64, 192, 384, 256, 256)}


def alexnet(
    *,
    variant: str = "two_group",
    groups: int | None = None,
    classes: int = 1000,
    input: tuple[int, ...] | None = None,
) -> Architecture:
    """Five convolutions with overlapping max pooling, then three fully connected layers.

    "two_group" is the paper's, whose convolutions 2, 4 and 5 each see half of the channels, as `groups` says; its
    arithmetic needs 227 where it prints 224. "one_weird_trick" (Krizhevsky 2014, arXiv 1404.5997) is torchvision's.
    """
    widths, paper = VARIANTS[choice("variant", variant, VARIANTS)], variant == "two_group"
    split = groups if groups is not None else 2 if paper else 1
    norm: list[Node] = [LocalNorm()] if paper else []
    pool, relu = Pool("max", 3, 2, padding=0), Activation()
    stem = Conv(widths[0], 11, 4, padding=0 if paper else 2, bias=True, label="stem")
    second, third, fourth, fifth = (
        Conv(out, kernel, groups=g, bias=True, label="spatial")
        for out, kernel, g in zip(widths[1:], (5, 3, 3, 3), (split, 1, split, split), strict=True)
    )
    hidden = (Dropout(), Linear(4096), relu, Dropout(), Linear(4096), relu)
    flat = (Flatten(),) if paper else (AdaptivePool(6), Flatten())
    body = Chain(
        (
            Chain((stem, relu, *norm, pool), label="stem"),
            Chain((second, relu, *norm, pool), label="stage2"),
            Chain((third, relu, fourth, relu, fifth, relu, pool), label="stage3"),
            Chain((*flat, *hidden, Linear(classes, label="classifier")), label="head"),
        )
    )
    own = (3, 227, 227) if paper else (3, 224, 224)
    return Architecture(own if input is None else input, body)
