"""ShuffleNet: its widths, where it groups and shuffles, and what the paper leaves open."""

import pytest
import torch

from searchspace.architecture import Architecture, ArchitectureError, Chain, Shape, Shuffle
from searchspace.blocks import shuffle_unit
from searchspace.cost import cost, leaf_cost
from searchspace.network import build
from searchspace.published.shufflenet import shufflenet_v1, stage2_width


def test_widths_are_those_of_table_1_and_those_of_other_groups_cost_as_much():
    assert {g: stage2_width(g) for g in (1, 2, 3, 4, 8)} == {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
    for groups in (5, 6, 7, 10, 12, 16):
        assert stage2_width(groups) % (4 * groups) == 0
        assert cost(shufflenet_v1(groups=groups)).macs_without_classifier == pytest.approx(140e6, rel=0.1)


@pytest.mark.parametrize("groups", [1, 3, 8])
def test_all_pointwise_convolutions_are_grouped_but_the_first(groups):
    sites = shufflenet_v1(groups=groups).sites
    reduce, restore = ([s.leaf.groups for s in sites if s.role == role] for role in ("reduce", "restore"))
    assert reduce == [1, *[groups] * 15]
    assert restore == [groups] * 16


def test_each_unit_shuffles_once_but_the_first_whose_convolution_mixes_anyway():
    architecture = shufflenet_v1(groups=4)
    assert [s.leaf.groups for s in architecture.sites if isinstance(s.leaf, Shuffle)] == [4] * 15
    bare = shufflenet_v1(groups=4, shuffle=False)
    assert not [s for s in bare.sites if isinstance(s.leaf, Shuffle)]
    assert cost(bare) == cost(architecture)
    assert not [s for s in shufflenet_v1(groups=1).sites if isinstance(s.leaf, Shuffle)]


@pytest.mark.parametrize("shuffle", [True, False])
def test_without_the_shuffle_groups_never_meet(shuffle):
    """The branch's first output group depends on the first third of the input alone, and on all of it with it."""
    unit = shuffle_unit(Shape(24, (4, 4)), out=24, groups=3, shuffle=shuffle)
    network = build(Architecture((24, 4, 4), Chain((unit,))), 0).eval()
    x = torch.randn(1, 24, 4, 4, requires_grad=True)
    network(x)[:, :8].sum().backward()
    seen = x.grad.abs().sum(dim=(0, 2, 3)) > 0
    assert seen[:8].all()
    assert seen[8:].any() == shuffle


def test_a_unit_costs_what_the_paper_says():
    """h * w * (2cm / g + 9m) multiply-adds at width c and inner width m."""
    sites = [s for s in shufflenet_v1(groups=3).sites if s.path[:1] == ("stage2",)]
    convolutions = [leaf_cost(s.leaf, s.before, s.after).macs for s in sites]
    unit = 28 * 28 * (2 * 240 * 60 // 3 + 9 * 60)
    assert unit == 7_949_760
    last = [macs for macs in convolutions if macs][-3:]
    assert sum(last) == unit


def test_squeeze_excite_costs_what_table_5_prints():
    """524 M becomes 527 M in the paper, both rounded, so by 2 to 4 M; it gives no share."""
    with_it, without = (cost(shufflenet_v1(scale=2.0, squeeze_excite=share)).macs for share in (1 / 16, 0))
    assert 2e6 <= with_it - without <= 4e6


def test_inner_widths_are_whole_groups():
    """100 / 4 = 25 channels lie between 24 and 26, two whole groups: the even number of groups is taken."""
    sites = shufflenet_v1(groups=2, scale=0.5).sites
    assert {s.after.channels for s in sites if s.role == "reduce" and "stage2" in s.path} == {24}


def test_the_stem_stays_unless_told_and_is_at_most_half_of_stage_2():
    def stem(**call):
        return next(s.after.channels for s in shufflenet_v1(**call).sites if s.role == "stem")

    assert [stem(scale=s) for s in (0.5, 1, 1.5, 2)] == [24, 24, 24, 48]
    assert stem(stem=12) == 12
    assert stem(groups=5) == 25
    assert stem(groups=1, scale=0.25) == 18


@pytest.mark.parametrize("groups", [1, 5, 6, 16])
def test_other_groups_and_scales_fit_small_grey_images(groups):
    for scale in (0.25, 0.7, 1.3):
        architecture = shufflenet_v1(groups=groups, scale=scale, classes=10, input=(1, 32, 32))
        network = build(architecture).eval()
        assert network(torch.randn(1, 1, 32, 32)).shape == (1, 10)
        assert sum(p.numel() for p in network.parameters()) == cost(architecture).params


def test_errors_say_the_rule():
    with pytest.raises(ArchitectureError, match=r"`stem` must be a multiple of `groups` below .*stem=12, groups=8"):
        shufflenet_v1(groups=8, stem=12)
    with pytest.raises(ArchitectureError, match=r"`stem` must be a multiple of `groups` below .*width=60"):
        shufflenet_v1(scale=0.25, stem=60)
    for groups in (0, -1, 1.5, "three"):
        with pytest.raises(ArchitectureError, match="`groups` must be a whole number >= 1"):
            shufflenet_v1(groups=groups)
    for scale in (0, float("nan"), float("inf"), "1x"):
        with pytest.raises(ArchitectureError, match="`scale` must be a positive number"):
            shufflenet_v1(scale=scale)
    with pytest.raises(ArchitectureError, match="`squeeze_excite` must be in"):
        shufflenet_v1(squeeze_excite=2)
