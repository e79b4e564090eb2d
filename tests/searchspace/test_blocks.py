"""Blocks: every one with every option is what it says, trains, and costs what its trace counts."""

from inspect import signature
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
    FACTORIZATIONS,
    REDUCTIONS,
    SEPARATIONS,
    bottleneck,
    dense,
    depthwise_separable,
    factorized,
    fire,
    grid_reduction,
    inception_a,
    inception_b,
    inception_c,
    inverted_residual,
    low_width,
    middle_width,
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


OPTIONS: dict[str, tuple[object, ...]] = {
    "out": (16, 24, 48),
    "stride": (1, 2),
    "kernel": (1, 3, 5, 7),
    "groups": (1, 1, 2, 4),
    "shuffle": (False, True),
    "alpha": (0.0, 0.0, 0.25, 0.5, 1.0),
    "factorization": FACTORIZATIONS,
    "separation": SEPARATIONS,
    "reduction": REDUCTIONS,
    "dilation": (1, 1, 2),
    "squeeze_excite": (0.0, 0.25),
    "activation": ("relu", "hardswish", "silu", "relu6"),
    "pool": ("max", "average"),
    "bias": (False, True),
    "shortcut": (False, True),
    "stride_in": ("spatial", "reduce"),
    "expansion": (1.0, 2.0, 4.0),
    "squeeze": (0.125, 0.5),
    "layers": (1, 2, 4),
}


