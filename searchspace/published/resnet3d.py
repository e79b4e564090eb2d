"""ResNet3D, ResNet on clips (Tran et al. 2018, arXiv 1711.11248), with the grouped forms of the CSN paper."""

from __future__ import annotations

from searchspace.architecture import Architecture, ArchitectureError, Pool
from searchspace.fields import integer, switch
from searchspace.published.clip import clip
from searchspace.published.resnet import resnet
from searchspace.transforms import Where, everywhere, inflate, leaf, regroup, renorm, retime, role, separate


def resnet3d(
    *,
    depth: int = 50,
    groups: int | str = 1,
    preserve_interactions: bool = False,
    pointwise_groups: int = 1,
    classes: int = 400,
    input: tuple[int, ...] = (3, 8, 224, 224),
) -> Architecture:
    """ResNet inflated to 3 x 3 x 3: its stem sees three frames, its first pooling one; later stages halve time too.

    The forms of "Video classification with channel-separated convolutional networks" (Tran et al. 2019, arXiv
    1904.02811): 3 x 3 x 3 convolutions in `groups`, or "depthwise", behind a 1 x 1 x 1 where the width changes or, to
    `preserve_interactions`, everywhere; then the 1 x 1 x 1 convolutions may be in `pointwise_groups`. Norms as in the
    authors' code: eps 1e-3.
    """
    switch("preserve_interactions", preserve_interactions)
    integer("pointwise_groups", pointwise_groups)
    network = renorm(inflated_resnet(depth, classes, input), 1e-3)
    if groups == "depthwise":
        separated = separate(network, "preserved" if preserve_interactions else "reduced", role("spatial"))
        if pointwise_groups == 1:
            return separated
        return regroup(separated, pointwise_groups, False, role("reduce", "restore", "pointwise"))
    if type(groups) is not int or groups < 1:
        raise ArchitectureError(f"`groups` must be a whole number >= 1 or 'depthwise', but got {groups!r}.")
    if preserve_interactions or pointwise_groups != 1:
        raise ArchitectureError(
            "`preserve_interactions` and `pointwise_groups` need groups='depthwise', but got "
            f"({groups=}, {preserve_interactions=}, {pointwise_groups=})."
        )
    return regroup(network, groups, False, role("spatial"))


def inflated_resnet(depth: int, classes: int, input: tuple[int, ...], where: Where = everywhere) -> Architecture:
    """ResNet on clips, along time only `where` it says: three frames in the stem, no time in the pooling.

    At depth 26 the bottlenecks do not expand: every convolution of a stage is 64, 128, 256 or 512 wide.
    """
    shape = clip(input)
    frames, *image = shape.space
    base = resnet(depth=depth, expansion=1 if depth == 26 else 4, classes=classes, input=(shape.channels, *image))
    return retime(inflate(base, frames, ~leaf(Pool) & where), role("stem") & where, kernel=3, stride=1)
