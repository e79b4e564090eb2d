"""Blocks: every one with every option is what it says, trains, and costs what its trace counts."""

from random import Random

import pytest
import torch

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
    Flatten,
    Linear,
    Norm,
    Pool,
    Shape,
    Shuffle,
    SqueezeExcite,
    shape_after,
)
from searchspace.blocks import (
    BLOCKS,
    bottleneck,
    depthwise_separable,
    factorized,
    fire,
    inverted_residual,
    low_width,
    plain,
    residual,
    shuffle_unit,
    whole_width,
)
from searchspace.cost import cost, trace_flops
from searchspace.network import build

SPACES = [(8, 7), (3, 8, 7)]


def classifier(*body, input):
    return Architecture(input, Chain((*body, AdaptivePool(), Flatten(), Linear(3))))


def options(rng: Random, block) -> dict[str, object]:
    given = {
        "out": rng.choice((16, 24, 48)),
        "stride": rng.choice((1, 2)),
        "kernel": rng.choice((1, 3, 5, 7)),
        "groups": rng.choice((1, 1, 2, 4)),
        "shuffle": rng.random() < 0.5,
        "alpha": rng.choice((0.0, 0.25, 0.5, 1.0)),
        "factorization": rng.choice(("none", "stacked", "asymmetric")),
        "dilation": rng.choice((1, 1, 2)),
        "squeeze_excite": rng.choice((0.0, 0.25)),
        "activation": rng.choice(("relu", "hardswish", "silu")),
    }
    if block in ("bottleneck", "inverted_residual", "shuffle_unit"):
        given["expansion"] = rng.choice((1.0, 2.0, 4.0))
    if block == "fire":
        given["squeeze"] = rng.choice((0.125, 0.5))
    return given


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_with_every_option_trains_and_costs_what_its_trace_counts(block, space):
    rng, built = Random(f"{block}{space}"), 0
    while built < 12:
        chosen = options(rng, block)
        into = Shape(16, space, rng.choice((0, 4, 16)))
        try:
            first = BLOCKS[block](into, **chosen)
            after = shape_after(first, into)
            second = BLOCKS[block](after, **{**chosen, "stride": 1})
            a = classifier(Conv(16, low=into.low), first, second, input=(2, *space))
        except ArchitectureError:
            continue
        assert after.channels == chosen["out"]
        assert after.space == tuple(-(-n // chosen["stride"]) for n in space)
        assert shape_after(second, after) == after
        network = build(a, 0)
        network(torch.randn(2, *a.input)).sum().backward()
        assert all(p.grad is not None for p in network.parameters())
        assert cost(a).flops == trace_flops(network, a.input), str(a)
        built += 1


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_alpha_is_the_low_share_of_what_a_block_puts_out(block, alpha, space):
    into = Shape(16, space, int(alpha * 16))
    for out, stride in ((32, 2), (64, 1)):
        after = shape_after(BLOCKS[block](into, out=out, stride=stride, alpha=alpha), into)
        assert (after.channels, after.low) == (out, int(alpha * out))


def test_plain_is_a_convolution_a_norm_and_an_activation():
    want = Chain((Conv(24, 3, 2, groups=2), Norm(), Activation(), Shuffle(2), SqueezeExcite(6)))
    assert plain(Shape(16, (8, 8)), out=24, stride=2, groups=2, shuffle=True, squeeze_excite=0.25) == want


@pytest.mark.parametrize(("out", "stride", "projected"), [(16, 1, False), (24, 1, True), (16, 2, True)])
def test_a_residual_block_projects_only_where_it_must(out, stride, projected):
    branch = Chain((Conv(out, 3, stride), Norm(), Activation(), Conv(out, 3), Norm()))
    shortcut = Chain((Conv(out, 1, stride), Norm())) if projected else Chain()
    want = Chain((Add((branch, shortcut)), Activation()))
    assert residual(Shape(16, (8, 8)), out=out, stride=stride) == want


def test_a_factorized_residual_block_has_its_own_activation_everywhere():
    block = residual(Shape(16, (8, 8)), out=16, kernel=5, factorization="stacked", activation="silu")
    branch = Chain(
        (Conv(16, 3), Norm(), Activation("silu")) * 3 + (Conv(16, 3), Norm()),
    )
    assert block == Chain((Add((branch, Chain())), Activation("silu")))


def test_a_bottleneck_strides_and_groups_on_its_middle_convolution():
    branch = Chain(
        (
            *(Conv(16), Norm(), Activation()),
            *(Conv(16, 3, 2, groups=4), Norm(), Activation()),
            *(Conv(64), Norm()),
        )
    )
    want = Chain((Add((branch, Chain((Conv(64, 1, 2), Norm())))), Activation()))
    assert bottleneck(Shape(32, (8, 8)), out=64, stride=2, groups=4) == want


def test_an_inverted_residual_ends_linear_and_adds_where_shapes_allow():
    def branch(out, stride):
        return Chain(
            (
                *(Conv(96), Norm(), Activation("relu6")),
                *(Depthwise(3, stride), Norm(), Activation("relu6")),
                *(Conv(out), Norm()),
            )
        )

    assert inverted_residual(Shape(16, (8, 8)), out=16) == Chain((Add((branch(16, 1), Chain())),))
    assert inverted_residual(Shape(16, (8, 8)), out=16, stride=2) == Chain((branch(16, 2),))
    flat = inverted_residual(Shape(16, (8, 8)), out=24, expansion=1)
    assert flat == Chain((Chain((Depthwise(3), Norm(), Activation("relu6"), Conv(24), Norm())),))


def test_a_depthwise_separable_block_is_depthwise_then_pointwise():
    want = Chain((Depthwise(5, 2), Norm(), Activation(), Conv(24), Norm(), Activation()))
    assert depthwise_separable(Shape(16, (8, 8)), out=24, kernel=5, stride=2) == want


def test_a_fire_block_squeezes_then_expands_both_ways():
    wide = [Chain((Conv(16, k), Norm(), Activation())) for k in (1, 3)]
    want = Chain((Pool("max", 3, 2), Conv(4), Norm(), Activation(), Concat(tuple(wide))))
    assert fire(Shape(16, (8, 8)), out=32, stride=2) == want


def test_a_shuffle_unit_adds_or_makes_the_rest_beside_its_pooled_input():
    def branch(out, stride):
        return Chain(
            (
                *(Conv(12, groups=3), Norm(), Activation(), Shuffle(3)),
                *(Depthwise(3, stride), Norm()),
                *(Conv(out, groups=3), Norm()),
            )
        )

    strided = shuffle_unit(Shape(24, (8, 8)), out=48, stride=2, groups=3)
    assert strided == Chain((Concat((Chain((Pool("average", 3, 2),)), branch(24, 2))), Activation()))
    same = shuffle_unit(Shape(48, (8, 8)), out=48, groups=3)
    assert same == Chain((Add((branch(48, 1), Chain())), Activation()))


@pytest.mark.parametrize(
    ("kernel", "dims", "kind", "want"),
    [
        (3, 2, "none", [3]),
        (3, 2, "stacked", [3]),
        (5, 2, "stacked", [3, 3]),
        (7, 2, "stacked", [3, 3, 3]),
        ((3, 5), 2, "stacked", [(3, 3), (1, 3)]),
        ((1, 5, 5), 3, "stacked", [(1, 3, 3), (1, 3, 3)]),
        (5, 3, "stacked", [3, 3]),
        (1, 2, "asymmetric", [1]),
        (3, 2, "asymmetric", [(1, 3), (3, 1)]),
        ((3, 7), 2, "asymmetric", [(1, 7), (3, 1)]),
        ((3, 1), 2, "asymmetric", [(3, 1)]),
        (3, 3, "asymmetric", [(3, 1, 3), (1, 3, 1)]),
    ],
)
def test_the_kernels_of_a_factorization(kernel, dims, kind, want):
    got = [Conv(8, k) for k, _ in factorized(kernel, 1, dims, kind, False)]
    assert got == [Conv(8, k) for k in want]


@pytest.mark.parametrize("octave", [False, True])
@pytest.mark.parametrize("kind", ["stacked", "asymmetric"])
@pytest.mark.parametrize(("kernel", "stride", "space"), [(5, 2, (9, 7)), (7, 2, (8, 8)), (5, 2, (5, 9, 7))])
def test_factors_stride_and_reach_as_the_whole(kernel, stride, space, kind, octave):
    from searchspace.receptive_field import receptive_field

    low = 4 if octave else 0
    whole = Chain((Conv(8, kernel, stride, low=low),))
    parts = Chain(tuple(Conv(8, k, s, low=low) for k, s in factorized(kernel, stride, len(space), kind, octave)))
    one, several = (Architecture((2, *space), chain) for chain in (whole, parts))
    assert one.output == several.output
    if not octave and kind == "asymmetric":
        assert receptive_field(one) == receptive_field(several)


def test_widths_round_to_whole_groups():
    assert [whole_width(w, g) for w, g in ((10, 4), (11, 4), (1, 4), (12.4, 1))] == [8, 12, 4, 12]
    assert [low_width(a, 30, g) for a, g in ((0.25, 1), (0.25, 4), (0.5, 4), (1, 5), (0, 3))] == [7, 4, 12, 30, 0]


@pytest.mark.parametrize(
    ("block", "given", "rule"),
    [
        (plain, {"alpha": 1.5}, r"`alpha` must be in \[0, 1\], but got 1.5"),
        (plain, {"kernel": 4}, "`kernel` of a block must be odd, but got 4"),
        (
            plain,
            {"factorization": "split"},
            "`factorization` must be one of none, stacked, asymmetric, but got 'split'",
        ),
        (plain, {"squeeze_excite": 2}, r"`squeeze_excite` must be in \[0, 1\], but got 2"),
        (plain, {"activation": "swish"}, "`kind` of Activation must be one of"),
        (fire, {"out": 25}, "`out` of a fire block must be even, but got 25"),
        (shuffle_unit, {"out": 8, "stride": 2}, "must widen, in both frequencies, but got"),
    ],
)
def test_a_block_says_what_it_cannot_be(block, given, rule):
    with pytest.raises(ArchitectureError, match=rule):
        block(Shape(16, (8, 8)), **{"out": 24, **given})
