"""Design principles: planted breaches are found and named with their numbers, sound designs are left in peace."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import architectures

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Architecture,
    Chain,
    Concat,
    Conv,
    Depthwise,
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
from searchspace.blocks import bottleneck, depthwise_separable, fire, grid_reduction, inception_a, residual
from searchspace.islands import stacked_groups
from searchspace.principles import breaches, width_against_depth
from searchspace.published import NETWORKS, printed
from searchspace.transforms import everywhere, octave, regroup, role

BOTTLENECK, SHAPE = "representational bottleneck", "width against depth"
EARLY, STACKED = "early downsampling", "stacked groups without shuffle"
HEAD = (AdaptivePool(), Flatten(), Linear(10))
DIMS = pytest.mark.parametrize("dims", [2, 3])


def net(dims, *items, channels=3, size=64):
    return Architecture((channels, *(8,) * (dims - 2), size, size), Chain((*items, *HEAD)))


def found(architecture, principle):
    """The breach of one principle, if any."""
    return next((b for b in breaches(architecture) if b.principle == principle), None)


# Representational bottlenecks -----------------------------------------------------------------------------------


@DIMS
def test_pooling_before_a_wider_convolution_is_a_bottleneck(dims):
    breach = found(net(dims, Conv(32, 3, label="stem"), Pool(label="halve"), Norm(), Conv(64, 3)), BOTTLENECK)
    assert breach.place == "halve (body.1)"
    maps = "32x64x64 to 32x32x32, 4 times" if dims == 2 else "32x8x64x64 to 32x4x32x32, 8 times"
    assert f"max pooling takes the map from {maps} fewer elements" in breach.message
    assert "widens it to 64 channels" in breach.message


@DIMS
@pytest.mark.parametrize(
    "items",
    [
        (Conv(32, 3), Pool(), Conv(40, 3)),  # as wide, nearly
        (Conv(64, 3), Pool(), Conv(64, 3)),  # widened first
        (Conv(32, 3), Conv(64, 3, 2)),  # a strided convolution that widens
        (Conv(32, 3), Depthwise(3, 2), Conv(64)),  # a separable one
        (Conv(32, 3), Concat((Conv(32, 3, 2), Pool())), Conv(64, 3)),  # side by side: figure 10
        (Conv(32, 3), Pool("max", 3, 1), Conv(64, 3)),  # nothing is reduced
        (Conv(32, 3), Conv(4), Conv(32, 3)),  # an embedding: principle 3 recommends it
    ],
)
def test_other_ways_down_are_no_bottleneck(dims, items):
    assert found(net(dims, *items), BOTTLENECK) is None


@DIMS
def test_a_strided_convolution_that_does_not_widen_is_a_bottleneck_where_the_next_does(dims):
    narrow = net(dims, Conv(32, 3), Conv(32, 3, 2), Activation(), Conv(64, 3))
    assert "a strided convolution takes the map" in found(narrow, BOTTLENECK).message


@pytest.mark.parametrize(("reduction", "bad"), [("pool_conv", True), ("conv_pool", False), ("parallel", False)])
@DIMS
def test_of_the_three_grid_reductions_pooling_first_alone_is_a_bottleneck(dims, reduction, bad):
    into = Shape(320, (*(8,) * (dims - 2), 34, 34))
    step = grid_reduction(into, out=640, reduction=reduction)
    a = Architecture((320, *into.space), Chain((step, *HEAD)))
    assert (found(a, BOTTLENECK) is not None) == bad


@DIMS
def test_pooling_before_an_inception_module_that_doubles_the_width_is_figure_9s_bottleneck(dims):
    into = Shape(8, (*(4,) * (dims - 2), 32, 32))
    wide, even = (net(dims, Conv(8, 3), Pool(), inception_a(into, out=out)) for out in (16, 8))
    assert found(wide, BOTTLENECK) is not None
    assert found(even, BOTTLENECK) is None


def test_time_alone_halved_is_no_bottleneck():
    items = (Conv(32, 3), Pool("max", (2, 1, 1), (2, 1, 1)), Conv(64, 3))
    assert found(net(3, *items), BOTTLENECK) is None


@DIMS
@pytest.mark.parametrize("items", [(Pool("average", 64, 64, padding=0),), (AdaptivePool(),)])
def test_the_global_pooling_before_a_wide_head_is_exempt(dims, items):
    body = (Conv(32, 3), *items, Conv(128), Activation(), Flatten(), Linear(10))
    size = (3, *(1,) * (dims - 2), 64, 64)
    if dims == 3 and isinstance(items[0], Pool):
        body = (body[0], Pool("average", (1, 64, 64), (1, 64, 64), padding=0), *body[2:])
    assert found(Architecture(size, Chain(body)), BOTTLENECK) is None


@DIMS
def test_a_stems_pooling_before_residual_blocks_is_exempt_while_the_map_is_no_smaller_than_the_image(dims):
    def resnet(stem):
        into = Shape(stem, (*(4,) * (dims - 2), 16, 16))
        return net(dims, Conv(stem, 7, 2), Pool(), residual(into, out=2 * stem))

    least = 3 * 16 if dims == 2 else 3 * 64  # channels at which 1/16 (1/64) of the positions hold the image
    assert found(resnet(least), BOTTLENECK) is None
    assert found(resnet(least - 4), BOTTLENECK) is not None


def test_pooling_between_residual_blocks_is_not_a_stems():
    """The same map, with the same elements, that would pass as a stem's."""
    first, second = residual(Shape(64, (64, 64)), out=64), residual(Shape(64, (32, 32)), out=128)
    assert found(net(2, Conv(64, 3), Pool(), second), BOTTLENECK) is None
    assert found(net(2, Conv(64, 3), first, Pool(), second), BOTTLENECK) is not None


