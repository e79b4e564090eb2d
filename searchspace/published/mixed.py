"""Residual networks between 2D and 3D: R3D, mixed convolutions, R2D (Tran et al. 2018, arXiv 1711.11248).

They read 112 x 112 and have no pooling after the stem. At depth 18, `r3d` and `mixed_convolution` of level 3 are
torchvision's r3d_18 and mc3_18, with the eps of its norms, 1e-5; in the authors' code (VMZ), as in `r2d` and
`frame_r2d`, it is 1e-3.
"""

from __future__ import annotations

from searchspace.architecture import Architecture, ArchitectureError, Pool
from searchspace.fields import choice, integer, switch
from searchspace.published.resnet3d import inflated_resnet
from searchspace.transforms import Where, drop, everywhere, leaf, renorm, retime, role, under

STAGES = ("stem", "stage2", "stage3", "stage4", "stage5")
LEVELS = range(2, 6)


def r3d(*, depth: int = 18, classes: int = 400, input: tuple[int, ...] = (3, 16, 112, 112)) -> Architecture:
    """ResNet with 3 x 3 x 3 kernels; time and image are halved together from stage 3 on; torchvision's eps, 1e-5."""
    return _network(depth, classes, input, everywhere)


def mixed_convolution(
    *,
    depth: int = 18,
    level: int = 3,
    reversed: bool = False,
    classes: int = 400,
    input: tuple[int, ...] = (3, 16, 112, 112),
) -> Architecture:
    """MCx: 3D before stage `level`, each frame by itself from there on; `reversed` (rMCx): the other way round.

    Norms have torchvision's eps, 1e-5.
    """
    choice("level", level, LEVELS)
    early, late = STAGES[: level - 1], STAGES[level - 1 :]
    return _network(depth, classes, input, under(*(late if switch("reversed", reversed) else early)))


def r2d(
    *,
    depth: int = 18,
    frames: int | None = None,
    classes: int = 400,
    input: tuple[int, ...] = (3, 8, 112, 112),
) -> Architecture:
    """ResNet of images whose stem reads all `frames` of the clip at once, as if they were channels."""
    each = frame_r2d(depth=depth, classes=classes, input=input)
    if frames is not None and integer("frames", frames) != input[1]:
        raise ArchitectureError(
            f"`frames` must be those of the input, which the stem reads at once, but got ({frames=}, {input=})."
        )
    return retime(each, role("stem"), kernel=input[1], padding=0)


def frame_r2d(*, depth: int = 18, classes: int = 400, input: tuple[int, ...] = (3, 8, 112, 112)) -> Architecture:
    """f-R2D: ResNet on each frame by itself; the last pooling averages over them."""
    return renorm(_network(depth, classes, input, ~everywhere), 1e-3)


def _network(depth: int, classes: int, input: tuple[int, ...], where: Where) -> Architecture:
    return drop(inflated_resnet(depth, classes, input, where), leaf(Pool))
