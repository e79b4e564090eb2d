"""Leaves: shapes as torch makes them, spelling, and each rule with what it says."""

from random import Random

import pytest
import torch
from strategies import LEAVES, random_site

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    ArchitectureError,
    Chain,
    Conv,
    Depthwise,
    Dropout,
    Flatten,
    Linear,
    LocalNorm,
    Norm,
    Pool,
    Select,
    Shape,
    Shuffle,
    SqueezeExcite,
    Tap,
)
from searchspace.leaves import halved, same
from searchspace.network import leaf_module

IMAGE, CLIP = Shape(8, (9, 7)), Shape(8, (5, 9, 7))
OCTAVE = Shape(8, (9, 7), low=4)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", LEAVES)
def test_a_leaf_makes_the_shape_that_torch_makes(kind, seed):
    rng = Random(f"{kind}{seed}")
    for _ in range(8):
        leaf, before = random_site(rng, (kind,))
        after = leaf.after(before)
        parts = [
            torch.randn(2, c, *s) if c else None
            for c, s in ((before.high, before.space), (before.low, before.low_space))
        ]
        x = tuple(parts) if before.low else parts[0]
        y = leaf_module(leaf, before, after).eval()(x)
        high, low = y if isinstance(y, tuple) else (y, None)
        got = [None if part is None else tuple(part.shape) for part in (high, low)]
        want = [(2, after.high, *after.space) if after.high else None]
        want += [(2, after.low, *after.low_space) if after.low else None]
        assert got == want, (leaf, before)


def test_the_last_two_axes_halve_rounded_up_and_time_stays():
    assert halved((9, 7)) == (5, 4)
    assert halved((5, 9, 1)) == (5, 5, 1)
    assert Shape(8, (5, 9, 7), low=2).elements == 6 * 5 * 9 * 7 + 2 * 5 * 5 * 4
    assert str(Shape(8, (9, 7), low=2)) == "8x9x7 (2 low)"


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (8, 8), (1, 1, 1), (3, 8, 5)])
def test_same_keeps_the_size_of_an_odd_kernel(kernel, dilation, size):
    assert Conv(4, kernel, dilation=dilation).after(Shape(3, size)) == Shape(4, size)
    assert Depthwise(kernel, dilation=dilation).after(Shape(3, size)) == Shape(3, size)


def test_one_network_has_one_spelling():
    assert Conv(8, (3, 3)) == Conv(8, 3, padding=1) == Conv(8, [3, 3], (1, 1), padding=(1, 1)) == Conv(8, 3)
    assert Conv(8, 3, padding=1).padding == "same"
    assert Conv(8, (1, 3), padding=(0, 1)).padding == "same"
    assert Conv(8, (1, 3, 3), padding=(0, 2, 2), dilation=(1, 2, 2)) == Conv(8, (1, 3, 3), dilation=(1, 2, 2))
    assert Depthwise(5, padding=2) == Depthwise(5)
    assert Pool("max", 3, 2, padding=1) == Pool() == Pool("max", (3, 3), (2, 2))
    assert Pool("max", 2, 2, padding=0) == Pool("max", 2, 2)
    assert Dropout(0) == Dropout(0.0)
    assert type(Dropout(0).p) is float
    assert Conv(8, 3, padding=0) != Conv(8, 3)
    assert same(5, 3) == 6


def test_labels_take_no_part_in_equality_or_hash():
    assert Conv(8, 3, label="spatial") == Conv(8, 3)
    assert hash(Conv(8, 3, label="spatial")) == hash(Conv(8, 3))


def test_a_whole_octave_map_may_be_low():
    assert Conv(8, 3, low=8).after(IMAGE) == Shape(8, (9, 7), low=8)
    assert Conv(8, 3, 2, low=4).after(Shape(8, (9, 7), low=8)) == Shape(8, (5, 4), low=4)
    assert AdaptivePool().after(Shape(8, (9, 7), low=8)) == Shape(8, (1, 1))


