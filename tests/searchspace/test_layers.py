"""Octave convolution against the formula of its paper, written here by index; shuffle, squeeze-excite, pooling."""

from itertools import product
from random import Random

import pytest
import torch
import torch.nn.functional as F
from strategies import random_shape

from searchspace.architecture import (
    ArchitectureError,
    Concat,
    Conv,
    Depthwise,
    Pool,
    Select,
    Shape,
    Shuffle,
    SqueezeExcite,
)
from searchspace.layers import PaddedAvgPool3d
from searchspace.network import leaf_module

SPACES = [(8, 8), (7, 5), (1, 1), (9, 2), (3, 8, 8), (5, 7, 6), (1, 1, 3)]
ALPHAS = [0.0, 0.25, 0.5, 1.0]


def feature(shape: Shape, seed: int = 0):
    """(high, low) of a random map in float64; None where there are no channels."""
    g = torch.Generator().manual_seed(seed)
    sizes = ((shape.high, shape.space), (shape.low, shape.low_space))
    return tuple(torch.randn(2, c, *s, generator=g, dtype=torch.float64) if c else None for c, s in sizes)


def run(leaf, shape: Shape, pair):
    module = leaf_module(leaf, shape, leaf.after(shape)).double().eval()
    torch.manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        out = module(pair if shape.low else pair[0])
    return module, out if isinstance(out, tuple) else (out, None)


