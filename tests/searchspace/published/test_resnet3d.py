"""ResNet3D and its channel-separated forms: where they come from, and what the golden table does not show."""

from math import comb

import pytest

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    ArchitectureError,
    Chain,
    Conv,
    Depthwise,
    Flatten,
    Linear,
    Norm,
    Pool,
    axes,
    shape_after,
)
from searchspace.blocks import bottleneck, residual
from searchspace.cost import cost
from searchspace.published import NETWORKS
from searchspace.transforms import inflate, leaf, renorm, retime, role, separate

resnet, resnet3d, csn = (NETWORKS[name] for name in ("resnet", "resnet3d", "csn"))
SMALL = (3, 8, 32, 32)
DEPTHS = (18, 26, 34, 50, 101, 152)


def built(block, widths, counts, size, **given):
    """ResNet3D written out in 3D blocks, without any transform."""
    stem = Chain((Conv(64, (3, 7, 7), (1, 2, 2)), Norm(), Activation(), Pool("max", (1, 3, 3), (1, 2, 2))))
    body, shape = [stem], shape_after(stem, Architecture(size, Chain()).output)
    for i, (out, count) in enumerate(zip(widths, counts, strict=True)):
        stage = []
        for j in range(count):
            stage.append(block(shape, out=out, stride=2 if i and not j else 1, **given))
            shape = shape_after(stage[-1], shape)
        body.append(Chain(tuple(stage)))
    body.append(Chain((AdaptivePool(), Flatten(), Linear(400))))
    return renorm(Architecture(size, Chain(tuple(body))), 1e-3)


@pytest.mark.parametrize(("depth", "block", "widths", "counts", "given"), [
    (18, residual, (64, 128, 256, 512), (2, 2, 2, 2), {}),
    (34, residual, (64, 128, 256, 512), (3, 4, 6, 3), {}),
    (26, bottleneck, (64, 128, 256, 512), (2, 2, 2, 2), {"expansion": 1}),
    (50, bottleneck, (256, 512, 1024, 2048), (3, 4, 6, 3), {}),
    (152, bottleneck, (256, 512, 1024, 2048), (3, 8, 36, 3), {}),
])  # fmt: skip
def test_it_is_what_3d_blocks_build(depth, block, widths, counts, given):
    assert resnet3d(depth=depth, input=SMALL) == built(block, widths, counts, SMALL, **given)
    assert resnet3d(depth=depth, groups=8, input=SMALL) == built(block, widths, counts, SMALL, groups=8, **given)
    for kind in ("preserved", "reduced"):
        assert csn(depth=depth, interactions=kind, input=SMALL) == built(
            block, widths, counts, SMALL, separation=kind, **given
        )


def test_it_is_resnet_inflated_with_two_exceptions_in_the_stem():
    cubes = inflate(resnet(depth=50, classes=400, input=(3, 32, 32)), 8)
    stem = retime(retime(cubes, role("stem"), kernel=3, stride=1), leaf(Pool), kernel=1, stride=1)
    assert resnet3d(depth=50, input=SMALL) == renorm(stem, 1e-3)
    assert resnet3d(depth=50, input=SMALL) != renorm(cubes, 1e-3)


@pytest.mark.parametrize("depth", DEPTHS)
def test_csn_is_resnet3d_separated(depth):
    base = resnet3d(depth=depth, input=SMALL)
    for kind in ("preserved", "reduced"):
        preserved = kind == "preserved"
        new = csn(depth=depth, interactions=kind, input=SMALL)
        assert new == separate(base, kind, role("spatial"))
        assert new == resnet3d(depth=depth, groups="depthwise", preserve_interactions=preserved, input=SMALL)
        assert not any(isinstance(s.leaf, Conv) and axes(s.leaf.kernel, 3) == (3, 3, 3) for s in new.sites)
        assert (cost(new).interactions == cost(base).interactions) == preserved


@pytest.mark.parametrize(("depth", "pairs"), [(18, 3), (34, 3), (26, 0), (50, 0)])
def test_a_reduced_block_has_a_1_x_1_x_1_only_where_it_widens(depth, pairs):
    new = csn(depth=depth, interactions="reduced", input=SMALL)
    assert sum(site.role == "pointwise" for site in new.sites) == pairs
    assert all(s.before.channels != s.after.channels for s in new.sites if s.role == "pointwise")


