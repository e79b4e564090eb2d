"""P3D: the cycle of its three blocks, and how clips shrink."""

from itertools import cycle

import pytest

from searchspace.architecture import Add, ArchitectureError, Chain, Conv, axes
from searchspace.cost import cost, trace_flops
from searchspace.network import build
from searchspace.published import NETWORKS

p3d = NETWORKS["p3d"]
DEPTHS = {63: (3, 4, 6, 3), 131: (3, 4, 23, 3), 199: (3, 8, 36, 3)}


def kind(block: Chain) -> str:
    """A: no sum inside the branch; B: a sum of two convolutions; C: a sum with the identity."""
    branch = block.items[0].branches[0]
    sums = [node for node in branch.items if isinstance(node, Add)]
    if not sums:
        return "A"
    return "C" if Chain() in sums[0].branches else "B"


@pytest.mark.parametrize("depth", DEPTHS)
def test_blocks_cycle_through_three_kinds_until_the_last_stage(depth):
    network = p3d(depth=depth)
    stages = {stage.label: [b for b in stage.items if isinstance(b, Chain)] for stage in network.body.items[1:-1]}
    assert tuple(map(len, stages.values())) == DEPTHS[depth]
    kinds = [kind(block) for label in ("stage2", "stage3", "stage4") for block in stages[label]]
    assert kinds == [k for k, _ in zip(cycle("ABC"), kinds)]
    temporal = [site for site in network.sites if site.role == "temporal"]
    assert len(temporal) == sum(DEPTHS[depth][:3])
    # The convolutions of the ResNet below it (without projections), its classifier, and the temporal ones.
    convs = [s for s in network.sites if isinstance(s.leaf, Conv) and s.role != "projection"]
    assert len(convs) + 1 == depth
    assert all("stage5" not in site.path for site in temporal)


@pytest.mark.parametrize(("frames", "left"), [(16, [8, 4, 2, 1, 1]), (5, [2, 1, 1, 1, 1]), (1, [1] * 5)])
def test_pooling_halves_time_after_stages_and_strides_the_image_alone(frames, left):
    network = p3d(depth=63, classes=7, input=(1, frames, 64, 40))
    after = {site.path[0]: site.after.space for site in network.sites}
    assert [after[label][0] for label in ("stem", "stage2", "stage3", "stage4", "stage5")] == left
    assert [after[label][1:] for label in ("stem", "stage2", "stage5")] == [(16, 10), (16, 10), (2, 2)]
    strides = {axes(s.leaf.stride, 3) for s in network.sites if s.role in ("spatial", "temporal")}
    assert strides == {(1, 1, 1)}
    assert {axes(s.leaf.stride, 3) for s in network.sites if s.role == "reduce"} == {(1, 1, 1), (1, 2, 2)}


def test_params_are_within_three_percent_of_the_sizes_printed():
    """98 MB and, with Kinetics' 400 classes, 261 MB; ours in MiB of float32."""
    assert round(cost(p3d(depth=63)).params * 4 / 2**20, 1) == 95.9
    assert round(cost(p3d(depth=199, classes=400)).params * 4 / 2**20, 1) == 253.6


def test_a_short_small_clip_traces_to_the_cost_of_its_leaves():
    network = p3d(depth=63, classes=5, input=(3, 3, 24, 20))
    assert trace_flops(build(network, 0), network.input) == cost(network).flops


@pytest.mark.parametrize(("call", "message"), [
    ({"depth": 50}, "`depth` must be one of 63, 131, 199, but got 50"),
    ({"input": (3, 160, 160)}, r"must be \(channels, frames, height, width\)"),
])  # fmt: skip
def test_what_there_is_no_form_for_is_named(call, message):
    with pytest.raises(ArchitectureError, match=message):
        p3d(**call)
