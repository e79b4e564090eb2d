"""Transforms: each gives what the blocks build with that option, keeps sums legal, and says what it cannot do."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from staged import NOWHERE, SPACES, STAGES, WHOLE, labels, runs, staged
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
    shape_after,
)
from searchspace.blocks import BLOCKS, bottleneck, depthwise_separable, fire, inverted_residual, plain, residual
from searchspace.cost import cost, leaf_cost
from searchspace.network import build
from searchspace.transforms import (
    dilate,
    divisible_by,
    everywhere,
    factorize,
    octave,
    regroup,
    resize,
    role,
    under,
    widen,
)

RULES = {
    "widen": lambda a, where: widen(a, 2, where),
    "octave": lambda a, where: octave(a, 0.5, where),
    "regroup": lambda a, where: regroup(a, 2, True, where),
    "factorize": lambda a, where: factorize(a, "asymmetric", where),
    "dilate": lambda a, where: dilate(a, 2, where, keep_stride=False),
}


@pytest.mark.parametrize("rule", RULES)
@given(a=architectures())
@settings(max_examples=20)
def test_a_transform_that_matches_nothing_changes_nothing(rule, a):
    assert RULES[rule](a, NOWHERE) == a
    assert labels(RULES[rule](a, NOWHERE)) == labels(a)


@given(a=architectures())
@settings(max_examples=60)
def test_identity_parameters_are_the_identity(a):
    for same in (
        widen(a, 1, everywhere),
        resize(a, a.input[1:]),
        factorize(a, "none", everywhere),
        octave(a, 0, lambda site: site.after.low == 0),
        regroup(a, 1, True, lambda site: isinstance(site.leaf, Conv) and site.leaf.groups == 1),
        dilate(a, 1, lambda site: getattr(site.leaf, "dilation", 1) == 1),
    ):
        assert same == a
        assert labels(same) == labels(a)


@given(a=architectures())
@settings(max_examples=60)
def test_any_architecture_can_be_widened_octaved_and_regrouped_everywhere(a):
    """What cannot follow stays: the result is legal, reads the same input and puts out the same."""
    for new in (
        widen(a, 2, everywhere),
        widen(a, 1.4, everywhere, multiple=4),
        octave(a, 0.5, everywhere),
        octave(a, 1, everywhere),
        octave(a, 0, everywhere),
        regroup(a, 2, True, divisible_by(2)),
        regroup(a, 1, False, everywhere),
    ):
        assert (new.input, new.output) == (a.input, a.output)
        build(new)(torch.randn(2, *a.input))


def test_predicates_combine():
    a = staged("residual")

    def names(where):
        return [site.name for site in a.sites if where(site)]

    assert names(everywhere) == [site.name for site in a.sites]
    assert names(under("stem") & role("stem")) == ["body.0.0"]
    assert names(under("stage1") | under("stage2")) == names(STAGES)
    assert names(~everywhere) == []
    assert names(under("stage2") & (lambda site: isinstance(site.leaf, Conv)) & ~role("spatial")) == [
        "body.2.0.0.1.0"
    ]  # fmt: skip
    assert names(divisible_by(16) & role("stem", "spatial")) == [s.name for s in a.sites if s.role == "spatial"]


def test_labels_survive():
    a = staged("bottleneck", kernel=5)
    assert labels(widen(a, 2, everywhere)) == labels(octave(a, 0.5, STAGES)) == labels(a)
    split = factorize(a, "stacked", STAGES)
    assert sum(s.role == "spatial" for s in split.sites) == 2 * sum(s.role == "spatial" for s in a.sites)
    assert {s.path for s in split.sites} == {s.path for s in a.sites}


# Widen ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("name", sorted(set(BLOCKS) - {"shuffle_unit"}))
def test_widening_everywhere_is_building_wider(name, factor, space):
    a = staged(name, space, squeeze_excite=0.25)
    assert widen(a, factor, everywhere) == staged(name, space, 32 * factor, stem=16 * factor, squeeze_excite=0.25)


def test_widening_a_shuffle_net_is_building_wider():
    wide = staged("shuffle_unit", width=96, stem=48, groups=3)
    assert widen(staged("shuffle_unit", width=48, stem=24, groups=3), 2, everywhere) == wide


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("alpha", [0, 0.25])
def test_twice_as_wide_is_four_times_the_work_inside_and_twice_at_the_ends(space, alpha):
    a = staged("bottleneck", space, alpha=alpha)
    wide = widen(a, 2, everywhere)
    for one, two in zip(a.sites, wide.sites, strict=True):
        before, after = (leaf_cost(s.leaf, s.before, s.after).macs for s in (one, two))
        ends = one.role in ("stem", "classifier")
        assert after == before * (2 if ends else 4)
    assert wide.output == a.output


def test_a_depthwise_convolution_widens_once():
    a = staged("depthwise_separable")
    for one, two in zip(a.sites, widen(a, 2, everywhere).sites, strict=True):
        if isinstance(one.leaf, Depthwise):
            assert (
                leaf_cost(two.leaf, two.before, two.after).macs == 2 * leaf_cost(one.leaf, one.before, one.after).macs
            )


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.1, 1.4])
@pytest.mark.parametrize("name", BLOCKS)
def test_any_factor_keeps_sums_and_groups_legal(name, factor):
    a = staged(name, width=48, stem=24, groups=3, squeeze_excite=0.25)
    new = widen(a, factor, everywhere, multiple=4)
    runs(new)
    assert new != a
    for site in new.sites:
        if isinstance(site.leaf, Conv) and site.leaf.groups > 1:
            assert site.leaf.out % 3 == 0


def test_a_width_that_is_added_to_one_left_out_stays():
    a = staged("residual", width=16)  # stage1 adds to the stem's output
    new = widen(a, 2, under("stage1"))
    inner, outer = [s.leaf for s in new.sites if s.path[:1] == ("stage1",) and s.role == "spatial"]
    assert (inner.out, outer.out) == (32, 16)
    assert [s.leaf for s in new.sites if "stage2" in s.path] == [s.leaf for s in a.sites if "stage2" in s.path]


def test_roles_are_widened_alone():
    a = staged("inverted_residual", squeeze_excite=0.25)
    new = widen(a, 2, role("expand"))
    for one, two in zip(a.sites, new.sites, strict=True):
        if isinstance(one.leaf, Conv):
            assert two.leaf.out == one.leaf.out * (2 if one.role == "expand" else 1)
        if isinstance(one.leaf, SqueezeExcite):
            assert two.leaf.squeeze == 2 * one.leaf.squeeze


def test_hidden_linear_layers_widen_and_every_classifier_stays():
    head = Chain((AdaptivePool(), Flatten(), Linear(8), Activation(), Linear(3)), label="head")
    a = Architecture((3, 8, 8), Chain((Conv(4), Tap(head), Conv(6), head)))
    new = widen(a, 2, everywhere)
    assert [s.leaf.out for s in new.sites if hasattr(s.leaf, "out")] == [8, 16, 3, 12, 16, 3]


def test_a_convolution_that_is_the_classifier_stays():
    a = Architecture((3, 8, 8), Chain((Conv(4), Conv(10), Activation(), AdaptivePool(), Flatten())))
    assert [s.leaf.out for s in widen(a, 2, everywhere).sites[:2]] == [8, 10]


def test_what_a_select_picks_from_stays():
    a = Architecture((3, 8, 8), Chain((Conv(4), Select((2, 3, 0, 1)), Conv(4), Conv(10))))
    assert [s.leaf.out for s in widen(a, 2, everywhere).sites if isinstance(s.leaf, Conv)] == [4, 8, 10]


def test_parts_of_a_concatenation_that_is_grouped_as_a_whole_widen_as_they_are():
    parts = Concat((Conv(1), Conv(2)))
    a = Architecture((3, 8, 8), Chain((parts, Conv(6, groups=3), Conv(6), AdaptivePool())))
    assert widen(a, 1, everywhere) == a
    assert [s.leaf.out for s in widen(a, 2, everywhere).sites[:3]] == [2, 4, 12]


@pytest.mark.parametrize(
    "given", [{"factor": 0}, {"factor": -1}, {"factor": float("nan")}, {"factor": 2, "multiple": 0}]
)
def test_widening_by_nothing_is_refused(given):
    with pytest.raises(ArchitectureError, match=r"`(factor|multiple)` must be a (positive|whole) number"):
        widen(staged("plain"), where=everywhere, **given)


# Resize ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), [((16, 12), (32, 24)), ((16, 12), (7, 1)), ((3, 16, 12), (6, 9, 9))])
def test_resizing_keeps_params_and_moves_the_work(old, new):
    a = staged("residual", old)
    b = resize(a, new)
    assert b.input == (3, *new)
    assert b == staged("residual", new)
    assert cost(b).params == cost(a).params


def test_resizing_by_two_is_four_times_the_convolutions():
    a = staged("bottleneck")
    linear = 64 * 3
    assert cost(resize(a, (32, 24))).macs - linear == 4 * (cost(a).macs - linear)


def test_resizing_to_other_axes_or_below_a_window_is_refused():
    with pytest.raises(ArchitectureError, match=r"`space` must have as many axes as the input, but got \(3, 8, 8\)"):
        resize(staged("plain"), (3, 8, 8))
    small = Architecture((3, 8, 8), Chain((Conv(4, 5, padding=0), AdaptivePool(), Flatten(), Linear(3))))
    with pytest.raises(ArchitectureError, match="window must fit the padded map"):
        resize(small, (4, 4))


# Octave ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("alpha", [0.25, 0.5])
@pytest.mark.parametrize("name", BLOCKS)
def test_octave_is_building_with_alpha(name, alpha, space):
    a = staged(name, space, width=64, depths=(2, 2))
    given = {"stem": 16, "width": 64, "depths": (2, 2), "alpha": alpha}
    if name == "shuffle_unit":
        assert octave(a, alpha, STAGES).output == a.output
        runs(octave(a, alpha, STAGES))
        return
    want = staged(name, space, **given)
    assert octave(a, alpha, STAGES) == want
    runs(want)


@pytest.mark.parametrize("name", sorted(set(WHOLE) - {"fire", "inverted_residual"}))
@pytest.mark.parametrize("alpha", [0.125, 0.3, 0.75, 0.875, 1.0])
def test_odd_alphas_are_built_alike_or_rounded_to_groups(name, alpha):
    new = octave(staged(name, width=48, stem=24, groups=3, depths=(2, 3)), alpha, STAGES)
    runs(new)
    for site in new.sites:
        if isinstance(site.leaf, Conv):
            assert site.leaf.low % site.leaf.groups == 0
            assert site.leaf.low <= alpha * site.leaf.out + 3 * len(new.sites)
    if name != "shuffle_unit":
        assert new == staged(name, width=48, stem=24, groups=3, depths=(2, 3), alpha=alpha)


def test_octave_of_a_shuffle_net_makes_up_the_rounding_in_the_concatenated_part():
    """int(alpha * 24) + int(alpha * 36) is not int(alpha * 60): the part gives way, as in the block."""

    def net(alpha):
        shape, items = Shape(24, (8, 8), int(alpha * 24)), []
        for stride in (2, 1, 1):
            items.append(BLOCKS["shuffle_unit"](shape, out=60, stride=stride, alpha=alpha))
            shape = shape_after(items[-1], shape)
        stem = Conv(24, low=int(alpha * 24))
        return Architecture((3, 8, 8), Chain((stem, *items, AdaptivePool(), Flatten(), Linear(3))))

    for alpha in (0.125, 0.3, 0.7, 0.9):
        assert octave(net(0), alpha, everywhere) == net(alpha)


@pytest.mark.parametrize("a", [Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(1)])
def test_an_octave_convolution_inside_costs_the_closed_form(a):
    net = staged("plain", depths=(3, 1))
    new = octave(net, float(a), STAGES)
    one, two = (n.sites[3 + 6] for n in (net, new))
    macs = [leaf_cost(s.leaf, s.before, s.after).macs for s in (one, two)]
    assert macs[1] == macs[0] * (1 - Fraction(3, 4) * a * (2 - a))
    assert cost(new).params == cost(net).params


def test_the_stem_stays_where_it_is_left_out_and_what_adds_to_it_too():
    a = staged("residual", width=16, depths=(2, 2))
    new = octave(a, 0.5, STAGES)
    lows = [s.leaf.low for s in new.sites if isinstance(s.leaf, Conv) and "stage1" in s.path]
    assert lows == [8, 0, 8, 0]
    assert all(s.leaf.low for s in new.sites if isinstance(s.leaf, Conv) and "stage2" in s.path)
    assert all(s.leaf.low for s in octave(a, 0.5, everywhere).sites if isinstance(s.leaf, Conv))


@pytest.mark.parametrize("reader", [
    Flatten(),
    AdaptivePool(2),
    Conv(4, 3, padding=0),
    Conv(4, 2),
    Conv(4, 3, 4),
    Depthwise(3, (2, 1)),
    Pool("max", 5, 3, padding=0),
    Select((0, 7, 1)),
    Chain((Activation(), Dropout(0.5), Flatten())),
])  # fmt: skip
def test_a_convolution_whose_reader_takes_no_pair_stays(reader):
    a = Architecture((3, 12, 12), Chain((Conv(6, 3), Conv(8, 3), Norm(), reader)))
    new = octave(a, 0.5, everywhere)
    assert [s.leaf.low for s in new.sites[:2]] == [3, 0]


@pytest.mark.parametrize("conv", [Conv(8, 3, padding=0), Conv(8, 2), Conv(8, 3, 3), Conv(8, 3, (1, 2))])
def test_a_convolution_that_cannot_be_octave_stays(conv):
    a = Architecture((3, 12, 12), Chain((conv, Norm(), AdaptivePool(), Flatten(), Linear(3))))
    assert octave(a, 0.5, everywhere) == a


@pytest.mark.parametrize("reader", [Pool(), Pool("average", 2, 2), SqueezeExcite(2), LocalNorm(), Depthwise(5, 2)])
def test_readers_that_take_a_pair_are_passed(reader):
    a = Architecture((3, 12, 12), Chain((Conv(8, 3), reader, AdaptivePool(), Flatten(), Linear(3))))
    new = octave(a, 0.5, everywhere)
    assert new.sites[0].leaf.low == 4
    runs(new)


def test_an_output_keeps_one_resolution():
    a = Architecture((3, 12, 12), Chain((Conv(8, 3), Conv(8, 3))))
    assert octave(a, 0.5, everywhere).output == a.output
    pair = Architecture(
        (3, 12, 12), Chain((Conv(8, 3, label="first"), Conv(8, 3, low=2)))
    )  # its output is a pair already
    assert [s.leaf.low for s in octave(pair, 0.5, role("first")).sites] == [4, 2]


def test_octave_again_changes_alpha_and_zero_takes_it_back():
    a = staged("bottleneck")
    assert octave(octave(a, 0.5, STAGES), 0.25, STAGES) == octave(a, 0.25, STAGES)
    assert octave(octave(a, 0.5, STAGES), 0, STAGES) == a


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_octave_refuses_a_share_outside_the_unit_interval(alpha):
    with pytest.raises(ArchitectureError, match=r"`alpha` must be in \[0, 1\]"):
        octave(staged("plain"), alpha, NOWHERE)


# Regroup --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("plain", role("spatial")),
        ("residual", role("spatial")),
        ("bottleneck", role("spatial")),
        ("depthwise_separable", role("pointwise")),
        ("inverted_residual", role("expand", "project")),
        ("fire", role("spatial")),
        ("shuffle_unit", role("reduce", "restore")),
    ],
)
def test_regrouping_is_building_in_groups(name, where, groups, space, shuffle):
    for width, stem in ((32, 16), (64, 48)):
        base = staged(name, space, width=width, stem=stem, shuffle=False)
        want = staged(name, space, width=width, stem=stem, groups=groups, shuffle=shuffle)
        assert regroup(base, groups, shuffle, where) == want


def test_regrouping_moves_the_shuffles_that_are_there():
    where = role("spatial")
    four = staged("bottleneck", groups=4, shuffle=True)
    assert regroup(four, 2, False, where) == staged("bottleneck", groups=2, shuffle=True)
    assert regroup(four, 4, True, where) == four
    assert regroup(four, 1, True, where) == staged("bottleneck")


def test_a_group_count_divides_the_weights():
    a = staged("plain")
    new = regroup(a, 4, False, role("spatial"))
    for one, two in zip(a.sites, new.sites, strict=True):
        share = 4 if one.role == "spatial" else 1
        assert (
            leaf_cost(two.leaf, two.before, two.after).macs * share == leaf_cost(one.leaf, one.before, one.after).macs
        )


def test_groups_that_do_not_divide_are_refused_with_the_place_or_left_out():
    a = staged("plain")
    rule = r"divides the channels, but got \(groups=2, in=3\).*divisible_by\(2\)`\. At stem/stem \(body\.0\.0\)"
    with pytest.raises(ArchitectureError, match=rule):
        regroup(a, 2, False, everywhere)
    assert regroup(a, 2, False, divisible_by(2)) == staged("plain", groups=2)
    with pytest.raises(ArchitectureError, match=r"groups=4, out=18, low out=6"):
        regroup(staged("plain", width=24, stem=24, depths=(3,), alpha=0.25), 4, False, role("spatial"))
    with pytest.raises(ArchitectureError, match="`groups` must be a whole number >= 1, but got 0"):
        regroup(a, 0, False, role("spatial"))


# Factorize ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("kind", ["stacked", "asymmetric"])
@pytest.mark.parametrize("name", WHOLE)
def test_factorizing_is_building_factorized(name, kind, kernel, space):
    given = {"width": 64, "kernel": kernel, "activation": "silu"}
    for extra in ({}, {"alpha": 0.25}, {"dilation": 2}, {"groups": 4, "shuffle": True}, {"squeeze_excite": 0.25}):
        a = staged(name, space, **given, **extra)
        want = staged(name, space, factorization=kind, **given, **extra)
        assert factorize(a, kind, STAGES & role("spatial", "depthwise")) == want, extra


def test_only_the_norms_and_activations_that_are_there_stand_between():
    def pieces(*items):
        new = factorize(Architecture((3, 8, 8), Chain(items)), "stacked", everywhere)
        return [site.leaf for site in new.sites]

    one = Conv(4, 3, bias=True)
    five = Conv(4, 5, bias=True)
    assert pieces(five, Activation("gelu")) == [one, Activation("gelu"), one, Activation("gelu")]
    assert pieces(five, Norm(1e-3)) == [one, Norm(1e-3), Activation(), one, Norm(1e-3)]
    assert pieces(Activation("silu"), five) == [Activation("silu"), one, Activation("silu"), one]
    assert pieces(Depthwise(5)) == [Depthwise(3), Depthwise(3)]
    assert pieces(five, Shuffle(2), Norm()) == [one, Activation(), one, Shuffle(2), Norm()]


def test_a_branch_that_is_one_convolution_becomes_a_chain():
    a = Architecture((3, 8, 8), Chain((Add((Conv(4, 5), Conv(4))),)))
    new = factorize(a, "stacked", everywhere)
    assert new.body.items[0].branches[0] == Chain((Conv(4, 3), Activation(), Conv(4, 3)))


@pytest.mark.parametrize("conv", [Conv(4, 6), Conv(4, 5, padding=0), Depthwise(4), Conv(4, (5, 7), padding=(2, 0))])
def test_a_kernel_that_has_no_factors_of_its_padding_is_refused_with_the_place(conv):
    a = Architecture((3, 12, 12), Chain((Chain((replace(conv, label="spatial"),), label="stage1"),)))
    rule = r"factorize needs odd kernels and padding 'same', but got .* At stage1/spatial \(body\.0\.0\)"
    for kind in ("stacked", "asymmetric"):
        with pytest.raises(ArchitectureError, match=rule):
            factorize(a, kind, everywhere)
        assert factorize(a, kind, ~role("spatial")) == a


def test_an_unknown_factorization_is_refused():
    with pytest.raises(ArchitectureError, match=r"`kind` must be one of none, stacked, .*, but got 'svd'"):
        factorize(staged("plain"), "svd", everywhere)


# Dilate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("name", WHOLE)
def test_dilating_is_building_dilated(name, kernel, space):
    for extra in ({}, {"alpha": 0.25}, {"factorization": "asymmetric"}):
        a = staged(name, space, kernel=kernel, width=64, **extra)
        want = staged(name, space, kernel=kernel, width=64, dilation=2, **extra)
        assert dilate(a, 2, STAGES) == want
        assert dilate(want, 1, STAGES) == a


@pytest.mark.parametrize("name", WHOLE)
def test_dilation_takes_the_place_of_stride(name):
    a = staged(name, width=64)
    new = dilate(a, 2, under("stage2"), keep_stride=False)
    assert cost(new).params == cost(a).params
    assert new.sites[-4].after.space == (16, 12)
    runs(new)


def test_every_map_keeps_its_size_whatever_its_padding():
    a = Architecture((3, 20, 20), Chain((Conv(4, 3, padding=0), Conv(4, (3, 5), 2, padding=(0, 1)), Depthwise(3))))
    for dilation in (2, 3, (1, 2)):
        new = dilate(a, dilation, everywhere)
        assert [s.after for s in new.sites] == [s.after for s in a.sites]


def test_dilating_what_cannot_keep_its_size_is_refused():
    a = Architecture((3, 20, 20), Chain((Conv(4, 2, padding=1),)))
    with pytest.raises(ArchitectureError, match=r"only at odd dilations.* At conv \(body\.0\)"):
        dilate(a, 2, everywhere)
    assert dilate(a, 3, everywhere).output == a.output
    with pytest.raises(ArchitectureError, match="`dilation` must be a whole number >= 1"):
        dilate(staged("plain"), 0, everywhere)


def test_a_summand_that_keeps_its_stride_is_named():
    with pytest.raises(ArchitectureError, match="All branches of Add must end in one shape"):
        dilate(staged("residual"), 2, role("spatial"), keep_stride=False)


# Together -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
def test_transforms_compose_into_the_block_with_all_options(space):
    a = staged("bottleneck", space, kernel=5, width=64)
    a = regroup(a, 4, True, role("spatial"))
    a = octave(a, 0.25, STAGES)
    a = factorize(a, "asymmetric", role("spatial"))
    a = dilate(a, 2, role("spatial"))
    options = {"groups": 4, "shuffle": True, "factorization": "asymmetric", "dilation": 2, "alpha": 0.25}
    assert a == staged("bottleneck", space, kernel=5, width=64, **options)
    runs(a)


@pytest.mark.parametrize("block", [bottleneck, depthwise_separable, fire, inverted_residual, plain, residual])
def test_octave_then_factorize_is_the_block_with_both(block):
    a = staged(block.__name__, kernel=5, width=64)
    both = factorize(octave(a, 0.5, STAGES), "stacked", role("spatial", "depthwise"))
    assert both == staged(block.__name__, kernel=5, width=64, alpha=0.5, factorization="stacked")