def test_nothing_stands_between_a_1_x_1_x_1_and_its_depthwise_kernel_but_a_norm():
    new = csn(depth=50, interactions="preserved", input=SMALL)
    leaves = [site.leaf for site in new.sites]
    for i, site in enumerate(new.sites):
        if isinstance(site.leaf, Depthwise):
            assert (leaves[i - 2].label, leaves[i - 1]) == ("pointwise", Norm(1e-3))
            assert leaves[i - 2].stride == 1


@pytest.mark.parametrize("depth", [18, 26, 50])
@pytest.mark.parametrize("preserve", [False, True])
def test_pointwise_groups_reach_the_branches_and_not_the_projections(depth, preserve):
    new = resnet3d(
        depth=depth, groups="depthwise", pointwise_groups=4, preserve_interactions=preserve, classes=7, input=SMALL
    )
    groups = {s.role: s.leaf.groups for s in new.sites if isinstance(s.leaf, Conv)}
    want = {"stem": 1, "projection": 1, "pointwise": 4, "reduce": 4, "restore": 4}
    assert groups == {name: want[name] for name in groups}
    interactions = sum(
        s.leaf.out * comb(s.before.channels // s.leaf.groups, 2) for s in new.sites if isinstance(s.leaf, Conv)
    )
    assert cost(new).interactions == interactions


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("depth", [18, 26, 50])
def test_any_clip_is_halved_three_times_and_may_end_as_one_frame(depth, frames):
    new = resnet3d(depth=depth, classes=7, input=(1, frames, 33, 20))
    labels = ("stem", "stage2", "stage3", "stage4", "stage5")
    assert [item.label for item in new.body.items] == [*labels, "head"]
    assert new.output.channels == 7
    spaces = {site.path[0]: site.after.space for site in new.sites}
    half = [-(-frames // 2), -(-frames // 4), -(-frames // 8)]
    assert [spaces[label][0] for label in labels] == [frames, frames, *half]
    assert [spaces[label][1:] for label in labels] == [(9, 5), (9, 5), (5, 3), (3, 2), (2, 1)]
    assert cost(new).params == cost(resnet3d(depth=depth, classes=7, input=(1, 8, 64, 64))).params


def test_twice_the_frames_is_twice_the_convolutions():
    linear = 400 * 2048
    eight, sixteen = (cost(resnet3d(input=(3, frames, 32, 32))).macs - linear for frames in (8, 16))
    assert sixteen == 2 * eight


@pytest.mark.parametrize(("network", "call", "message"), [
    ("resnet3d", {"depth": 51}, "`depth` must be one of 18, 26, 34, 50, 101, 152"),
    ("resnet3d", {"groups": "deep"}, "`groups` must be a whole number >= 1 or 'depthwise', but got 'deep'"),
    ("resnet3d", {"groups": 0}, "`groups` must be a whole number >= 1"),
    ("resnet3d", {"groups": 48}, r"divides the channels, but got \(groups=48, in=64, out=64\).*stage2"),
    ("resnet3d", {"groups": "depthwise", "pointwise_groups": "4"}, "`pointwise_groups` must be a whole number >= 1"),
    ("resnet3d", {"groups": 2, "preserve_interactions": True}, "need groups='depthwise', but got"),
    ("resnet3d", {"pointwise_groups": 2}, "need groups='depthwise', but got"),
    ("resnet3d", {"input": (3, 224, 224)}, r"must be \(channels, frames, height, width\), but got \(3, 224, 224\)"),
    ("resnet3d", {"input": ()}, "`input` must be"),
    ("csn", {"interactions": "none"}, "`interactions` must be one of preserved, reduced, but got 'none'"),
    ("csn", {"depth": 19}, "`depth` must be one of"),
])  # fmt: skip
def test_what_there_is_no_form_for_is_named(network, call, message):
    with pytest.raises(ArchitectureError, match=message):
        NETWORKS[network](**call)