def options(rng: Random, block) -> dict[str, object]:
    """A value of every option that the block takes."""
    taken = [p.name for p in signature(BLOCKS[block]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {name: rng.choice(OPTIONS[name]) for name in taken}


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
        again = shape_after(second, after)
        assert (again.channels, again.space) == (after.channels, after.space)
        assert again.low == after.low or block == "dense"  # its low part is a sum of rounded parts
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


def test_a_shortcut_switched_off_leaves_the_branch_alone():
    into = Shape(16, (8, 8))
    for block in (residual, bottleneck):
        (join, act), (branch, after) = block(into, out=16).items, block(into, out=16, shortcut=False).items
        assert (branch, after) == (join.branches[0], act)
    assert inverted_residual(into, out=16, shortcut=False) == Chain(
        (inverted_residual(into, out=16).items[0].branches[0],)
    )


def test_a_separated_bottleneck_keeps_or_drops_the_interactions_of_its_spatial_convolution():
    into = Shape(64, (4, 8, 8))
    counts = {}
    for kind in SEPARATIONS:
        body = bottleneck(into, out=64, separation=kind)
        counts[kind] = cost(classifier(body, input=(64, 4, 8, 8))).interactions
    assert counts["preserved"] == counts["none"]
    assert counts["none"] - counts["reduced"] == 16 * 16 * 15 // 2


def test_a_separated_residual_block_widens_through_its_pointwise_convolution():
    def point(kernel_stride):
        return (Conv(32), Norm(), Depthwise(3, kernel_stride), Norm())

    reduced = residual(Shape(16, (8, 8)), out=32, stride=2, separation="reduced")
    want = Chain((*point(2), Activation(), Depthwise(3), Norm()))
    assert reduced.items[0].branches[0] == want
    preserved = residual(Shape(16, (8, 8)), out=32, stride=2, separation="preserved")
    assert preserved.items[0].branches[0] == Chain((*point(2), Activation(), *point(1)))


def test_the_three_spatiotemporal_forms_of_p3d():
    into = Shape(16, (4, 8, 8))
    s, t = (Conv(16, (1, 3, 3)), Norm(), Activation()), (Conv(16, (3, 1, 1)), Norm(), Activation())
    assert plain(into, out=16, factorization="p3d_a") == Chain((*s, *t))
    assert plain(into, out=16, factorization="p3d_b") == Chain((Add((Chain(s), Chain(t))),))
    assert plain(into, out=16, factorization="p3d_c") == Chain((*s, Add((Chain(t), Chain()))))


@pytest.mark.parametrize("stride", [1, 2, (1, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["r2plus1d", "p3d_a", "p3d_b", "p3d_c"])
def test_spatiotemporal_forms_make_the_shape_of_the_whole(kind, alpha, stride):
    if alpha and stride == (2, 1, 1):
        stride = (2, 2, 2)
    into = Shape(16, (5, 9, 8), int(alpha * 16))
    given = {"out": 32, "stride": stride, "alpha": alpha}
    assert shape_after(plain(into, **given, factorization=kind), into) == shape_after(plain(into, **given), into)


@pytest.mark.parametrize(("inputs", "out", "groups"), [(64, 64, 1), (64, 128, 1), (48, 96, 4), (5, 7, 1)])
def test_r2plus1d_has_at_most_the_params_of_its_whole(inputs, out, groups):
    """The next middle width would have more."""
    m = middle_width(inputs, out, (3, 3, 3), groups)

    def params(width):
        return (9 * inputs * width + 3 * width * out) // groups

    whole = 27 * inputs * out // groups
    assert params(m) <= whole < params(m + groups)
    body = plain(Shape(inputs, (4, 8, 8)), out=out, groups=groups, factorization="r2plus1d")
    assert [n.out for n in body.items if isinstance(n, Conv)] == [m, out]


def test_inception_modules_are_the_papers_figures():
    into = Shape(32, (8, 8))

    def u(*convs):
        return Chain(tuple(n for c in convs for n in (c, Norm(), Activation())))

    def pooled(kind="average"):
        return Chain((Pool(kind, 3, 1), *u(Conv(8)).items))

    a = Concat((u(Conv(8)), u(Conv(4), Conv(8, 5)), u(Conv(4), Conv(8, 3), Conv(8, 3)), pooled()))
    assert inception_a(into, out=32, squeeze=0.5) == Chain((a,))
    row, column = (lambda w, n: Conv(w, (1, n))), (lambda w, n: Conv(w, (n, 1)))
    b = Concat(
        (
            u(Conv(8)),
            u(Conv(4), row(8, 5), column(8, 5)),
            u(Conv(4), row(4, 5), column(4, 5), row(8, 5), column(8, 5)),
            pooled("max"),
        )
    )
    assert inception_b(into, out=32, squeeze=0.5, kernel=5, pool="max") == Chain((b,))
    split = Concat((u(row(4, 3)), u(column(4, 3))))
    c = Concat(
        (
            u(Conv(8)),
            Chain((*u(Conv(8)).items, split)),
            Chain((*u(Conv(8), Conv(8, 3)).items, split)),
            pooled(),
        )
    )
    assert inception_c(into, out=32) == Chain((c,))


@pytest.mark.parametrize("block", [inception_a, inception_b, inception_c])
@pytest.mark.parametrize("form", REDUCTIONS)
def test_a_strided_inception_module_is_a_grid_reduction_and_a_module(block, form):
    into = Shape(16, (9, 8))
    reduction = grid_reduction(into, out=32, reduction=form)
    after = shape_after(reduction, into)
    assert block(into, out=32, stride=2, reduction=form) == Chain((reduction, *block(after, out=32).items))


def test_the_three_forms_of_grid_reduction():
    into = Shape(16, (8, 8))
    conv = (Conv(32, 3), Norm(), Activation())
    assert grid_reduction(into, out=32, reduction="conv_pool") == Chain((*conv, Pool("max", 3, 2)))
    assert grid_reduction(into, out=32, reduction="pool_conv") == Chain((Pool("max", 3, 2), *conv))
    strided = Chain((Conv(16, 3, 2), Norm(), Activation()))
    assert grid_reduction(into, out=32) == Chain((Concat((strided, Pool("max", 3, 2))),))


def test_every_layer_of_a_dense_block_reads_all_before_it():
    def layer(growth):
        start = (Norm(), Activation(), Conv(2 * growth), Norm(), Activation(), Conv(growth, 3))
        return Concat((Chain(), Chain(start)))

    grown = dense(Shape(16, (8, 8)), out=30, layers=3, expansion=2)
    assert grown == Chain((layer(4), layer(4), layer(6), Norm(), Activation()))
    moved = dense(Shape(16, (8, 8)), out=16, layers=2, stride=2, expansion=2)
    assert moved == Chain((Conv(8), Pool("average", 2, 2, 0, True), layer(4), layer(4), Norm(), Activation()))


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
        (3, 3, "r2plus1d", [(1, 3, 3), (3, 1, 1)]),
        ((1, 3, 3), 3, "p3d_b", [(1, 3, 3)]),
        ((3, 1, 1), 3, "p3d_c", [(3, 1, 1)]),
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
        (plain, {"kernel": 4}, "`kernel` of a block must be odd, at most 999, but got 4"),
        (
            plain,
            {"factorization": "split"},
            "`factorization` must be one of none, stacked, asymmetric, r2plus1d, p3d_a, p3d_b, p3d_c, but got 'split'",
        ),
        (plain, {"squeeze_excite": 2}, r"`squeeze_excite` must be in \[0, 1\], but got 2"),
        (plain, {"activation": "swish"}, "`activation` must be one of"),
        (fire, {"out": 25}, "`out` of a fire block must be even, but got 25"),
        (shuffle_unit, {"out": 8, "stride": 2}, "must widen, in both frequencies, but got"),
        (plain, {"factorization": "r2plus1d"}, "`factorization` 'r2plus1d' needs a time axis, but got a 2D map"),
        (plain, {"separation": "depthwise"}, "`separation` must be one of none, reduced, preserved, but got"),
        (bottleneck, {"stride_in": "first"}, "`stride_in` must be one of spatial, reduce, but got 'first'"),
        (grid_reduction, {"reduction": "pool"}, "`reduction` must be one of parallel, conv_pool, pool_conv, but got"),
        (grid_reduction, {"out": 16}, "parallel grid reduction must widen, in both frequencies, but got"),
        (inception_a, {"out": 2}, "must leave its four branches channels, got 2"),
        (inception_c, {"out": 4}, "must leave its split channels, but got 4"),
        (dense, {"layers": 0}, "`layers` must be a whole number >= 1, but got 0"),
        (dense, {"layers": 9}, "must grow by at least one channel"),
    ],
)
def test_a_block_says_what_it_cannot_be(block, given, rule):
    with pytest.raises(ArchitectureError, match=rule):
        block(Shape(16, (8, 8)), **{"out": 24, **given})
