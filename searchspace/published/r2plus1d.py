"""R(2+1)D (Tran et al. 2018, arXiv 1711.11248)."""

from __future__ import annotations

from searchspace.architecture import Architecture, Site
from searchspace.blocks import middle_width
from searchspace.fields import choice
from searchspace.published.mixed import r3d
from searchspace.transforms import factorize, role

MIDPLANES = ("per_conv", "per_block")


def r2plus1d(
    *,
    depth: int = 18,
    midplanes: str = "per_conv",
    classes: int = 400,
    input: tuple[int, ...] = (3, 16, 112, 112),
) -> Architecture:
    """R3D with each t x k x k convolution as 1 x k x k, norm, ReLU, t x 1 x 1, as wide between as keeps its params.

    That width follows from what the convolution reads ("per_conv", as in the paper), or from what its block reads
    ("per_block", torchvision's r2plus1d_18); in the stem it is 45. Norms have torchvision's eps, 1e-5; in the
    authors' code (VMZ) it is 1e-3.
    """
    choice("midplanes", midplanes, MIDPLANES)
    network = r3d(depth=depth, classes=classes, input=input)
    entrances = {block_of(site): site for site in reversed(network.sites)}

    def middle(site: Site) -> int:
        if site.role == "stem":
            return 45
        reader = site if midplanes == "per_conv" else entrances[block_of(site)]
        return middle_width(reader.before.channels, site.after.channels, (3, 3, 3))

    return factorize(network, "r2plus1d", role("stem", "spatial"), middle)


def block_of(site: Site) -> tuple[int, ...]:
    """Which block a site is in: a body holds stages, a stage blocks."""
    return site.index[:2]
