"""Random legal architectures of every leaf and join, in 2D and 3D, for Hypothesis and for plain loops."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from hypothesis import strategies as st

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Architecture,
    ArchitectureError,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Dropout,
    Flatten,
    Leaf,
    Linear,
    LocalNorm,
    Node,
    Norm,
    Pool,
    Select,
    Shape,
    Shuffle,
    SqueezeExcite,
    Tap,
    shape_after,
)
from searchspace.leaves import ACTIVATIONS

WIDTHS = (1, 2, 3, 4, 6, 8, 9, 12)
LABELS = ("", "", "spatial", "reduce", "stage1")


def random_shape(rng: Random, dims: int | None = None, octave: bool = True, most: int = 11) -> Shape:
    """A map, odd and tiny sizes included; with `octave`, half the time some or all of its channels are low."""
    dims = dims or rng.choice((2, 3))
    channels = rng.choice(WIDTHS)
    low = rng.choice((0, channels, channels // 2, channels // 3)) if octave and rng.random() < 0.6 else 0
    return Shape(channels, tuple(rng.randint(1, most if i else 5) for i in range(3 - dims, 3)), low)


def _axes(rng: Random, dims: int, values: tuple[int, ...]) -> int | tuple[int, ...]:
    """One value, or one per axis with the two image axes mostly alike."""
    if rng.random() < 0.6:
        return rng.choice(values)
    image = rng.choice(values)
    last = image if rng.random() < 0.6 else rng.choice(values)
    return (*(rng.choice(values) for _ in range(dims - 2)), image, last)


def _window(rng: Random, dims: int) -> dict[str, object]:
    fields: dict[str, object] = {
        "kernel": _axes(rng, dims, (1, 2, 3, 3, 5)),
        "stride": _axes(rng, dims, (1, 1, 1, 2, 3)),
    }
    if rng.random() < 0.2:
        fields["padding"] = _axes(rng, dims, (0, 1, 2))
    return fields


def _conv(rng: Random, shape: Shape) -> Leaf:
    out, dims = rng.choice(WIDTHS), len(shape.space)
    low = rng.choice((0, out, out // 2, out // 3)) if rng.random() < 0.4 else 0
    groups = rng.choice((1, 1, 2, 3))
    fields = _window(rng, dims) | {"dilation": _axes(rng, dims, (1, 1, 1, 2, 3)), "bias": rng.random() < 0.4}
    return Conv(out, groups=groups, low=low, **fields)


def _select(rng: Random, shape: Shape) -> Leaf:
    """At least one channel of each frequency: the tracer leaves out work whose result nothing reads."""
    channels = [rng.randrange(shape.channels) for _ in range(rng.randint(1, shape.channels))]
    channels += [0, shape.channels - 1] if 0 < shape.low < shape.channels else []
    return Select(tuple(sorted(channels, key=lambda c: c >= shape.high)))


LEAVES: dict[str, Callable[[Random, Shape], Leaf]] = {
    "conv": _conv,
    "depthwise": lambda rng, shape: Depthwise(
        dilation=_axes(rng, len(shape.space), (1, 1, 2)), bias=rng.random() < 0.4, **_window(rng, len(shape.space))
    ),
    "norm": lambda rng, shape: Norm(rng.choice((1e-5, 1e-3))),
    "local_norm": lambda rng, shape: LocalNorm(rng.randint(1, 5), rng.choice((1e-4, 1.0))),
    "activation": lambda rng, shape: Activation(rng.choice(ACTIVATIONS)),
    "dropout": lambda rng, shape: Dropout(rng.choice((0.0, 0.25, 0.5))),
    "pool": lambda rng, shape: Pool(
        rng.choice(("max", "average")), ceil=rng.random() < 0.5, **_window(rng, len(shape.space))
    ),
    "adaptive_pool": lambda rng, shape: AdaptivePool(1 if shape.low else _axes(rng, len(shape.space), (1, 2, 5))),
    "shuffle": lambda rng, shape: Shuffle(rng.choice((2, 3))),
    "squeeze_excite": lambda rng, shape: SqueezeExcite(rng.randint(1, 4), "silu", "hardsigmoid"),
    "select": _select,
}


def random_leaf(rng: Random, shape: Shape, kinds: tuple[str, ...] = tuple(LEAVES)) -> Leaf | None:
    """A leaf of one of `kinds` that is legal on `shape`; None where a number of draws gives none."""
    for _ in range(20):
        leaf = LEAVES[rng.choice(kinds)](rng, shape)
        if shape_after_or_none(leaf, shape) is not None:
            return leaf
    return None


def random_site(rng: Random, kinds: tuple[str, ...] = tuple(LEAVES), dims: int | None = None) -> tuple[Leaf, Shape]:
    """A leaf of one of `kinds` on a shape it can read."""
    for _ in range(1000):
        shape = random_shape(rng, dims)
        leaf = random_leaf(rng, shape, kinds)
        if leaf is not None:
            return leaf, shape
    raise AssertionError(f"no legal leaf of {kinds} in 1,000 shapes")


def _join(rng: Random, shape: Shape, depth: int) -> Node:
    """An Add (of a branch and what is like it) or a Concat (of branches of one space)."""
    branch = _chain(rng, shape, depth - 1)
    after = shape_after(branch, shape)
    same_space = Conv(after.channels, 1, low=after.low)
    if after == shape:
        other: Node = Chain()
    elif shape_after_or_none(same_space, shape) == after:
        other = rng.choice((same_space, Chain((same_space, Norm()))))
    else:
        other = branch
    if rng.random() < 0.5:
        return Add((branch, other))
    return Concat((branch, other, branch)[: rng.randint(1, 3)])


def shape_after_or_none(node: Node, shape: Shape) -> Shape | None:
    try:
        return shape_after(node, shape)
    except ArchitectureError:
        return None


def _chain(rng: Random, shape: Shape, depth: int) -> Chain:
    items: list[Node] = []
    for _ in range(rng.randint(0, 4)):
        leaf = random_leaf(rng, shape) or Activation()
        node = leaf if depth <= 0 or rng.random() < 0.7 else _join(rng, shape, depth)
        items.append(replace(node, label=rng.choice(LABELS)))
        shape = shape_after(node, shape)
    return Chain(tuple(items), label=rng.choice(LABELS))


def _head(classes: int) -> Chain:
    return Chain((AdaptivePool(), Flatten(), Linear(classes, label="classifier")), label="head")


def random_architecture(rng: Random, dims: int | None = None) -> Architecture:
    """A classifier of 3 classes: chains and joins, sometimes auxiliary heads, then pooling and a linear layer."""
    start = random_shape(rng, dims, octave=False, most=13)
    shape, body = start, []
    for _ in range(rng.randint(1, 3)):
        part = _chain(rng, shape, 2)
        body.append(part)
        shape = shape_after(part, shape)
        if rng.random() < 0.2:
            body.append(Tap(_head(3), weight=0.4))
    return Architecture((start.channels, *start.space), Chain((*body, _head(3))))


def architectures(dims: int | None = None) -> st.SearchStrategy[Architecture]:
    """Random legal architectures of every leaf and join."""
    return st.randoms(use_true_random=False).map(lambda rng: random_architecture(rng, dims))
