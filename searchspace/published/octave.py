"""Octave networks (Chen et al. 2019, arXiv 1904.05049): a share `alpha` of the channels at half resolution.

Each is the transform `octave` of its base. The first convolution and the last stage keep one resolution. `alpha` is
rounded down to whole channels, and to whole groups where convolutions have them.
"""

from __future__ import annotations

from searchspace.architecture import Architecture
from searchspace.published.mobilenet import mobilenet_v1, mobilenet_v2
from searchspace.published.resnet import resnet, resnext
from searchspace.transforms import octave, role, under

STAGES = under("stage2", "stage3", "stage4")


def oct_resnet(
    *,
    depth: int = 50,
    alpha: float = 0.5,
    width: float = 1.0,
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> Architecture:
    """ResNet, octave in every convolution of stages 2 to 4.

    Basic blocks (18, 34, not in the paper) add the stem's output in stage 2, so the sums there keep one resolution.
    """
    return octave(resnet(depth=depth, width=width, classes=classes, input=input), alpha, STAGES)


def oct_resnext(
    *,
    depth: int = 50,
    alpha: float = 0.5,
    groups: int = 32,
    width_per_group: int = 4,
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> Architecture:
    """ResNeXt, octave in every convolution of stages 2 to 4; each path of a 3 x 3 has all the groups."""
    base = resnext(depth=depth, groups=groups, width_per_group=width_per_group, classes=classes, input=input)
    return octave(base, alpha, STAGES)


def oct_mobilenet_v1(
    *, width: float = 1.0, alpha: float = 0.5, classes: int = 1000, input: tuple[int, ...] = (3, 224, 224)
) -> Architecture:
    """MobileNet v1, octave in the pointwise convolutions of blocks 1 to 10 and so in the depthwise of 2 to 11."""
    blocks = under(*(f"block{i}" for i in range(1, 11)))
    return octave(mobilenet_v1(width=width, classes=classes, input=input), alpha, blocks & role("pointwise"))


def oct_mobilenet_v2(
    *, width: float = 1.0, alpha: float = 0.5, classes: int = 1000, input: tuple[int, ...] = (3, 224, 224)
) -> Architecture:
    """MobileNet v2 of GluonCV, octave in the expanded maps of stages 1 to 5; what enters and leaves a block is not."""
    stages = under(*(f"stage{i}" for i in range(1, 6)))
    base = mobilenet_v2(width=width, variant="gluon", classes=classes, input=input)
    return octave(base, alpha, stages & role("expand"))
