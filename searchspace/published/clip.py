"""What video networks share: the shape of a clip, and poolings that short clips fit."""

from __future__ import annotations

from collections.abc import Callable

from searchspace.architecture import Architecture, ArchitectureError, Axes, Chain, Pool, Shape, axes


def clip(input: tuple[int, ...]) -> Shape:
    """The shape of an `input` of (channels, frames, height, width)."""
    shape = Architecture(input, Chain()).output
    if len(shape.space) != 3:
        raise ArchitectureError(
            f"`input` of a video network must be (channels, frames, height, width), but got {input}."
        )
    return shape


def fitting_pool(kind: str, kernel: Axes, stride: Axes, padding: Axes = 0) -> Callable[[Shape], Pool]:
    """A pooling whose window is at most the padded map it reads, for clips and images smaller than the paper's."""

    def pool(into: Shape) -> Pool:
        margins = axes(padding, 3)
        sizes = zip(axes(kernel, 3), into.space, margins, strict=True)
        return Pool(kind, tuple(min(k, size + 2 * p) for k, size, p in sizes), stride, margins)

    return pool
