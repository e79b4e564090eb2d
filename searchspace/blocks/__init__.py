"""Blocks: functions that return a fragment of an architecture for the shape it will read, in 2D and 3D alike.

Every block has the form `block(into, *, out, stride=1, ...) -> Chain`. The keyword arguments it takes are the
choices a stage of a space may make for it; a block of the user's own works alike.

| option | meaning |
|---|---|
| `out`, `stride`, `kernel`, `dilation` | width, stride, kernel (odd) and dilation of the spatial convolution |
| `groups`, `shuffle` | groups of its convolutions; channels shuffled after the first grouped one |
| `alpha` | share of channels at half resolution, rounded down to a multiple of `groups` |
| `factorization` | "none"; "stacked": k x k as (k - 1) / 2 of 3 x 3; "asymmetric": 1 x k, then k x 1 |
| ... in 3D | "p3d_a": S = 1 x k x k, then T = k x 1 x 1; "p3d_b": S + T; "p3d_c": S + T(S); |
| | "r2plus1d": S, then T, with as many params as the k x k x k |
| `separation` | "reduced": k x k becomes depthwise, without groups; |
| | "preserved": a linear 1 x 1 before it keeps the interactions |
| `expansion`, `squeeze` | inner width: of the input (inverted residual), of the output (others); see each block |
| `squeeze_excite` | hidden share of squeeze-excite; 0 is none |
| `activation`, `pool` | one of `leaves.ACTIVATIONS`; "max" or "average" |
| `bias` | biased convolutions beside their norm |
| `shortcut` | whether the input is added |
| `reduction` | how an Inception grid is halved, one of `REDUCTIONS` |
| `layers` | of a dense block |
"""

from __future__ import annotations

from collections.abc import Callable

from searchspace.architecture import Chain
from searchspace.blocks.convolutions import depthwise_separable, plain
from searchspace.blocks.dense import dense, dense_layer
from searchspace.blocks.fire import fire
from searchspace.blocks.grid_reduction import grid_reduction
from searchspace.blocks.inception import inception_a, inception_b, inception_c
from searchspace.blocks.options import REDUCTIONS, STRIDES_IN
from searchspace.blocks.pieces import (
    FACTORIZATIONS,
    SEPARATIONS,
    SPATIOTEMPORAL,
    chain,
    depthwise,
    factorized,
    grouped,
    low_width,
    middle_width,
    spatial,
    spread,
    unit,
    whole_width,
)
from searchspace.blocks.residuals import bottleneck, inverted_residual, residual
from searchspace.blocks.shuffle_unit import shuffle_unit

__all__ = [
    "BLOCKS",
    "FACTORIZATIONS",
    "REDUCTIONS",
    "SEPARATIONS",
    "SPATIOTEMPORAL",
    "STRIDES_IN",
    "Block",
    "bottleneck",
    "chain",
    "dense",
    "dense_layer",
    "depthwise",
    "depthwise_separable",
    "factorized",
    "fire",
    "grid_reduction",
    "grouped",
    "inception_a",
    "inception_b",
    "inception_c",
    "inverted_residual",
    "low_width",
    "middle_width",
    "plain",
    "residual",
    "shuffle_unit",
    "spatial",
    "spread",
    "unit",
    "whole_width",
]

Block = Callable[..., Chain]

BLOCKS: dict[str, Block] = {
    "plain": plain,
    "residual": residual,
    "bottleneck": bottleneck,
    "depthwise_separable": depthwise_separable,
    "inverted_residual": inverted_residual,
    "fire": fire,
    "shuffle_unit": shuffle_unit,
    "inception_a": inception_a,
    "inception_b": inception_b,
    "inception_c": inception_c,
    "grid_reduction": grid_reduction,
    "dense": dense,
}
