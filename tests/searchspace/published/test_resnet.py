"""ResNet and ResNeXt: depths, where they stride, widths and groups that the golden table does not have."""

import pytest
import torch

from searchspace.architecture import ArchitectureError, Conv
from searchspace.cost import cost
from searchspace.network import build
from searchspace.published.resnet import BASIC, BOTTLENECK, resnet, resnext
from searchspace.transforms import widen


@pytest.mark.parametrize("depth", [*BASIC, *BOTTLENECK])
def test_depth_counts_the_weighted_layers_of_the_main_path(depth):
    roles = [site.role for site in resnet(depth=depth).sites]
    assert sum(roles.count(role) for role in ("stem", "reduce", "spatial", "restore", "classifier")) == depth
    assert roles.count("projection") == (3 if depth in BASIC else 4)


@pytest.mark.parametrize(("stride_in", "role"), [("3x3", "spatial"), ("1x1", "reduce")])
def test_stages_stride_once_where_told(stride_in, role):
    sites = [s for s in resnet(stride_in=stride_in).sites if isinstance(s.leaf, Conv) and s.leaf.stride != 1]
    assert [(s.path[0], s.role) for s in sites[1:]] == [
        (stage, r) for stage in ("stage3", "stage4", "stage5") for r in (role, "projection")
    ]


def test_each_stage_has_half_the_size_and_twice_the_width():
    sites = resnet().sites
    ends = [[s.after for s in sites if s.path[:1] == (f"stage{i}",)][-1] for i in (2, 3, 4, 5)]
    assert [str(shape) for shape in ends] == ["256x56x56", "512x28x28", "1024x14x14", "2048x7x7"]


def test_one_group_of_64_is_resnet():
    assert resnext(groups=1, width_per_group=64) == resnet()


@pytest.mark.parametrize(
    ("call", "params", "gmacs"),
    [
        ({"depth": 101, "groups": 32, "width_per_group": 8}, 88_791_336, 16.414),
        ({"depth": 101, "groups": 64, "width_per_group": 4}, 83_455_272, 15.46),
        ({"depth": 50, "groups": 1, "width_per_group": 128}, 68_883_240, 11.398),
        ({"depth": 101, "groups": 1, "width_per_group": 128}, 126_886_696, 22.753),
    ],
)
def test_torchvisions_other_groups_and_widths(call, params, gmacs):
    """As torchvision states them for resnext101_32x8d, resnext101_64x4d, wide_resnet50_2 and wide_resnet101_2."""
    counts = cost(resnext(**call))
    assert counts.params == params
    assert counts.macs / 1e9 == pytest.approx(gmacs, abs=5e-4)


@pytest.mark.parametrize("depth", [18, 50])
def test_width_multiplies_all_widths(depth):
    assert resnet(depth=depth, width=0.5) == widen(resnet(depth=depth), 0.5, lambda site: True)


@pytest.mark.parametrize(("function", "call"), [
    *((resnet, {"depth": depth, "width": width}) for depth in (18, 26, 152, 200) for width in (0.11, 0.25)),
    *((resnext, {"depth": 26, "groups": g, "width_per_group": w}) for g, w in ((1, 7), (5, 3), (64, 1))),
])  # fmt: skip
def test_other_widths_and_groups_fit_small_grey_images(function, call):
    architecture = function(**call, classes=10, input=(1, 32, 32))
    network = build(architecture).eval()
    assert network(torch.randn(1, 1, 32, 32)).shape == (1, 10)
    assert sum(p.numel() for p in network.parameters()) == cost(architecture).params


def test_errors_say_what_there_is():
    with pytest.raises(ArchitectureError, match="`depth` must be one of 18, 26, 34, 50, 101, 152, 200, but got 20"):
        resnet(depth=20)
    with pytest.raises(ArchitectureError, match="`depth` must be one of 26, 50, 101, 152, 200, but got 18"):
        resnext(depth=18)
    with pytest.raises(ArchitectureError, match="`stride_in` must be one of 3x3, 1x1, but got '5x5'"):
        resnet(stride_in="5x5")
    with pytest.raises(ArchitectureError, match=r"have no 1x1, but got \(depth=18, stride_in='1x1'\)"):
        resnet(depth=18, stride_in="1x1")
    for width in (0, float("nan"), "wide"):
        with pytest.raises(ArchitectureError, match="`width` must be a positive number"):
            resnet(width=width)
    for groups, width in ((0, 4), (32, 0), (2.5, 4)):
        with pytest.raises(ArchitectureError, match="must be a whole number >= 1"):
            resnext(groups=groups, width_per_group=width)