def test_a_convolution_that_widens_may_stride_far():
    assert found(net(2, Conv(32, 3), Conv(48, 3, 4), Conv(96, 3)), BOTTLENECK) is None
    assert found(net(2, Conv(32, 3), Conv(32, 3, 4), Conv(96, 3)), BOTTLENECK) is not None


@DIMS
def test_branches_are_not_the_trunk(dims):
    down = Chain((Conv(8), Pool(), Conv(64)))
    items = (Conv(32, 3), Add((down, Chain((Conv(64, 3, 2),)))))
    assert found(net(dims, *items), BOTTLENECK) is None


def test_further_places_are_counted():
    items = (Conv(16, 3), Pool(), Conv(32, 3), Pool(), Conv(64, 3), Pool(), Conv(128, 3))
    assert found(net(2, *items), BOTTLENECK).message.endswith("(2 more such places)")
    assert found(net(2, *items[:5]), BOTTLENECK).message.endswith("(1 more such place)")


# Width against depth --------------------------------------------------------------------------------------------


@DIMS
def test_many_thin_layers_and_one_wide_one_are_out_of_balance(dims):
    thin = found(net(dims, *(Conv(6, 3) for _ in range(7)), size=16), SHAPE)
    assert "6 channels and the longest path 7 convolutions" in thin.message
    assert "widen it or take layers out" in thin.message
    wide = found(net(dims, Conv(301, 3, label="stem"), size=16), SHAPE)
    assert wide.place == "stem (body.0)"
    assert "narrow it or add layers" in wide.message


@DIMS
def test_at_the_limits_width_and_depth_are_in_balance(dims):
    assert found(net(dims, *(Conv(6, 3) for _ in range(6)), size=16), SHAPE) is None
    assert found(net(dims, Conv(300, 3), size=16), SHAPE) is None


@DIMS
def test_depth_is_the_longest_path_and_counts_kernels_on_the_image_alone(dims):
    flat = (1,) * (dims - 2)
    deep = Chain(tuple(Conv(4, 3) for _ in range(5)))
    short = Chain((Conv(4), Conv(4, (3,) * (dims - 2) + (1, 1)), Conv(4, (*flat, 1, 1))))
    assert found(net(dims, Add((short, deep)), size=16), SHAPE) is not None
    assert found(net(dims, Add((short, short)), Conv(4, 3), size=16), SHAPE) is None
    aux = Tap(Chain((*(Conv(4, 3) for _ in range(9)), *HEAD)))
    assert found(net(dims, Conv(4, 3), aux, Conv(4, 3), size=16), SHAPE) is None