def mean_windows(x, window):
    """Means over windows side by side; those at the border hold what is there."""
    sizes = x.shape[2:]
    out = torch.empty(*x.shape[:2], *(-(-n // w) for n, w in zip(sizes, window)), dtype=x.dtype)
    for place in product(*(range(n) for n in out.shape[2:])):
        cut = tuple(slice(p * w, min((p + 1) * w, n)) for p, w, n in zip(place, window, sizes))
        out[(..., *place)] = x[(..., *cut)].flatten(2).mean(-1)
    return out


def twice(x, space):
    """Every pixel four times: row i of the result is row i // 2."""
    return x[..., torch.arange(space[-2]) // 2, :][..., torch.arange(space[-1]) // 2]


def convolve(x, module, leaf):
    dims = x.dim() - 2
    kernel, dilation = module.weight.shape[2:], (leaf.dilation,) * dims
    padding = [d * (k - 1) // 2 for k, d in zip(kernel, dilation)]
    conv = F.conv2d if dims == 2 else F.conv3d
    groups = module.weight.shape[0] if isinstance(leaf, Depthwise) else leaf.groups
    return conv(x, module.weight, None, 1, padding, dilation, groups)


def assert_equal(got, want):
    for g, w in zip(got, want, strict=True):
        assert (g is None) == (w is None)
        if g is not None:
            torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("alpha_in", "alpha_out"), [p for p in product(ALPHAS, ALPHAS) if p != (0, 0)])
def test_octave_convolution_is_the_papers_formula(alpha_in, alpha_out, space, stride):
    for kernel, dilation, groups, bias in [(3, 1, 1, False), (1, 1, 1, True), (3, 2, 2, True), (5, 1, 4, False)]:
        shape = Shape(16, space, int(alpha_in * 16))
        leaf = Conv(16, kernel, stride, dilation=dilation, groups=groups, bias=bias, low=int(alpha_out * 16))
        high, low = feature(shape)
        module, got = run(leaf, shape, (high, low))
        steps, still = (stride,) * len(space), (*(stride for _ in space[2:]), 1, 1)
        half = (*(1 for _ in space[2:]), 2, 2)
        after = leaf.after(shape)
        to_high, to_low = [], []
        if high is not None:
            high = mean_windows(high, steps)
            to_high += [convolve(high, module.hh, leaf)] if module.hh else []
            to_low += [convolve(mean_windows(high, half), module.hl, leaf)] if module.hl else []
        if low is not None:
            if module.lh:
                from_low = convolve(mean_windows(low, still), module.lh, leaf)
                to_high.append(from_low if stride == 2 else twice(from_low, after.space))
            to_low += [convolve(mean_windows(low, steps), module.ll, leaf)] if module.ll else []
        want = [sum(paths) if paths else None for paths in (to_high, to_low)]
        if bias:
            for i, first in enumerate([(module.hh, module.lh), (module.hl, module.ll)]):
                biases = [m.bias for m in first if m is not None and m.bias is not None]
                assert len(biases) == (want[i] is not None)
                if biases:
                    want[i] = want[i] + biases[0].detach().reshape(-1, *(1 for _ in space))
        assert_equal(got, want)
        present = [m is not None for m in (module.hh, module.hl, module.lh, module.ll)]
        assert present == [bool(i and o) for i in (shape.high, shape.low) for o in (after.high, after.low)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_depthwise_octave_convolution_exchanges_nothing(alpha, space, stride):
    shape = Shape(8, space, int(alpha * 8))
    leaf = Depthwise(3, stride, dilation=2)
    pair = feature(shape)
    module, got = run(leaf, shape, pair)
    steps = (stride,) * len(space)
    want = [
        None if x is None else convolve(mean_windows(x, steps), m, leaf)
        for x, m in zip(pair, (module.high, module.low), strict=True)
    ]
    assert_equal(got, want)


@pytest.mark.parametrize("groups", [2, 3, 6])
@pytest.mark.parametrize("shape", [Shape(12, (4, 3)), Shape(12, (2, 4, 3)), Shape(18, (4, 3), 6), Shape(6, (4, 3), 6)])
def test_a_shuffle_transposes_groups_and_their_channels(groups, shape):
    pair = feature(shape)
    _, got = run(Shuffle(groups), shape, pair)
    for x, y in zip(pair, got, strict=True):
        if x is not None:
            n = x.shape[1] // groups
            for i, j in product(range(groups), range(n)):
                assert torch.equal(y[:, j * groups + i], x[:, i * n + j])


@pytest.mark.parametrize("shape", [Shape(6, (5, 4)), Shape(6, (3, 5, 4)), Shape(6, (5, 4), 2), Shape(6, (5, 4), 6)])
def test_squeeze_excite_scales_by_the_gated_means_of_both_frequencies(shape):
    pair = feature(shape)
    module, got = run(SqueezeExcite(3, "silu", "hardsigmoid"), shape, pair)
    parts = [x for x in pair if x is not None]
    mean = torch.cat([x.flatten(2).mean(-1) for x in parts], 1)
    first, second = (getattr(module, n) for n in ("squeeze", "expand"))
    hidden = F.silu(mean @ first.weight.flatten(1).T + first.bias)
    scale = ((hidden @ second.weight.flatten(1).T + second.bias) / 6 + 0.5).clamp(0, 1)
    scales = (scale[:, : shape.high], scale[:, shape.high :])
    want = [None if x is None else x * s.reshape(2, -1, *(1 for _ in x.shape[2:])) for x, s in zip(pair, scales)]
    assert_equal(got, [None if w is None else w.detach() for w in want])


def test_select_picks_channels_numbered_high_first():
    shape = Shape(6, (5, 4), 2)
    high, low = feature(shape)
    _, got = run(Select((3, 0, 0, 5, 4)), shape, (high, low))
    assert_equal(got, (high[:, [3, 0, 0]], low[:, [1, 0]]))
    _, got = run(Select((5,)), shape, (high, low))
    assert_equal(got, (None, low[:, [1]]))
    _, got = run(Select((1, 2)), shape, (high, low))
    assert_equal(got, (high[:, [1, 2]], None))


def test_octave_branches_join_frequency_by_frequency():
    from searchspace.architecture import Architecture, Chain
    from searchspace.network import build

    body = Chain((Concat((Conv(4, low=4), Conv(3), Conv(6, low=2))),))
    network = build(Architecture((3, 5, 4), body), 0)
    high, low = network(torch.randn(2, 3, 5, 4))
    assert (high.shape, low.shape) == ((2, 7, 5, 4), (2, 6, 3, 2))


def test_a_3d_average_pool_counts_padding_as_torch_does():
    """Where torch takes the window, both agree; where only the padding makes it fit, means are over the zeros too."""
    rng = Random(0)
    for _ in range(300):
        size = [rng.randint(1, 7) for _ in range(3)]
        kernel, stride = [rng.randint(1, 5) for _ in range(3)], [rng.randint(1, 3) for _ in range(3)]
        padding, ceil = [rng.randint(0, k // 2) for k in kernel], rng.random() < 0.5
        if any(n + 2 * p < k for n, p, k in zip(size, padding, kernel)):
            continue
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        got = PaddedAvgPool3d(kernel, stride, padding, ceil_mode=ceil)(x)
        if all(n >= k for n, k in zip(size, kernel)):
            want = F.avg_pool3d(x, kernel, stride, padding, ceil_mode=ceil)
            torch.testing.assert_close(got, want)
        else:
            leaf = Pool("average", tuple(kernel), tuple(stride), tuple(padding), ceil)
            assert tuple(got.shape[2:]) == leaf.after(Shape(3, tuple(size))).space


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_window_may_reach_past_a_map_whose_size_is_rounded_up(kind, dims):
    """As torch has it: one window at the border, its mean over the elements that are there."""
    for size, kernel, stride, fits in ((2, 3, 2, True), (1, 2, 2, True), (1, 3, 2, False), (2, 3, 1, False)):
        shape, leaf = Shape(3, (size,) * dims), Pool(kind, kernel, stride, 0, True)
        x = torch.randn(2, 3, *shape.space, dtype=torch.float64)
        if not fits:
            with pytest.raises(ArchitectureError, match="window must fit"):
                leaf.after(shape)
            continue
        _, (y, _) = run(leaf, shape, (x, None))
        whole = x.flatten(2).amax(2) if kind == "max" else x.flatten(2).mean(2)
        torch.testing.assert_close(y.flatten(1), whole)


def test_a_3d_average_pool_over_one_frame_is_the_2d_one_over_three():
    x = torch.randn(2, 3, 1, 7, 6, dtype=torch.float64)
    _, (y, _) = run(Pool("average", 3, 2), Shape(3, (1, 7, 6)), (x, None))
    torch.testing.assert_close(y[:, :, 0], F.avg_pool2d(x[:, :, 0], 3, 2, 1) / 3)


@pytest.mark.parametrize("seed", range(20))
def test_pools_work_on_each_frequency(seed):
    rng = Random(seed)
    shape = random_shape(rng)
    kind = rng.choice(("max", "average"))
    _, got = run(Pool(kind, 3, 1), shape, feature(shape))
    for x, y in zip(feature(shape), got, strict=True):
        if x is not None and shape.low:
            _, (alone, _) = run(Pool(kind, 3, 1), Shape(x.shape[1], tuple(x.shape[2:])), (x, None))
            assert torch.equal(y, alone)
