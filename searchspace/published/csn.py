"""CSN, channel-separated networks (Tran et al. 2019, arXiv 1904.02811)."""

from __future__ import annotations

from searchspace.architecture import Architecture
from searchspace.fields import choice
from searchspace.published.resnet3d import resnet3d

INTERACTIONS = ("preserved", "reduced")


def csn(
    *,
    depth: int = 50,
    interactions: str = "preserved",
    classes: int = 400,
    input: tuple[int, ...] = (3, 8, 224, 224),
) -> Architecture:
    """ResNet3D with depthwise 3 x 3 x 3 convolutions, alone (ir-CSN, "reduced") or behind a 1 x 1 x 1 (ip-CSN)."""
    preserved = choice("interactions", interactions, INTERACTIONS) == "preserved"
    return resnet3d(depth=depth, groups="depthwise", preserve_interactions=preserved, classes=classes, input=input)