def test_the_classifier_and_hidden_linear_layers_are_no_width():
    body = (Conv(16, 3), AdaptivePool(), Flatten(), Linear(4096), Activation(), Linear(1000))
    assert found(Architecture((3, 16, 16), Chain(body)), SHAPE) is None
    body = (Conv(16, 3), Conv(1000), Activation(), AdaptivePool(), Flatten())
    assert found(Architecture((3, 16, 16), Chain(body)), SHAPE) is None


def test_nothing_to_say_of_a_network_without_spatial_convolutions():
    assert breaches(net(2, Conv(2), size=16)) == ()
    assert breaches(Architecture((3, 8, 8), Chain())) == ()


# Early downsampling ---------------------------------------------------------------------------------------------


@DIMS
def test_an_image_reduced_by_8_before_the_second_convolution_is_early(dims):
    breach = found(net(dims, Conv(16, 7, 4), Pool(), Conv(16, 3, label="next"), Conv(16, 3), size=224), EARLY)
    assert breach.place == "next (body.2)"
    assert "the second convolution with a spatial kernel reads 28x28 of an image of 224x224" in breach.message
    assert found(net(dims, Conv(16, 7, 2), Pool(), Conv(16, 3), Conv(16, 3), size=224), EARLY) is None


@DIMS
def test_before_the_third_it_is_early_where_fewer_than_16_positions_are_left(dims):
    items = (Conv(16, 3, 2), Conv(16, 3, 2), Pool(), Conv(16, 3))
    assert (
        "the third convolution with a spatial kernel reads 15x15" in found(net(dims, *items, size=120), EARLY).message
    )
    assert found(net(dims, *items, size=128), EARLY) is None  # GoogLeNet and ShuffleNet do so, at 28 positions
    assert found(net(dims, items[0], Conv(16, 3), *items[1:], size=64), EARLY) is None


@DIMS
def test_sizes_that_do_not_divide_are_rounded_up(dims):
    items = (Conv(16, 3, 4), Pool(), Conv(16, 3))
    assert found(net(dims, *items, size=57), EARLY) is not None  # 57, 15, 8
    assert found(net(dims, Conv(16, 3, 4), Conv(16, 3), size=57), EARLY) is None


@DIMS
def test_pointwise_and_temporal_convolutions_do_not_see_the_image(dims):
    blind = (Conv(16), Conv(16, (3,) * (dims - 2) + (1, 1)))
    assert found(net(dims, Conv(16, 3, 2), *blind, Conv(16, 1, 4), Conv(16, 3), size=224), EARLY) is not None


def test_a_patchifying_stem_is_early_and_so_is_one_made_for_larger_images():
    assert found(net(2, Conv(64, 16, 16, padding=0), Conv(64, 3), size=224), EARLY) is not None
    assert found(NETWORKS["shufflenet_v1"](), EARLY) is None
    assert found(NETWORKS["shufflenet_v1"](input=(3, 96, 96)), EARLY) is not None


# Groups ---------------------------------------------------------------------------------------------------------


