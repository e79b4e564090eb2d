"""Transforms of video networks: channel separation, a time axis, spatiotemporal factors, and single leaves changed."""

import re
from math import comb, prod

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from staged import NOWHERE, STAGES, WHOLE, labels, runs, staged
from strategies import architectures

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
    Tap,
    axes,
    windows,
)
from searchspace.blocks import BLOCKS, SPATIOTEMPORAL
from searchspace.cost import cost, leaf_cost
from searchspace.published import NETWORKS
from searchspace.transforms import (
    drop,
    everywhere,
    factorize,
    inflate,
    leaf,
    regroup,
    renorm,
    resize,
    retime,
    role,
    separate,
    under,
)

IMAGE, CLIP = (16, 12), (3, 16, 12)
SLIDING = leaf(Conv, Depthwise, Pool)


def weights(site) -> int:
    return leaf_cost(site.leaf, site.before, site.after).params


def wide(site) -> bool:
    """A convolution of more than one position."""
    return isinstance(site.leaf, Conv) and max(axes(site.leaf.kernel, len(site.before.space))) > 1


# Separate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [IMAGE, CLIP])
@pytest.mark.parametrize("interactions", ["reduced", "preserved"])
@pytest.mark.parametrize("name", ["plain", "residual", "bottleneck"])
def test_separating_is_building_separated(name, interactions, space):
    for extra in (
        {},
        {"kernel": 5},
        {"alpha": 0.25},
        {"dilation": 2},
        {"bias": True},
        {"activation": "silu"},
        *([{"groups": 4}] if interactions == "preserved" else []),  # "reduced", a block has no groups
    ):
        a = staged(name, space, **extra)
        new = separate(a, interactions, STAGES & role("spatial"))
        assert new == staged(name, space, separation=interactions, **extra), extra
        runs(new)


@given(a=architectures())
@settings(max_examples=60)
def test_separated_kernels_are_depthwise_and_join_as_many_channels_or_fewer(a):
    preserved, reduced = (separate(a, kind, everywhere) for kind in ("preserved", "reduced"))
    for new in (preserved, reduced):
        assert not any(map(wide, new.sites))
        assert [s.after for s in new.sites if not isinstance(s.leaf, Conv | Depthwise | Norm)] == [
            s.after for s in a.sites if not isinstance(s.leaf, Conv | Depthwise | Norm)
        ]
    assert cost(preserved).interactions == cost(a).interactions
    lost = sum(
        s.leaf.out * comb(s.before.channels // s.leaf.groups, 2)
        for s in a.sites
        if wide(s) and (s.before.channels, s.before.low) == (s.leaf.out, s.leaf.low) and not s.auxiliary
    )
    assert cost(reduced).interactions == cost(a).interactions - lost
    runs(preserved)


def test_the_closed_form_of_a_separated_kernel():
    """C_in C_out k^3 becomes C_out (C_in + k^3), that is 1 / C_out + 1 / k^3 of it at equal widths."""
    a = Architecture((8, 4, 6, 6), Chain((Conv(8, 3), Norm(1e-3), Activation())))
    new = separate(a, "preserved", everywhere)
    assert new.body.items[:2] == (Conv(8), Norm(1e-3))
    assert cost(new).macs == cost(a).macs * (1 / 8 + 1 / 27)
    assert separate(a, "reduced", everywhere).body.items == (Depthwise(3), Norm(1e-3), Activation())


def test_a_window_that_is_not_same_goes_to_the_depthwise_part():
    a = Architecture((3, 9, 9), Chain((Conv(4, (2, 3), 2, padding=(0, 1), dilation=2, groups=1, bias=True),)))
    new = separate(a, "reduced", everywhere)
    assert new.body.items == (Conv(4, bias=True), Depthwise((2, 3), 2, (0, 1), 2, bias=True))
    assert new.output == a.output


def test_a_grouped_kernel_keeps_its_groups_where_it_widens():
    a = Architecture((4, 6, 6), Chain((Conv(8, 3, groups=2), Conv(8, 3, groups=2))))
    assert separate(a, "reduced", everywhere).body.items == (Conv(8, groups=2), Depthwise(3), Depthwise(3))


def test_a_1_x_1_kernel_has_nothing_to_separate():
    a = staged("bottleneck")
    assert separate(a, "preserved", ~role("stem", "spatial")) == a


def test_interactions_are_a_word():
    with pytest.raises(ArchitectureError, match="`interactions` must be one of none, reduced, preserved, but got 'no'"):
        separate(staged("plain"), "no", everywhere)
    assert separate(staged("plain"), "none", everywhere) == staged("plain")


# Inflate --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
@pytest.mark.parametrize("name", sorted(set(BLOCKS) - {"inception_b", "inception_c"}))  # 1 x n has no cube
def test_inflating_is_building_in_3d(name, frames):
    a = staged(name, IMAGE, width=64)
    new = inflate(a, frames)
    if name == "dense" and frames == 1:  # its 2 x 2 pooling would not fit one frame
        assert new.output == a.output
        return
    assert new == staged(name, (frames, *IMAGE), width=64)
    assert labels(new) == labels(a)


@given(a=architectures(dims=2), frames=st.integers(1, 5))
@settings(max_examples=80)
def test_architectures_of_images_take_frames_and_keep_their_images(a, frames):
    try:
        cubes, flat = inflate(a, frames), inflate(a, frames, ~everywhere)
    except ArchitectureError as error:  # on a 1 x 1 map, a pooled branch meets one that keeps its frames
        if not re.match("All branches of (Add|Concat) must end in one", str(error)):
            raise
        reject()
    for new in (cubes, flat):
        assert new.input == (a.input[0], frames, *a.input[1:])
        for old, site in zip(a.sites, new.sites, strict=True):
            assert (site.after.channels, site.after.low) == (old.after.channels, old.after.low)
            assert site.after.space[-2:] == old.after.space[-2:]
    assert cost(flat).params == cost(a).params
    assert all(not s.before.space or s.before.space[0] in (1, frames) for s in flat.sites)
    for old, site in zip(a.sites, cubes.sites, strict=True):
        if isinstance(old.leaf, Conv | Depthwise) and not old.leaf.bias:
            kernel = axes(old.leaf.kernel, 2)
            time = kernel[0] if kernel[0] == kernel[1] else 1
            assert weights(site) in (weights(old), weights(old) * time)
    runs(cubes)


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if len(network().input) == 3])
def test_every_published_network_of_images_takes_frames(name):
    a = NETWORKS[name]()
    for frames in (1, 2, 5):
        for new in (inflate(a, frames), inflate(a, frames, ~everywhere)):
            assert new.output.channels == a.output.channels
            for old, site in zip(a.sites, new.sites, strict=True):
                assert site.after.space[-2:] == old.after.space


