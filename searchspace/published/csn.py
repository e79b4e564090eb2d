"""CSN, channel-separated networks (Tran et al. 2019, arXiv 1904.02811)."""

from __future__ import annotations

from searchspace.architecture import Architecture, ArchitectureError
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
    if interactions not in INTERACTIONS:
        raise ArchitectureError(f"`interactions` must be one of {', '.join(INTERACTIONS)}, but got {interactions!r}.")
    preserved = interactions == "preserved"
    return resnet3d(depth=depth, groups="depthwise", preserve_interactions=preserved, classes=classes, input=input)
