"""The receptive field against gradients: which inputs move one element of a network with positive weights."""

from itertools import product
from random import Random

import pytest
import torch

from searchspace.architecture import (
    AdaptivePool,
    Add,
    Architecture,
    ArchitectureError,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Flatten,
    Linear,
    Pool,
    Select,
    Shape,
    Tap,
    shape_after,
)
from searchspace.cost import cost
from searchspace.layers import split
from searchspace.network import build
from searchspace.receptive_field import receptive_field


def chain(rng: Random, shape: Shape, length: int, octave: bool):
    """Convolutions, depthwise ones and pools, with joins of two such chains where they fit."""
    items = []
    for _ in range(length):
        kernel = rng.choice((1, 3, 3, 5)) if octave else rng.choice((1, 2, 3, 3, (1, 3, 5)[-len(shape.space) :]))
        stride, dilation = rng.choice((1, 1, 2) if octave else (1, 1, 2, 3)), rng.choice((1, 1, 2))
        low = rng.choice((0, 0, 2, 4)) if octave else 0
        leaf = rng.choice(
            (
                Conv(4, kernel, stride, dilation=dilation, low=low),
                Conv(4, kernel, stride, low=low),
                Depthwise(kernel, stride, dilation=dilation),
                Pool("average", kernel, stride, ceil=rng.random() < 0.5),
                Add((Chain((Conv(4, 3, low=low), Conv(4, kernel if octave else 3, low=low))), Conv(4, low=low))),
                Concat((Conv(2, low=low // 2), Conv(2, 3, low=low // 2))),
            )
        )
        try:
            shape = shape_after(leaf, shape)
            items.append(leaf)
        except ArchitectureError:
            continue
    return Chain(tuple(items))


def reach(a: Architecture) -> tuple[int, ...]:
    """The widest gradient support, per axis, of elements in the middle of the last map."""
    network = build(a, 0).double().eval()
    for parameter in network.parameters():
        parameter.data = parameter.data.abs() + 0.1
    x = torch.ones(1, *a.input, dtype=torch.double, requires_grad=True)
    widest = [0] * (len(a.input) - 1)
    for y in split(network(x)):
        if y is None:
            continue
        for place in product(*(range(max(0, n // 2 - 1), min(n, n // 2 + 1)) for n in y.shape[2:])):
            (gradient,) = torch.autograd.grad(y[(0, slice(None), *place)].sum(), x, retain_graph=True)
            moved = gradient[0].abs().sum(0).nonzero()
            for axis in range(moved.shape[1]):
                widest[axis] = max(widest[axis], int(moved[:, axis].max() - moved[:, axis].min()) + 1)
    return tuple(widest)


@pytest.mark.parametrize("octave", [False, True])
@pytest.mark.parametrize("space", [(65, 65), (19, 33, 33)])
def test_the_receptive_field_is_the_support_of_gradients(space, octave):
    rng, compared = Random(f"{space}{octave}"), 0
    while compared < (25 if len(space) == 2 else 10):
        start = Shape(2, space)
        a = Architecture((2, *space), chain(rng, start, rng.randint(1, 4), octave))
        field = receptive_field(a)
        if all(2 * f <= n for f, n in zip(field, space, strict=True)):
            assert reach(a) == field, str(a)
            compared += 1


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ((), 1),
        ((Conv(4, 3), Conv(4, 3)), 5),
        ((Conv(4, 5),), 5),
        ((Conv(4, 3, dilation=2), Conv(4, 3, dilation=4)), 13),
        ((Conv(4, 3), Conv(4, 3), *(Conv(4, 3, dilation=d) for d in (2, 4, 8, 16, 1)), Conv(4)), 67),
        ((Conv(4, 7, 2), Pool(), Conv(4, 3), Conv(4, 3)), 27),
        ((Add((Conv(3, 3), Chain())), Add((Conv(3, 5), Chain()))), 7),
        ((Conv(4, 3), AdaptivePool(), Flatten(), Linear(3)), 3),
        ((Tap(Chain((Conv(4, 9), AdaptivePool(), Flatten(), Linear(3)))), Conv(4, 3)), 3),
        ((Conv(4, low=2), Select((0, 1)), Conv(4, 3, 2)), 3),
        ((Conv(4, low=2), Select((2, 3))), 2),
    ],
)
def test_the_receptive_field_of_known_networks(items, field):
    a = Architecture((3, 80, 80), Chain(items))
    assert receptive_field(a) == cost(a).receptive_field == (field, field)


def test_axes_are_told_apart():
    a = Architecture((3, 8, 40, 40), Chain((Conv(4, (1, 3, 3), (1, 2, 2)), Conv(4, (3, 1, 5)))))
    assert receptive_field(a) == (3, 3, 11)