@given(a=architectures(dims=2))
@settings(max_examples=40)
def test_one_frame_by_itself_is_the_image(a):
    one = cost(inflate(a, 1, ~everywhere))
    assert (one.params, one.macs, one.interactions) == (cost(a).params, cost(a).macs, cost(a).interactions)


def test_frames_by_themselves_are_that_many_images():
    a = staged("bottleneck", IMAGE, alpha=0.25)
    linear = 3 * 64
    assert cost(inflate(a, 5, ~everywhere)).macs - linear == 5 * (cost(a).macs - linear)


def test_windows_along_time_are_square_ones_padded_same():
    def one(node, frames=4):
        return inflate(Architecture((4, 9, 9), Chain((node,))), frames).body.items[0]

    assert one(Conv(4, 3, 2, padding=0)) == Conv(4, 3, 2, padding=(1, 0, 0))
    assert one(Conv(4, (1, 3), (1, 2))) == Conv(4, (1, 1, 3), (1, 1, 2))
    assert one(Conv(4, 3, dilation=2)) == Conv(4, 3, dilation=2)
    assert one(Conv(4, (1, 3), dilation=2)) == Conv(4, (1, 1, 3), dilation=(1, 2, 2))
    assert one(Pool("max", 2, 2)) == Pool("max", 2, 2)
    assert one(Pool("max", 2, 2), frames=1) == Pool("max", (1, 2, 2), 2)
    assert one(Pool("max", 3, 2, padding=0, ceil=True)) == Pool("max", 3, 2, (1, 0, 0), ceil=True)
    assert one(AdaptivePool(3)) == AdaptivePool((1, 3, 3))


def test_where_says_what_sees_several_frames():
    new = inflate(staged("residual", IMAGE), 4, under("stage2"))
    for site in new.sites:
        if site.role == "spatial":
            assert axes(site.leaf.kernel, 3)[0] == (3 if "stage2" in site.path else 1)
    assert [s.after.space[0] for s in new.sites if s.role == "spatial"] == [4, 4, 2, 2, 2, 2]


def test_a_branch_that_strides_while_its_sum_does_not_is_named():
    with pytest.raises(ArchitectureError, match=r"All branches of Add must end in one shape.*residual"):
        inflate(staged("residual", IMAGE), 4, role("spatial"))


