"""What is known to be constant, by which cause, and where it stops being so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pruning.channels import constants
from pruning.places import PruneError, observe
from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Flatten,
    Leaf,
    Linear,
    Norm,
    Pool,
    Select,
    Shuffle,
    SqueezeExcite,
)
from searchspace.layers import ACTIVATION_MODULES
from searchspace.network import Network

Make = Callable[..., Network]
Kill = Callable[..., None]

SIZE = (2, 6, 6)
HEAD = (AdaptivePool(), Flatten(), Linear(3))


def first(n: int, network: Network) -> nn.Sequential:
    return nn.Sequential(*list(network.body.children())[:n])


def known(network: Network, name: str) -> dict[int, tuple[float, str]]:
    return {c.channel: (c.value, c.cause) for c in constants(network).get(name, ())}


def test_nothing_is_constant_in_a_random_network(make: Make) -> None:
    assert constants(make(SIZE, Conv(4, 3), Norm(), Activation(), *HEAD)) == {}


@pytest.mark.parametrize("kind", sorted(ACTIVATION_MODULES))
def test_scale_zero_then_an_activation_of_a_constant(make: Make, kill: Kill, kind: str) -> None:
    network = make(SIZE, Conv(4, 3), Norm(), Activation(kind), *HEAD)
    kill(network, "body.1", [1], 0.0)
    kill(network, "body.1", [2], -0.7)
    assert known(network, "body.0") == {}
    assert known(network, "body.1") == {1: (0.0, "norm scale 0"), 2: (-0.7, "norm scale 0")}
    expected = ACTIVATION_MODULES[kind]()(torch.tensor([0.0, -0.7], dtype=torch.float64)).tolist()
    found = known(network, "body.2")
    assert [found[c][0] for c in (1, 2)] == expected
    assert found[1][1] == "activation of a constant"


def test_a_zero_filter_is_its_bias_and_norms_and_filters_of_constants_are_constants(make: Make) -> None:
    network = make(SIZE, Conv(4, 3, bias=True), Norm(), Activation(), Conv(5), *HEAD)
    with torch.no_grad():
        network.get_parameter("body.0.weight").zero_()
    values = known(network, "body.0")
    assert {cause for _, cause in values.values()} == {"zero filter"}
    assert [v for v, _ in values.values()] == network.get_parameter("body.0.bias").tolist()
    assert {cause for _, cause in known(network, "body.1").values()} == {"norm of a constant"}
    out = first(4, network)(torch.randn(2, *SIZE).double())
    got = known(network, "body.3")
    assert {cause for _, cause in got.values()} == {"constant input"}
    assert torch.allclose(out[1, :, 2, 3], torch.tensor([v for v, _ in got.values()]).double(), rtol=1e-6)
    assert len(known(network, "body.6")) == 3


@pytest.mark.parametrize(
    ("layer", "stays"),
    [
        (Pool("max", 3, 1), True),
        (Pool("average", 3, 1), False),
        (Pool("average", 2, 2, 0), True),
        (Depthwise(3), False),
        (Depthwise(3, padding=0), True),
        (Depthwise(1), True),
        (Conv(4, 3), False),
        (Conv(4, 3, padding=0), True),
        (Conv(4, 1, padding=1), False),
    ],
    ids=str,
)
def test_a_non_zero_constant_survives_only_where_no_zero_padding_borders_it(
    make: Make, kill: Kill, layer: Leaf, stays: bool
) -> None:
    network = make(SIZE, Conv(4, 3), Norm(), layer, *HEAD)
    kill(network, "body.1", range(4), 0.5)
    out: Tensor = first(3, network)(torch.randn(2, *SIZE).double())
    flat = bool(((out.amax((0, 2, 3)) - out.amin((0, 2, 3))) < 1e-12).all())
    assert flat == stays
    assert len(known(network, "body.2")) == (4 if stays else 0)
    kill(network, "body.1", range(4), 0.0)
    assert len(known(network, "body.2")) == 4


def test_a_sum_is_constant_where_every_summand_is(make: Make, kill: Kill) -> None:
    branch = Chain((Conv(4), Norm()))
    network = make(SIZE, Add((branch, branch)), Activation(), *HEAD)
    kill(network, "body.0.0.1", [0, 1], 0.25)
    kill(network, "body.0.1.1", [1, 2], 0.5)
    assert known(network, "body.1") == {1: (0.75, "activation of a constant")}


def test_indices_move_through_shuffle_selection_and_concatenation_of_octave_maps(make: Make, kill: Kill) -> None:
    branch = Chain((Conv(6, low=2), Norm()))
    chosen = Select((1, 2, 3, 10, 8, 10))
    network = make(SIZE, Concat((branch, branch)), Shuffle(2), chosen, Activation("sigmoid"), *HEAD)
    kill(network, "body.0.0.1", [1, 5], -1.0)  # a high and a low channel of the first branch: 1 and 9 side by side
    kill(network, "body.0.1.1", [0], 2.0)  # a high one of the second: 4
    # shuffled: high 0 4 1 5 2 6 3 7, low 8 10 9 11; chosen from that: 4 1 5 9 8 9
    expected = {c: torch.tensor(v).double().sigmoid().item() for c, v in ((0, 2.0), (1, -1.0), (3, -1.0), (5, -1.0))}
    assert {c: v for c, (v, _) in known(network, "body.3").items()} == pytest.approx(expected, rel=1e-15)
    high, low = first(4, network)(torch.randn(2, *SIZE).double())
    assert [c for c, x in enumerate((*high.unbind(1), *low.unbind(1))) if x.max() == x.min()] == list(expected)


def test_a_gate_keeps_zeros_loses_constants_and_makes_a_zero_where_it_is_closed(make: Make, kill: Kill) -> None:
    network = make(SIZE, Conv(4, 3), Norm(), SqueezeExcite(3, gate="hardsigmoid"), *HEAD)
    kill(network, "body.1", [0], 0.0)
    kill(network, "body.1", [1], 0.5)
    with torch.no_grad():
        network.get_parameter("body.2.expand.weight")[2] = 0
        network.get_parameter("body.2.expand.bias")[2] = -9
        network.get_parameter("body.2.squeeze.weight")[1] = 0
    assert known(network, "body.2") == {0: (0.0, "constant input"), 2: (0.0, "closed gate")}
    assert list(known(network, "body.2.squeeze")) == [1]


def test_observed_constants_name_the_number_of_samples(make: Make) -> None:
    network = make(SIZE, Conv(4, 3), Norm(), Activation("relu6"), *HEAD)
    with torch.no_grad():
        network.get_parameter("body.1.bias")[0] = -99
        network.get_parameter("body.1.bias")[1] = 99
    batches = [torch.randn(3, *SIZE), torch.randn(2, *SIZE)]
    assert observe(network, [x.double() for x in batches]).samples == 5
    found = {c.channel: (c.value, c.cause) for c in constants(network, batches)["body.2"]}
    assert found == {0: (0.0, "zero on all 5 samples"), 1: (6.0, "constant on all 5 samples")}
    assert "body.1" not in constants(network, batches)
    assert "body.2" not in constants(network)
    assert not network.get_submodule("body.0")._forward_hooks


def test_one_sample_shows_nothing(make: Make) -> None:
    network = make(SIZE, Conv(4, 3), *HEAD)
    for batches in ([], [torch.randn(1, *SIZE)]):
        with pytest.raises(PruneError, match="At least 2 samples"):
            observe(network, batches)
