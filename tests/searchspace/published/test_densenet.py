"""DenseNet: what a layer makes stays as it is, and every later layer of its stage reads it."""

import pytest
import torch

from searchspace.architecture import Architecture, Chain
from searchspace.network import build
from searchspace.published.densenet import DEPTHS, densenet


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_layer_reads_all_maps_before_it(depth):
    layers, growth = DEPTHS[depth]
    width = 2 * growth
    for stage, count in enumerate(layers, 1):
        sites = [s for s in densenet(depth=depth).sites if f"stage{stage}" in s.path]
        read = [s.before.channels for s in sites if s.role == "reduce"]
        made = [s.after.channels for s in sites if s.role == "spatial"]
        assert read == [width + i * growth for i in range(count)]
        assert made == [growth] * count
        width += count * growth
        halved = [s.after.channels for s in sites if s.role == "transition"]
        assert halved == ([width // 2] if stage < len(layers) else [])
        width //= 2


def test_a_stage_keeps_what_it_was_given_and_what_its_layers_made():
    stage = densenet().body.items[1]
    networks = [build(Architecture((64, 6, 5), Chain(stage.items[:layers])), 0).eval() for layers in (2, 3, 6)]
    x = torch.randn(2, 64, 6, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        two, three, six = (network(x) for network in networks)
    assert torch.equal(six[:, :64], x)
    assert torch.equal(three[:, : two.shape[1]], two)
    assert [y.shape[1] for y in (two, three, six)] == [64 + 32 * n for n in (2, 3, 6)]


def test_depth_counts_the_convolutions_and_the_classifier():
    for depth in DEPTHS:
        assert sum(bool(s.role) for s in densenet(depth=depth).sites) == depth