def test_what_cannot_be_inflated_says_why():
    with pytest.raises(ArchitectureError, match=r"inflate needs an architecture of images.*got input \(3, 3, 16, 12\)"):
        inflate(staged("plain", CLIP), 4)
    for frames in (0, 2.0, True):
        with pytest.raises(ArchitectureError, match="`frames` must be a whole number >= 1"):
            inflate(staged("plain"), frames)


# Retime ---------------------------------------------------------------------------------------------------------


@given(a=architectures(dims=3))
@settings(max_examples=40)
def test_retiming_nothing_or_nowhere_changes_nothing(a):
    for same in (retime(a, everywhere), retime(a, NOWHERE, 3, 2, 1)):
        assert same == a
        assert labels(same) == labels(a)


def test_retiming_changes_time_and_nothing_else():
    a = staged("bottleneck", (5, *IMAGE), stem=8)
    new = retime(a, role("stem"), kernel=5, stride=2)
    (stem,) = [s for s in new.sites if s.role == "stem"]
    assert windows(stem.leaf, 3) == ((5, 3, 3), (2, 1, 1), (2, 1, 1), (1, 1, 1))
    assert [s.leaf for s in new.sites if s.role != "stem"] == [s.leaf for s in a.sites if s.role != "stem"]
    assert retime(a, role("stem"), kernel=5, padding=0).sites[0].after.space == (1, *IMAGE)
    assert retime(new, role("stem"), kernel=3, stride=1) == a


def test_time_taken_out_again_is_never_having_had_it():
    a = staged("shuffle_unit", IMAGE, width=64)
    assert retime(inflate(a, 4), SLIDING, kernel=1, stride=1) == inflate(a, 4, ~everywhere)


def test_retiming_images_or_to_nothing_is_refused():
    with pytest.raises(ArchitectureError, match=r"retime needs .*got input \(3, 16, 12\)\. `inflate` gives it frames"):
        retime(staged("plain"), everywhere, kernel=3)
    with pytest.raises(ArchitectureError, match="`kernel` must be a whole number >= 1, but got 0"):
        retime(staged("plain", CLIP), everywhere, kernel=0)
    with pytest.raises(ArchitectureError, match="window must fit the padded map"):
        retime(staged("plain", CLIP), role("stem"), kernel=4, padding=0)


# Factorize ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 3, 5, (1, 3, 3), (3, 1, 1)])
@pytest.mark.parametrize("kind", SPATIOTEMPORAL)
@pytest.mark.parametrize("name", WHOLE)
def test_factorizing_is_building_factorized(name, kind, kernel):
    given = {"space": CLIP, "width": 64, "kernel": kernel, "activation": "silu"}
    for extra in ({}, {"alpha": 0.25}, {"dilation": 2}, {"groups": 4, "shuffle": True}, {"squeeze_excite": 0.25}):
        a = staged(name, **given, **extra)
        want = staged(name, factorization=kind, **given, **extra)
        assert factorize(a, kind, STAGES & role("spatial", "depthwise")) == want, extra


@pytest.mark.parametrize("kind", SPATIOTEMPORAL)
def test_pieces_are_a_spatial_and_a_temporal_kernel_and_run(kind):
    new = factorize(staged("residual", CLIP), kind, role("stem", "spatial"))
    kernels = {role: {axes(s.leaf.kernel, 3) for s in new.sites if s.role == role} for role in ("spatial", "temporal")}
    assert kernels == {"spatial": {(1, 3, 3)}, "temporal": {(3, 1, 1)}}
    runs(new)


@given(
    inputs=st.integers(1, 64),
    out=st.integers(1, 64),
    time=st.sampled_from((3, 5, 7)),
    image=st.sampled_from((3, 5, 7)),
    groups=st.sampled_from((1, 1, 2, 4)),
)
def test_a_2_plus_1d_pair_has_the_params_of_its_kernel_and_never_more(inputs, out, time, image, groups):
    assume(inputs % groups == out % groups == 0)
    kernel = (time, image, image)
    a = Architecture((inputs, 3, 4, 4), Chain((Conv(out, kernel, groups=groups),)))
    first, _, last = factorize(a, "r2plus1d", everywhere).sites
    step = image**2 * inputs + time * out  # params of one more channel in the middle
    assume(first.leaf.out > groups)  # below, it is one group, whatever that costs
    params = weights(first) + weights(last)
    assert weights(a.sites[0]) - step < params <= weights(a.sites[0])
    assert first.leaf.out == prod(kernel) * inputs * out // step // groups * groups


