"""MobileNets: what their multipliers do, where v2's two origins differ, and which blocks of v3 squeeze."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from searchspace.architecture import Activation, ArchitectureError, Conv, Depthwise, Norm, SqueezeExcite
from searchspace.cost import cost, leaf_cost
from searchspace.network import build
from searchspace.published import NETWORKS
from searchspace.published.mobilenet import divisible, mobilenet_v1, mobilenet_v2, mobilenet_v3


def macs(architecture, kind, role):
    return sum(
        leaf_cost(site.leaf, site.before, site.after).macs
        for site in architecture.sites
        if isinstance(site.leaf, kind) and site.role == role
    )


def widths(architecture, role):
    return [site.after.channels for site in architecture.sites if site.role == role]


def test_half_the_width_is_a_quarter_of_pointwise_and_half_of_depthwise_macs():
    one, half = mobilenet_v1(), mobilenet_v1(width=0.5)
    assert macs(one, Conv, "pointwise") == 4 * macs(half, Conv, "pointwise")
    assert macs(one, Depthwise, "depthwise") == 2 * macs(half, Depthwise, "depthwise")


@pytest.mark.parametrize("network", [mobilenet_v1, mobilenet_v2])
def test_half_the_resolution_is_a_quarter_of_the_macs_at_equal_params(network):
    one, half = (cost(network(input=(3, size, size))) for size in (256, 128))
    assert one.params == half.params
    assert one.macs_without_classifier == 4 * half.macs_without_classifier


def test_v1_has_thirteen_blocks_and_five_halvings():
    sites = mobilenet_v1().sites
    assert [s.path[1] for s in sites if s.role == "depthwise"] == [f"block{i}" for i in range(1, 14)]
    assert widths(mobilenet_v1(width=0.3), "pointwise") == [19, 38, 38, 76, 76, *[153] * 6, 307, 307]
    assert [s.after.space for s in sites if s.role == "pointwise"][-1] == (7, 7)


@given(st.floats(1e-3, 1e4))
def test_a_divisible_width_is_a_near_multiple_of_eight_that_loses_less_than_a_tenth(width):
    rounded = divisible(width)
    assert rounded % 8 == 0
    assert 0.9 * width <= rounded <= max(8, width + 8)
    if abs(nearest := 8 * round(width / 8)) >= max(8, 0.9 * width):
        assert abs(rounded - width) <= abs(nearest - width)


def test_the_last_layer_of_v2_grows_and_never_shrinks():
    assert [widths(mobilenet_v2(width=w), "pointwise")[-1] for w in (0.35, 1, 1.4)] == [1280, 1280, 1792]


def test_gluons_v2_is_torchvisions_and_a_first_expansion_where_no_width_is_rounded():
    ours, gluon = cost(mobilenet_v2()), cost(mobilenet_v2(variant="gluon"))
    assert gluon.params - ours.params == 32 * 32 + 2 * 32
    assert gluon.macs - ours.macs == 32 * 32 * 112**2
    assert widths(mobilenet_v2(width=1.4, variant="gluon"), "project")[1:3] == [33, 33]
    assert widths(mobilenet_v2(width=1.4), "project")[1:3] == [32, 32]


def test_v3_squeezes_to_a_rounded_quarter_under_a_hard_sigmoid():
    squeezes = [site for site in mobilenet_v3().sites if isinstance(site.leaf, SqueezeExcite)]
    assert [(s.before.channels, s.leaf.squeeze) for s in squeezes] == [
        (72, 24), (120, 32), (120, 32), (480, 120), (672, 168), (672, 168), (960, 240), (960, 240),
    ]  # fmt: skip
    assert {s.leaf.gate for s in squeezes} == {"hardsigmoid"}


def test_v3_has_hard_swish_from_its_third_halving_on_and_its_own_eps():
    sites = mobilenet_v3().sites
    kinds = {(s.path[0], s.leaf.kind) for s in sites if isinstance(s.leaf, Activation)}
    relu = {("stage1", "relu"), ("stage2", "relu"), ("stage3", "relu")}
    assert kinds == relu | {(place, "hardswish") for place in ("stem", "stage4", "stage5", "stage6", "head")}
    assert {s.leaf.eps for s in sites if isinstance(s.leaf, Norm)} == {1e-3}


@pytest.mark.parametrize("width", [0.05, 0.33, 1, 1.7])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3"])
def test_any_width_fits_small_grey_images(name, width):
    architecture = NETWORKS[name](width=width, classes=10, input=(1, 32, 32))
    network = build(architecture).eval()
    assert network(torch.randn(1, 1, 32, 32)).shape == (1, 10)
    assert sum(p.numel() for p in network.parameters()) == cost(architecture).params


def test_errors_say_what_there_is():
    with pytest.raises(ArchitectureError, match="`size` must be one of large, small, but got 'medium'"):
        mobilenet_v3(size="medium")
    with pytest.raises(ArchitectureError, match="`variant` must be one of torchvision, gluon, but got 'keras'"):
        mobilenet_v2(variant="keras")
    for network in (mobilenet_v1, mobilenet_v2, mobilenet_v3):
        for width in (0, -1, float("nan"), float("inf"), "wide"):
            with pytest.raises(ArchitectureError, match="`width` must be a positive number"):
                network(width=width)
        for size in ((), (3,), (3, 0, 224), "small", 224):
            with pytest.raises(ArchitectureError, match="`input` must be"):
                network(input=size)
