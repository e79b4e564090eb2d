"""Octave networks: which maps are split, what each convolution saves, and shares that divide nothing."""

from fractions import Fraction

import pytest
import torch

from searchspace.architecture import ArchitectureError, Conv, Depthwise
from searchspace.cost import cost, leaf_cost
from searchspace.network import build
from searchspace.published import NETWORKS
from searchspace.published.mobilenet import mobilenet_v1, mobilenet_v2
from searchspace.published.octave import oct_mobilenet_v1, oct_mobilenet_v2, oct_resnet, oct_resnext
from searchspace.published.resnet import resnet, resnext

SMALL = {"classes": 10, "input": (1, 32, 32)}


def convolutions(architecture):
    return [s for s in architecture.sites if isinstance(s.leaf, Conv | Depthwise)]


def macs(site):
    return leaf_cost(site.leaf, site.before, site.after).macs


@pytest.mark.parametrize("alpha", [0.125, 0.3, 0.5, 0.75, 1])
@pytest.mark.parametrize("network", [oct_resnet, oct_resnext])
def test_resnets_split_every_convolution_of_stages_2_to_4(network, alpha):
    groups = 32 if network is oct_resnext else 1
    for site in convolutions(network(depth=26, alpha=alpha)):
        inner = site.role in ("reduce", "spatial")
        whole = groups if inner else 1
        low = int(alpha * site.leaf.out) // whole * whole
        assert site.after.low == (low if site.path[0] in ("stage2", "stage3", "stage4") else 0)


def test_mobilenet_v1_splits_pointwise_1_to_10_and_depthwise_2_to_11():
    def split(role):
        return [s.path[1] for s in convolutions(oct_mobilenet_v1()) if s.role == role and s.after.low]

    assert split("pointwise") == [f"block{i}" for i in range(1, 11)]
    assert split("depthwise") == [f"block{i}" for i in range(2, 12)]


def test_mobilenet_v2_splits_what_lies_inside_its_first_13_blocks():
    inside = [s for s in convolutions(oct_mobilenet_v2(alpha=0.375)) if s.path[0].startswith("stage")]
    assert [s.after.low > 0 for s in inside] == [True, True, False] * 13 + [False] * 12
    assert all(s.after.low == int(0.375 * s.after.channels) for s in inside if s.after.low)


@pytest.mark.parametrize("alpha", [0.125, 0.25, 0.5, 0.875])
@pytest.mark.parametrize(("octave", "base"), [
    (oct_resnet, resnet), (oct_resnext, resnext), (oct_mobilenet_v1, mobilenet_v1),
])  # fmt: skip
def test_each_convolution_saves_what_the_paper_says(octave, base, alpha):
    """3/4 of 1 - (1 - a)(1 - b), from share a to b; 3/4 of b where depthwise, or strided, as low to high is in full."""
    for ours, plain in zip(convolutions(octave(alpha=alpha)), convolutions(base()), strict=True):
        a, b = (Fraction(shape.low, shape.channels) for shape in (ours.before, ours.after))
        saved = b if isinstance(ours.leaf, Depthwise) or ours.leaf.stride == 2 else 1 - (1 - a) * (1 - b)
        assert macs(ours) == (1 - Fraction(3, 4) * saved) * macs(plain)


@pytest.mark.parametrize("alpha", [0.125, 0.5, 0.99, 1])
def test_params_do_not_depend_on_the_share(alpha):
    for octave, base in ((oct_resnet, resnet), (oct_resnext, resnext), (oct_mobilenet_v1, mobilenet_v1)):
        assert cost(octave(alpha=alpha)).params == cost(base()).params
    assert cost(oct_mobilenet_v2(alpha=alpha)).params == cost(mobilenet_v2(variant="gluon")).params


def test_a_share_of_nothing_is_the_base():
    assert oct_resnet(depth=26, alpha=0) == resnet(depth=26)
    assert oct_resnext(alpha=0) == resnext()
    assert oct_mobilenet_v1(alpha=0) == mobilenet_v1()
    assert oct_mobilenet_v2(alpha=0) == mobilenet_v2(variant="gluon")


def test_a_basic_resnet_keeps_one_resolution_in_the_sums_that_the_stem_enters():
    sites = convolutions(oct_resnet(depth=18))
    second = [s.after.low for s in sites if s.path[0] == "stage2"]
    third = [s.after.low for s in sites if s.path[0] == "stage3"]
    assert second == [32, 0, 32, 0]
    assert third == [64] * 5


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1 / 3, 0.9, 1])
@pytest.mark.parametrize("name", ["oct_resnet", "oct_resnext", "oct_mobilenet_v1", "oct_mobilenet_v2"])
def test_any_share_fits_small_grey_images(name, alpha):
    call = {"depth": 26} if "resne" in name else {"width": 0.37}
    architecture = NETWORKS[name](**call, alpha=alpha, **SMALL)
    network = build(architecture).eval()
    assert network(torch.randn(1, 1, 32, 32)).shape == (1, 10)
    assert sum(p.numel() for p in network.parameters()) == cost(architecture).params


def test_a_share_is_at_most_all():
    for alpha in (-0.1, 1.5, float("nan")):
        for name in ("oct_resnet", "oct_resnext", "oct_mobilenet_v1", "oct_mobilenet_v2"):
            with pytest.raises(ArchitectureError, match=r"`alpha` must be in \[0, 1\]"):
                NETWORKS[name](alpha=alpha)
