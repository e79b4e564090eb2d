"""The dilated context module: how far each layer sees, what it weighs, and that no position is lost."""

import pytest

from searchspace.architecture import Architecture, Chain
from searchspace.cost import cost
from searchspace.published.dilated import dilated_context
from searchspace.receptive_field import receptive_field


@pytest.mark.parametrize("size", ["basic", "large"])
def test_the_receptive_field_of_each_layer(size):
    module = dilated_context(size=size, channels=3)
    nodes = [node for part in module.body.items for node in part.items]
    layers = [i for i, node in enumerate(nodes) if node.label]
    seen = [receptive_field(Architecture(module.input, Chain(tuple(nodes[: i + 1])))) for i in layers]
    assert seen == [(n, n) for n in (3, 5, 9, 17, 33, 65, 67, 67)]


@pytest.mark.parametrize(("size", "squares"), [("basic", 64), ("large", 15_422)])
@pytest.mark.parametrize("channels", [1, 8, 21])
def test_weights_are_a_multiple_of_channels_squared(size, squares, channels):
    module = dilated_context(size=size, channels=channels)
    biases = sum(site.after.channels for site in module.sites if site.role)
    assert cost(module).params == squares * channels**2 + biases
    if (size, channels) == ("large", 21):
        assert cost(module).params == 6_803_139


def test_every_map_keeps_its_size_and_the_scores_their_number():
    module = dilated_context(channels=5, input=(5, 7, 50))
    assert {site.after.space for site in module.sites} == {(7, 50)}
    assert module.output.channels == 5
    assert dilated_context(channels=5, classes=9).output.channels == 9
    assert module == dilated_context(channels=5, classes=5, input=(5, 7, 50))