@given(a=architectures(dims=3), kind=st.sampled_from(SPATIOTEMPORAL))
@settings(max_examples=60)
def test_every_map_keeps_its_shape_through_pieces(a, kind):
    def odd(site):
        kernel, *_ = windows(site.leaf, 3) if SLIDING(site) else ((2,),)
        return all(k % 2 for k in kernel) and site.leaf.padding == "same"

    new = factorize(a, kind, odd)
    assert new.output == a.output
    for site in new.sites:
        if isinstance(site.leaf, Conv | Depthwise) and odd(site):
            kernel = axes(site.leaf.kernel, 3)
            assert kernel[0] == 1 or kernel[1:] == (1, 1)
    runs(new)


def test_what_stands_between_and_after_pieces():
    conv, norm, act = Conv(4, 3, bias=True), Norm(1e-3), Activation("gelu")
    s, t = Conv(4, (1, 3, 3), bias=True), Conv(4, (3, 1, 1), bias=True)

    def pieces(kind, *items):
        return factorize(Architecture((4, 3, 8, 8), Chain(items)), kind, everywhere).body.items

    both = Add((Chain((s, norm, act)), Chain((t, norm, act))))
    assert pieces("p3d_a", conv, norm, act) == (s, norm, act, t, norm, act)
    assert pieces("p3d_b", conv, norm, act, Pool()) == (both, Pool())
    assert pieces("p3d_c", conv, norm, act) == (s, norm, act, Add((Chain((t, norm, act)), Chain())))
    assert pieces("p3d_b", conv) == (Add((Chain((s,)), Chain((t,)))),)
    assert pieces("r2plus1d", act, conv) == (act, Conv(9, (1, 3, 3), bias=True), act, t)


def test_the_middle_width_can_be_said():
    a = staged("plain", CLIP)
    new = factorize(a, "r2plus1d", role("stem", "spatial"), lambda site: 5 if site.role == "stem" else 7)
    middles = [s.leaf.out for s in new.sites if axes(getattr(s.leaf, "kernel", 1), 3) == (1, 3, 3)]
    assert middles == [5, 7, 7, 7]
    with pytest.raises(ArchitectureError, match="`out` of Conv must be a whole number >= 1"):
        factorize(a, "r2plus1d", everywhere, lambda site: 0)


@pytest.mark.parametrize("kind", SPATIOTEMPORAL)
def test_images_have_no_time_to_factorize(kind):
    with pytest.raises(ArchitectureError, match=rf"'{kind}' needs a time axis, but got input \(3, 16, 12\)"):
        factorize(staged("plain"), kind, NOWHERE)


def test_grouped_then_factorized_then_resized():
    """The plug-ins of the video papers on one network, in the order that their docstrings ask for."""
    a = inflate(staged("bottleneck", IMAGE, width=64), 4)
    a = factorize(regroup(a, 4, True, role("spatial")), "r2plus1d", role("spatial"))
    assert a == staged("bottleneck", (4, *IMAGE), width=64, groups=4, shuffle=True, factorization="r2plus1d")
    assert resize(a, (8, *IMAGE)).output == a.output
    runs(a)


# Single leaves --------------------------------------------------------------------------------------------------


@given(a=architectures())
@settings(max_examples=40)
def test_norms_take_an_eps_and_nothing_else_changes(a):
    new = renorm(a, 1e-3)
    assert all(s.leaf == Norm(1e-3) for s in new.sites if isinstance(s.leaf, Norm))
    assert [s.leaf for s in new.sites if not isinstance(s.leaf, Norm)] == [
        s.leaf for s in a.sites if not isinstance(s.leaf, Norm)
    ]
    assert cost(new) == cost(a)
    assert labels(new) == labels(a)
    assert renorm(a, 1e-3, NOWHERE) == a


def test_an_eps_outside_its_range_is_refused():
    with pytest.raises(ArchitectureError, match="`eps` of Norm must be in"):
        renorm(staged("plain"), -1.0)


def test_what_is_dropped_is_gone_and_a_branch_left_empty_is_the_identity():
    head = Chain((AdaptivePool(), Flatten(), Linear(3)))
    a = Architecture((4, 8, 8), Chain((Pool(), Add((Activation(), Conv(4))), Concat((Conv(4),)), Tap(head), head)))
    assert drop(a, leaf(Pool, Activation)) == Architecture(
        a.input, Chain((Add((Chain(), Conv(4))), Concat((Conv(4),)), Tap(head), head))
    )
    assert drop(a, NOWHERE) == a
    with pytest.raises(ArchitectureError, match="must end in one shape"):
        drop(staged("residual"), role("projection"))