def test_adaptive_pooling_may_enlarge_a_map():
    assert AdaptivePool(4).after(Shape(8, (2, 3))) == Shape(8, (4, 4))
    assert AdaptivePool((1, 4, 4)).after(Shape(8, (3, 2, 9))) == Shape(8, (1, 4, 4))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Conv(0), "`out` of Conv must be a whole number >= 1, but got 0"),
        (lambda: Conv(2.0), "`out` of Conv must be a whole number >= 1, but got 2.0"),
        (lambda: Conv(True), "`out` of Conv must be a whole number >= 1, but got True"),
        (lambda: Conv(8, 0), "`kernel` of Conv must be a whole number >= 1, or two or three"),
        (lambda: Conv(8, (3,)), r"`kernel` of Conv .* got \(3,\)"),
        (lambda: Conv(8, (3, 3, 3, 3)), "`kernel` of Conv"),
        (lambda: Conv(8, "3"), "`kernel` of Conv"),
        (lambda: Conv(8, 3, 0), "`stride` of Conv"),
        (lambda: Conv(8, 3, dilation=0), "`dilation` of Conv"),
        (lambda: Conv(8, 3, padding=-1), "`padding` of Conv must be a whole number >= 0"),
        (lambda: Conv(8, 3, padding="valid"), "`padding` of Conv"),
        (lambda: Conv(8, (1, 3, 3), padding=(1, 0)), "A field per axis needs 3 values"),
        (lambda: Conv(8, groups=0), "`groups` of Conv"),
        (lambda: Conv(8, bias=1), "`bias` of Conv must be True or False, but got 1"),
        (lambda: Conv(8, low=-1), "`low` of Conv must be a whole number >= 0"),
        (lambda: Conv(8, low=9), r"`low` must be at most `out`, but got \(low=9, out=8\)"),
        (lambda: Depthwise(0), "`kernel` of Depthwise"),
        (lambda: Depthwise(bias="no"), "`bias` of Depthwise must be True or False"),
        (lambda: Norm(-1.0), r"`eps` of Norm must be in \[0.0, 1.0\], but got -1.0"),
        (lambda: Norm(float("nan")), "`eps` of Norm must be in"),
        (lambda: Norm(10**400), "`eps` of Norm must be in"),
        (lambda: LocalNorm(0), "`size` of LocalNorm"),
        (lambda: LocalNorm(k=-1.0), "`k` of LocalNorm"),
        (lambda: Activation("swish"), "`kind` of Activation must be one of relu, relu6, .* got 'swish'"),
        (lambda: Dropout(1.5), "`p` of Dropout must be in"),
        (lambda: Pool("mean"), "`kind` of Pool must be one of max, average, but got 'mean'"),
        (lambda: Pool(ceil=1), "`ceil` of Pool must be True or False"),
        (lambda: Pool("max", 3, 2, padding="valid"), "`padding` of Pool"),
        (lambda: AdaptivePool(0), "`size` of AdaptivePool"),
        (lambda: Linear(0), "`out` of Linear"),
        (lambda: Linear(3, bias=None), "`bias` of Linear must be True or False"),
        (lambda: Shuffle(1), "`groups` of Shuffle must be a whole number >= 2"),
        (lambda: SqueezeExcite(0), "`squeeze` of SqueezeExcite"),
        (lambda: SqueezeExcite(2, gate="softmax"), "`gate` of SqueezeExcite"),
        (lambda: Select(()), "`channels` of Select must be whole numbers >= 0, at least one"),
        (lambda: Select((0, -1)), "`channels` of Select"),
        (lambda: Select(3), "`channels` of Select must be a list of channels, but got 3"),
        (lambda: Tap(Norm(), weight=-1.0), "`weight` of Tap must be in"),
        (lambda: Tap("head"), "`head` of Tap must be a leaf or a join"),
        (lambda: Chain((Norm(), "relu")), "`items` of Chain must hold leaves and joins, but got 'relu'"),
        (lambda: Chain(Norm()), "`items` of Chain must be a tuple of nodes, but got Norm"),
    ],
)
def test_an_illegal_field_is_refused_with_its_rule(make, rule):
    with pytest.raises(ArchitectureError, match=rule):
        make()