@DIMS
@pytest.mark.parametrize(
    "between",
    [
        (),
        (Norm(), Activation(), Pool(), LocalNorm(), SqueezeExcite(2)),
        (Depthwise(3), Norm()),
        (Conv(24, 3, groups=24),),
        (Add((Chain(), Depthwise(3))),),
        (Add((Chain(), Conv(24, groups=4))),),
        (Shuffle(4), Select(tuple(4 * (i % 6) + i // 6 for i in range(24)))),  # and back
    ],
)
def test_grouped_convolutions_on_the_same_groups_are_islands(dims, between):
    first, second = Conv(24, groups=4, label="first"), Conv(24, groups=4, label="second")
    breach = found(net(dims, Conv(24), first, *between, second, size=16), STACKED)
    assert "in 4 groups reads 4 islands of channels that nothing has mixed since first (body.1)" in breach.message
    assert breach.place.startswith("second") or any(isinstance(n, Add) for n in between)


@DIMS
@pytest.mark.parametrize(
    "between",
    [
        (Shuffle(4),),
        (Depthwise(3), Norm(), Shuffle(4), Activation()),
        (Conv(24),),
        (Conv(24, 3),),
        (Select(tuple(6 * (i % 4) + i // 4 for i in range(24))),),
        (Add((Conv(24), Chain())),),
        (Add((Chain((Conv(24, groups=4), Shuffle(4), Conv(24, groups=4))), Chain((Conv(24),)))),),
    ],
)
def test_what_mixes_the_groups_leaves_no_islands(dims, between):
    items = (Conv(24), Conv(24, groups=4), *between, Conv(24, groups=4))
    if any(isinstance(n, Add) for n in between) and isinstance(between[0].branches[0], Chain):
        items = (Conv(24), *between, Conv(24, groups=4))
    assert found(net(dims, *items, size=16), STACKED) is None


def test_one_grouped_convolution_or_depthwise_ones_alone_are_no_stack():
    assert found(net(2, Conv(24), Conv(24, 3, groups=4), Conv(24)), STACKED) is None
    assert found(net(2, Conv(24), Depthwise(3), Depthwise(3), Conv(24, groups=4)), STACKED) is None
    into = Shape(24, (64, 64))
    assert found(net(2, Conv(24), *(depthwise_separable(into, out=24) for _ in range(3))), STACKED) is None


def test_groups_that_overlap_join_their_islands():
    """Two groups, then three: the middle third reads both halves, so no channel is left alone."""
    assert found(net(2, Conv(24), Conv(24, groups=2), Conv(24, groups=3)), STACKED) is None
    nested = stacked_groups(net(2, Conv(24), Conv(24, groups=4), Conv(24, groups=2)))
    assert [stack.islands for stack in nested] == [2]


def test_a_shuffle_that_mixes_half_leaves_islands():
    """Eight islands, shuffled by two: each group then reads two of them, and four pairs stay apart."""
    items = (Conv(32), Conv(32, groups=8), Shuffle(2), Conv(32, groups=8))
    assert [stack.islands for stack in stacked_groups(net(2, *items))] == [4]


def test_a_concatenation_keeps_the_islands_of_its_branches():
    grouped = Chain((Conv(12, groups=2),))
    dense = Chain((Conv(12),))
    side = Concat((dense, grouped))
    assert found(net(2, Conv(12), side, Conv(24, groups=4)), STACKED) is not None
    assert found(net(2, Conv(12), side, Conv(24, groups=2)), STACKED) is None  # one group reads both islands
    assert found(net(2, Conv(12), Concat((dense, dense)), Conv(24, groups=4)), STACKED) is None


def test_the_factors_of_one_grouped_convolution_are_no_stack_and_two_pairs_are():
    pair = Conv(24, (1, 3), groups=4), Conv(24, (3, 1), groups=4)
    assert found(net(2, Conv(24), *pair), STACKED) is None
    assert [s.site.index for s in stacked_groups(net(2, Conv(24), *pair, *pair))] == [(3,)]
    assert found(net(2, Conv(24), *pair, Shuffle(4), *pair), STACKED) is None
    assert found(net(2, Conv(24), pair[0], pair[0]), STACKED) is not None
    assert found(net(2, Conv(24), Conv(24, groups=4), pair[0]), STACKED) is not None
    video = Conv(24, (1, 3, 3), groups=4), Conv(24, (3, 1, 1), groups=4)
    assert found(net(3, Conv(24), *video), STACKED) is None


def test_every_convolution_of_a_stack_is_found_once_with_where_the_stack_begins():
    a, b, c, d = (Conv(24, groups=4, label=name) for name in "abcd")
    stacks = stacked_groups(net(2, Conv(24), a, b, Add((Chain((c, d)), Chain()))))
    assert [(s.since.role, s.site.role) for s in stacks] == [("a", "b"), ("a", "c"), ("a", "d")]


def test_parallel_branches_do_not_make_a_stack():
    branch = Chain((Conv(24, 3, groups=4),))
    assert found(net(2, Conv(24), Add((branch, branch)), Conv(24)), STACKED) is None
    assert found(net(2, Conv(24), Concat((branch, branch)), Conv(24)), STACKED) is None


@DIMS
def test_octave_maps_keep_islands_in_both_frequencies(dims):
    items = (Conv(32, low=16), Conv(32, groups=4, low=16), Conv(32, groups=4, low=16))
    assert found(net(dims, *items, size=16), STACKED) is not None
    assert found(net(dims, *items[:2], Shuffle(4), items[2], size=16), STACKED) is None


@DIMS
def test_a_filter_for_each_channel_may_move_it_to_the_other_frequency(dims):
    """All high in, all low out, and back: the channels are followed, not lost."""
    down, up = Conv(8, 3, groups=8, low=8), Conv(8, 3, groups=8)
    (stack,) = stacked_groups(net(dims, Conv(8), Conv(8, 3, groups=4), down, up, Conv(8, 3, groups=4)))
    assert stack.islands == 4
    net_ = net(dims, Conv(8), Add((Conv(8, groups=8, low=8), Conv(8, low=8))))
    assert stacked_groups(net_) == []


def test_a_concatenation_of_octave_maps_orders_channels_by_frequency():
    """High channels of both branches come first: 16 to 31 are those of the second."""
    dense, grouped = Conv(32, low=16), Conv(32, groups=2, low=16)
    items = (dense, Concat((dense, grouped)), Select(tuple(range(16, 32))), Conv(16, groups=2))
    assert [stack.islands for stack in stacked_groups(net(2, *items))] == [2]


@pytest.mark.parametrize("groups", [2, 3, 4, 8])
def test_a_shuffle_net_has_no_islands_and_has_them_without_its_shuffles(groups):
    assert found(NETWORKS["shufflenet_v1"](groups=groups), STACKED) is None
    assert found(NETWORKS["shufflenet_v1"](groups=groups, shuffle=False), STACKED) is not None


def test_regrouping_a_bottleneck_throughout_is_a_stack_and_its_spatial_convolutions_alone_is_not():
    into = Shape(64, (64, 64))
    resnet = net(2, Conv(64, 3), *(bottleneck(into, out=64) for _ in range(3)))
    assert found(regroup(resnet, 4, False, role("spatial")), STACKED) is None
    assert found(regroup(resnet, 4, False, role("reduce", "spatial", "restore")), STACKED) is not None
    assert found(regroup(resnet, 4, True, role("reduce", "spatial", "restore")), STACKED) is None


def by_matrices(channels, items):
    """Islands read by each stacked grouped convolution of a chain, by multiplying out which channel sees which."""
    sees, grouped, stacks = np.eye(channels, dtype=bool), False, []
    for item in items:
        if isinstance(item, Shuffle):
            order = torch.nn.functional.channel_shuffle(torch.arange(channels).view(1, -1, 1, 1), item.groups)
            sees = sees[order.flatten().numpy()]
        elif isinstance(item, Conv):
            blocks = np.kron(np.eye(item.groups), np.ones((item.out // item.groups, channels // item.groups)))
            sees, channels = blocks @ sees > 0, item.out
            linked = (sees.T @ sees) > 0
            for _ in range(8):
                linked = (linked.astype(int) @ linked) > 0
            islands = len(np.unique(linked[sees.any(0)], axis=0))
            if islands == 1:
                sees, grouped = np.eye(channels, dtype=bool), False
            else:
                stacks += [islands] if grouped else []
                grouped = True
    return stacks


chains = st.lists(
    st.one_of(
        st.builds(Conv, st.sampled_from((12, 24)), st.sampled_from((1, 3)), groups=st.sampled_from((1, 2, 3, 4, 6))),
        st.builds(Shuffle, st.sampled_from((2, 3, 4, 6))),
        st.sampled_from((Depthwise(3), Norm(), Pool(), SqueezeExcite(2))),
    ),
    max_size=8,
)


@given(chains)
@settings(max_examples=300)
def test_islands_are_what_multiplying_out_which_channel_sees_which_gives(items):
    items = [Conv(24, 3), *items]
    a = Architecture((3, 16, 16), Chain(items))
    assert [stack.islands for stack in stacked_groups(a)] == by_matrices(3, items)


# Published networks ---------------------------------------------------------------------------------------------

SOUND = {
    "googlenet": {}, "inception_v3": {}, "squeezenet": {}, "mobilenet_v1": {}, "mobilenet_v2": {}, "mobilenet_v3": {},
    "xception": {}, "resnet": {}, "resnext": {}, "oct_resnet": {}, "oct_resnext": {"alpha": 0.25},
    "oct_mobilenet_v1": {}, "oct_mobilenet_v2": {}, "densenet": {}, "dilated_context": {}, "resnet3d": {}, "csn": {},
    "r3d": {}, "mixed_convolution": {}, "r2d": {}, "frame_r2d": {}, "r2plus1d": {}, "s3d": {},
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_most_published_networks_keep_to_the_principles(name):
    assert breaches(NETWORKS[name](**SOUND[name])) == ()


@pytest.mark.parametrize(
    ("name", "settings", "principles"),
    [
        ("alexnet", {}, [BOTTLENECK, EARLY, STACKED]),  # its fifth convolution sees half of what the third made
        ("alexnet", {"variant": "one_weird_trick"}, [BOTTLENECK, EARLY]),
        ("vgg", {}, [BOTTLENECK]),
        ("shufflenet_v1", {}, [BOTTLENECK]),  # 24 channels at 56 x 56 hold half as much as the image
        ("p3d", {"depth": 63}, [BOTTLENECK]),  # an eighth of the elements in the first pooling, four times the width
        ("resnet3d", {"depth": 18, "groups": 4}, [STACKED]),
        ("resnet3d", {"depth": 26, "groups": "depthwise", "pointwise_groups": 4}, [STACKED]),
    ],
)
def test_the_published_networks_that_break_one_are_named(name, settings, principles):
    assert [b.principle for b in breaches(NETWORKS[name](**settings))] == principles


def test_alexnets_columns_are_named_where_they_stack():
    breach = found(NETWORKS["alexnet"](), STACKED)
    assert breach.place == "stage3/spatial (body.2.4)"
    assert "2 islands of channels that nothing has mixed since stage3/spatial (body.2.2)" in breach.message


# Any architecture -----------------------------------------------------------------------------------------------


@given(architectures())
@settings(max_examples=150)
def test_any_architecture_can_be_asked_and_labels_do_not_matter(a):
    said = breaches(a)
    assert len({b.principle for b in said}) == len(said)
    assert all(b.place.split("body.")[1] for b in said)
    for stack in stacked_groups(a):
        assert stack.islands > 1
        assert stack.since.index != stack.site.index


def test_no_published_network_breaks_the_limits_of_width_against_depth():
    record = json.loads(Path(printed.__file__).with_suffix(".json").read_text())
    listed = [
        NETWORKS[e["network"]](**e["settings"], input=tuple(e["input"]), classes=e["classes"])
        for e in record["networks"]
    ]
    others = [
        NETWORKS[name](**{key: value})
        for name, key, value in (
            ("resnet", "depth", 200),
            ("densenet", "depth", 201),
            ("vgg", "depth", 11),
            ("dilated_context", "size", "large"),
            ("p3d", "depth", 199),
        )
    ]
    assert [str(a) for a in (*listed, *others) if list(width_against_depth(a))] == []


def test_fire_and_octave_networks_have_no_breach_of_their_own():
    into = Shape(64, (32, 32))
    squeeze = net(2, Conv(64, 3, 2), fire(into, out=64), fire(into, out=64))
    assert breaches(squeeze) == ()
    plain = net(2, *(Conv(32, 3) for _ in range(3)))
    assert breaches(octave(plain, 0.5, everywhere)) == breaches(plain) == ()
    assert breaches(replace(plain, input=(3, 32, 32))) == ()
