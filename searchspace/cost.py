"""What an architecture costs, known before any training: a sum over its leaves.

`flops` is fvcore's total: 1 multiply-add = 1 FLOP, batch of 1, evaluation mode. `macs` is its convolution and
linear part, which papers print as "FLOPs". The arithmetic of each operator is fvcore's own (`conv_flop_count` and
its handles, called with shapes); this file says which operators a leaf runs. Decided here, and registered with
the tracer in `trace_flops` too, so that a trace of the built network equals the sum to the unit:
nearest upsampling in 3D counts 1 per output element, as fvcore counts it in 2D. Not counted, as in fvcore: adding,
multiplying, concatenating, activations, max and average pooling, 3D adaptive pooling, local response
normalisation, dropout, shuffles and selections of channels. Auxiliary heads count in `params` alone. A trace leaves
out a path whose result nothing reads (a Select that takes no low channel); the network runs it, and it counts here.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import comb, prod
from typing import NamedTuple

from torch import nn, zeros

from searchspace import architecture as language
from searchspace.architecture import Architecture, Leaf, Node, Placed, Shape, axes, children
from searchspace.receptive_field import receptive_field

with warnings.catch_warnings():  # fvcore scripts two losses on import, which torch calls deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import batchnorm_flop_jit, conv_flop_count, elementwise_flop_counter, linear_flop_jit


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Exact counts for one input.

    `params` trainable; `activations` elements that convolutions and linear layers put out (an octave map counts
    its low part at its own size); `peak_activations` the most elements one leaf reads and writes together;
    `interactions` sum over convolutions of out * binomial(in / groups, 2), the pairs of inputs that a filter joins
    (Tran et al. 2019, arXiv 1904.02811); `receptive_field` of the last map before a global pooling, per axis.

    Some papers print less: `params_without_bn` leaves out the scales and shifts of norms, `macs_without_classifier`
    the last convolution or linear layer with weights, unless that stands in a branch.
    """

    flops: int
    macs: int
    params: int
    activations: int
    peak_activations: int
    interactions: int
    params_without_bn: int
    macs_without_classifier: int
    architecture: Architecture = field(repr=False, compare=False)

    @cached_property
    def receptive_field(self) -> tuple[int, ...]:
        """Counted when asked for: it takes as long as all the rest."""
        return receptive_field(self.architecture)

    def to_json(self) -> dict[str, int]:
        """Every count, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "architecture"}

    def values(self) -> dict[str, float]:
        """The counts that a sweep records, by name."""
        return {name: float(getattr(self, name)) for name in COUNTS}


COUNTS = ("flops", "macs", "params", "activations", "peak_activations", "interactions")


class LeafCost(NamedTuple):
    flops: int = 0
    macs: int = 0
    params: int = 0
    activations: int = 0
    interactions: int = 0
    norm_params: int = 0


class _Value:
    """Stands for a traced tensor or constant in fvcore's handles."""

    __slots__ = ("shape", "value")

    def __init__(self, shape: tuple[int, ...] | None = None, value: object = None) -> None:
        self.shape, self.value = shape, value

    def isCompleteTensor(self) -> bool:
        return self.shape is not None

    def type(self) -> _Value:
        return self

    def sizes(self) -> tuple[int, ...] | None:
        return self.shape

    def toIValue(self) -> object:
        return self.value


_upsample = elementwise_flop_counter(0, 1)
_adaptive_pool_2d = elementwise_flop_counter(1, 0)


def _norm_flops(shape: tuple[int, ...]) -> int:
    channels = _Value((shape[1],))
    return int(batchnorm_flop_jit([_Value(shape), channels, channels, channels, channels, _Value(value=False)], []))


def _global_pool_flops(shape: Shape) -> int:
    """fvcore counts a 2D adaptive pooling's inputs and knows nothing of a 3D one."""
    if len(shape.space) != 2:
        return 0
    return sum(int(_adaptive_pool_2d([_Value((1, c, *space))], [])) for c, space in _parts(shape))


def _parts(shape: Shape) -> list[tuple[int, tuple[int, ...]]]:
    """(channels, space) of each frequency that is there."""
    if not shape.low:
        return [(shape.channels, shape.space)]
    return [(c, s) for c, s in ((shape.high, shape.space), (shape.low, shape.low_space)) if c]