@pytest.mark.parametrize(
    ("leaf", "shape", "rule"),
    [
        (Conv(8), Shape(8, ()), "Conv needs a map with 2 or 3 axes, but got shape 8"),
        (Norm(), Shape(8, ()), "Norm needs a map"),
        (Shuffle(2), Shape(8, ()), "Shuffle needs a map"),
        (Conv(8, (1, 3, 3)), IMAGE, r"A field per axis needs 2 values on a map with 2 axes, but got \(1, 3, 3\)"),
        (Conv(8, (1, 3)), CLIP, "A field per axis needs 3 values"),
        (Conv(9, groups=3), IMAGE, r"`groups` must divide the input channels, but got \(width=8, groups=3\)"),
        (Conv(9, groups=3), Shape(9, (9, 7), 1), r"`groups` must divide the input channels, but got \(width=8"),
        (Conv(6, groups=2), Shape(6, (9, 7), 2), None),
        (Conv(6, groups=2), Shape(5, (9, 7), 1), r"divide the low input channels, but got \(width=1, groups=2\)"),
        (Conv(9, groups=2), IMAGE, r"`groups` must divide `out`, but got \(width=9, groups=2\)"),
        (Conv(8, groups=2, low=3), IMAGE, r"`groups` must divide `out`, but got \(width=5"),
        (Conv(9, groups=2, low=3), IMAGE, r"`groups` must divide `low`, but got \(width=3"),
        (Conv(8, 11, padding=0), IMAGE, r"window must fit the padded map, but got kernel 11 .* on size 9"),
        (Conv(8, 5, padding=0, dilation=3), IMAGE, "window must fit"),
        (Conv(8, 3, 4), OCTAVE, r"image stride must be 1 or 2 on both axes, but got \(4, 4\)"),
        (Conv(8, 3, (1, 2), low=4), IMAGE, r"image stride must be 1 or 2 on both axes, but got \(1, 2\)"),
        (Conv(8, 2, low=4), IMAGE, r"needs odd kernels and padding 'same', but got \(kernel=\(2, 2\)"),
        (Conv(8, 3, padding=0), OCTAVE, r"needs odd kernels and padding 'same'.*padding=\(0, 0\)"),
        (Depthwise(2), OCTAVE, "needs odd kernels and padding 'same'"),
        (Pool("max", 12, 1, padding=0), IMAGE, "window must fit the padded map"),
        (Pool("max", 3, 2, padding=2), IMAGE, "padding must be at most half its kernel"),
        (Pool("max", 3, 3, padding=0), Shape(8, (6, 6), 4), None),
        (Pool("max", 5, 1, padding=0), OCTAVE, "keep the low map at half the high one|window must fit"),
        (AdaptivePool(2), OCTAVE, "Adaptive pooling of an octave map must be to size 1, but got size 2"),
        (AdaptivePool((1, 2, 2)), IMAGE, "A field per axis needs 2 values"),
        (Flatten(), OCTAVE, "Flatten needs one resolution: pool to size 1 before it"),
        (Linear(3), IMAGE, "Linear needs a vector: put Flatten before it"),
        (Shuffle(3), IMAGE, r"shuffle's `groups` must divide the channels, but got \(width=8, groups=3\)"),
        (Shuffle(4), Shape(8, (9, 7), 2), r"divide the channels, but got \(width=6, groups=4\)"),
        (Select((8,)), IMAGE, "Select needs channels below 8, but got 8"),
        (Select((4, 3)), OCTAVE, r"Select must name high channels \(below 4\) before low ones"),
    ],
)
def test_a_leaf_says_what_it_cannot_read(leaf, shape, rule):
    if rule is None:
        leaf.after(shape)
        return
    with pytest.raises(ArchitectureError, match=rule):
        leaf.after(shape)


def test_an_octave_pool_keeps_low_at_half_by_the_rounding_that_does():
    down = Pool("max", 2, 2)
    assert down.after(Shape(8, (14, 14), 4)) == Shape(8, (7, 7), 4)
    assert down.rounding(Shape(8, (14, 14), 4))
    assert not down.rounding(Shape(8, (14, 14)))
    assert not Pool("max", 3, 2).rounding(Shape(8, (14, 14), 4))