def _conv_flops(inputs: int, out: int, groups: int, kernel: tuple[int, ...], space: tuple[int, ...]) -> int:
    return int(conv_flop_count((1, inputs), (out, inputs // groups, *kernel), (1, out, *space)))  # type: ignore[arg-type]


def leaf_cost(leaf: Leaf, before: Shape, after: Shape) -> LeafCost:
    """The cost of one leaf between two shapes."""
    n = len(before.space)
    match leaf:
        case language.Conv():
            kernel, stride = axes(leaf.kernel, n), axes(leaf.stride, n)
            upsampled = before.low and after.high and stride[-1] == 1
            from_low = after.low_space if upsampled else after.space  # low to high convolves at the low input's size
            paths = [(before.high, after.high, after.space)]
            if before.low or after.low:
                paths += [
                    (before.low, after.high, from_low),
                    (before.high, after.low, after.low_space),
                    (before.low, after.low, after.low_space),
                ]
            flops = macs = sum(_conv_flops(i, o, leaf.groups, kernel, space) for i, o, space in paths if i and o)
            weights = leaf.out * (before.channels // leaf.groups) * prod(kernel)
            if upsampled:
                flops += int(_upsample([], [_Value((1, after.high, *after.space))]))
            interactions = leaf.out * comb(before.channels // leaf.groups, 2)
            return LeafCost(flops, macs, weights + leaf.bias * leaf.out, after.elements, interactions)
        case language.Depthwise():
            kernel = axes(leaf.kernel, n)
            macs = sum(_conv_flops(c, c, c, kernel, space) for c, space in _parts(after))
            params = before.channels * (prod(kernel) + leaf.bias)
            return LeafCost(macs, macs, params, after.elements)
        case language.Norm():
            scales = 2 * before.channels
            flops = sum(_norm_flops((1, c, *space)) for c, space in _parts(before))
            return LeafCost(flops, params=scales, norm_params=scales)
        case language.Linear():
            macs = int(linear_flop_jit([_Value((1, before.channels)), _Value((leaf.out, before.channels))], []))
            return LeafCost(macs, macs, macs + leaf.bias * leaf.out, leaf.out)
        case language.AdaptivePool():
            return LeafCost(_global_pool_flops(before))
        case language.SqueezeExcite():
            one = (1,) * n
            c, s = before.channels, leaf.squeeze
            macs = _conv_flops(c, s, 1, one, one) + _conv_flops(s, c, 1, one, one)
            return LeafCost(_global_pool_flops(before) + macs, macs, 2 * c * s + s + c, s + c)
        case _:
            return LeafCost()


def cost(architecture: Architecture) -> Cost:
    """The cost of `architecture`, in well under a microsecond for each leaf seen before."""
    course = architecture.course
    counts = [leaf.counts or _counted(leaf) for leaf in course.leaves]
    columns = [*zip(NOTHING, *counts, strict=True)]
    flops, macs, params, activations, interactions, norms, _ = map(sum, columns)
    for leaf in course.auxiliary:  # they count in params alone
        _, _, weights, _, _, scales, _ = leaf.counts or _counted(leaf)
        params += weights
        norms += scales
    last = next((leaf.counts for leaf in reversed(course.leaves) if isinstance(leaf.leaf, WEIGHTED)), None)
    return Cost(
        flops=flops,
        macs=macs,
        params=params,
        activations=activations,
        peak_activations=max(columns[-1]),
        interactions=interactions,
        params_without_bn=params - norms,
        macs_without_classifier=macs - (last[1] if last and not _branched(architecture.body) else 0),
        architecture=architecture,
    )


NOTHING = (*LeafCost(), 0)  # the last: elements read and written
WEIGHTED = (language.Conv, language.Linear)


def _counted(leaf: Placed) -> tuple[int, ...]:
    """The counts of a leaf, kept with it."""
    elements = leaf.before.elements + leaf.after.elements
    leaf.counts = (*leaf_cost(leaf.leaf, leaf.before, leaf.after), elements)
    return leaf.counts


def _branched(node: Node) -> bool | None:
    """Whether the last weighted leaf below `node` stands in a branch; None where there is none."""
    if isinstance(node, Leaf):
        return False if isinstance(node, WEIGHTED) else None
    if isinstance(node, language.Tap):
        return None
    found = next((b for child in reversed(children(node)) if (b := _branched(child)) is not None), None)
    return found if found is None else found or not isinstance(node, language.Chain)


def trace_flops(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """fvcore's total from a trace of `network` on one input of (channels, *space), with this file's decisions."""
    training = network.training
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        analysis = FlopCountAnalysis(network.eval(), zeros((1, *input_shape)))
        analysis.set_op_handle("aten::upsample_nearest3d", _upsample)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        with warnings.catch_warnings():  # torch.jit's tracer, which fvcore uses, is deprecated
            warnings.simplefilter("ignore")
            return int(analysis.total())
    finally:
        logger.setLevel(level)
        network.train(training)
