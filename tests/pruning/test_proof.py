"""The proof holds for equal functions and breaks for wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import pruning.moves
from pruning.exact import remove_dead
from pruning.graph import Made
from pruning.places import Place, PruneError, evaluating
from pruning.proof import LIMIT, fresh_inputs, prove
from searchspace.architecture import Activation, AdaptivePool, Chain, Conv, Flatten, Linear, Norm, Shuffle, Tap
from searchspace.network import Network

Make = Callable[..., Network]
Kill = Callable[..., None]

HEAD = (AdaptivePool(), Flatten(), Linear(3))


SIZE = (2, 6, 6)


def silent(module: str, channel: int) -> dict[Made, float]:
    """A channel of the activation `module`, set to 0."""
    return {Made(Place(module, "relu", 0), 1, (channel,)): 0.0}


def unit(out: int, **options: int) -> tuple[Conv, Norm, Activation]:
    return Conv(out, 3, **options), Norm(), Activation()  # type: ignore[arg-type]


def test_a_network_proves_equal_to_itself(make: Make) -> None:
    network = make((2, 6, 6), *unit(4), *HEAD)
    proof = prove(network, network, {}, SIZE)
    assert proof.max_abs_error == proof.relative_error == proof.unsilenced_error == 0
    assert proof.samples == 16
    assert "border lit" in proof.inputs
    assert proof.data_error is None


def test_silenced_channels_equal_removed_ones_and_the_rest_is_reported(make: Make) -> None:
    network = make((2, 6, 6), *unit(4), *unit(5), *HEAD)
    pruned = make((2, 6, 6), *unit(3), *unit(5), *HEAD)
    state = network.state_dict()
    for name in ("body.0.weight", *(f"body.1.{k}" for k in ("weight", "bias", "running_mean", "running_var"))):
        state[name] = state[name][[0, 2, 3]]
    state["body.3.weight"] = state["body.3.weight"][:, [0, 2, 3]]
    pruned.load_state_dict(state)
    proof = prove(network, pruned, silent("body.2", 1), SIZE, everywhere=False)
    assert proof.relative_error < 1e-14
    assert proof.unsilenced_error > 1e-3
    with pytest.raises(PruneError, match="on every input"):
        prove(network, pruned, silent("body.2", 1), SIZE)
    with pytest.raises(PruneError, match="on the given data"):
        prove(network, pruned, silent("body.2", 1), SIZE, everywhere=False, data=[torch.randn(3, 2, 6, 6).double()])
    with pytest.raises(PruneError, match="same channels silenced"):
        prove(network, pruned, silent("body.2", 2), SIZE, everywhere=False)


@pytest.mark.parametrize("position", ["centre", "border"])
def test_one_weight_off_fails(make: Make, position: str) -> None:
    network, other = (make((2, 6, 6), *unit(4), *HEAD) for _ in range(2))
    with torch.no_grad():
        other.get_submodule("body.0").weight[0, 0, *((1, 1) if position == "centre" else (0, 0))] += 1e-6  # type: ignore[union-attr,index,operator]
    with pytest.raises(PruneError, match=r"must equal .* apart"):
        prove(network, other, {}, SIZE)


def test_nan_fails(make: Make) -> None:
    network, other = (make((2, 6, 6), *unit(4), *HEAD) for _ in range(2))
    nn.init.constant_(other.get_parameter("body.5.bias"), float("nan"))
    with pytest.raises(PruneError):
        prove(network, other, {}, SIZE)


def test_an_auxiliary_head_is_compared_too(make: Make) -> None:
    nodes = (*unit(4), Tap(Chain(HEAD)), *unit(4), *HEAD)
    network, other = make((2, 6, 6), *nodes), make((2, 6, 6), *nodes)
    with torch.no_grad():
        other.get_parameter("body.3.0.2.bias").add_(1e-3)
    with pytest.raises(PruneError):
        prove(network, other, {}, SIZE)
    with evaluating(network):
        assert len(network(torch.zeros(1, 2, 6, 6).double())[1]) == 1
    assert not any(module.training for module in network.modules())


def test_a_channel_of_one_frequency_is_silenced(make: Make) -> None:
    network = make((2, 6, 6), Conv(6, 3, low=2), Norm(), Activation(), *HEAD)
    silenced = make((2, 6, 6), Conv(6, 3, low=2), Norm(), Activation(), *HEAD)
    with torch.no_grad():
        silenced.get_parameter("body.5.weight")[:, 5] = 0
    proof = prove(network, silenced, silent("body.2.low", 1), SIZE, everywhere=False)
    assert proof.relative_error < LIMIT < proof.unsilenced_error


def _shuffled(make: Make, kill: Kill) -> Network:
    network = make((2, 6, 6), *unit(8), *unit(12, groups=2), Shuffle(2), *unit(6), *HEAD)
    kill(network, "body.4", [1, 2, 6], -0.4)
    return network


@pytest.fixture
def miswired(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """miswired(): from then on a shuffle is followed as if its channels came out in another order."""

    def wrong() -> None:
        right = pruning.moves._alike

        def turned(name: str, *arguments: object) -> torch.Tensor:
            moved: torch.Tensor = right(name, *arguments)  # type: ignore[arg-type]
            return moved.flip(1) if name.endswith("channel_shuffle") else moved

        monkeypatch.setattr(pruning.moves, "_alike", turned)

    return wrong


def test_a_miswired_shuffle_is_caught_and_leaves_the_network_alone(
    make: Make, kill: Kill, miswired: Callable[[], None]
) -> None:
    network = _shuffled(make, kill)
    assert len(remove_dead(network).removed["body.3"]) == 2
    before = {k: v.clone() for k, v in network.state_dict().items()}
    miswired()
    with pytest.raises(PruneError, match="apart"):
        remove_dead(network)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_a_miswired_removal_on_data_alone_is_caught(make: Make, kill: Kill, miswired: Callable[[], None]) -> None:
    """Channels that only the data show to be dead: silencing happens on the original's own wiring."""
    network = make((2, 6, 6), *unit(8), *unit(12, groups=2), Shuffle(2), *unit(6), *HEAD)
    with torch.no_grad():
        network.get_parameter("body.4.bias").fill_(1.0)[[1, 7]] = -50.0
    batches = [torch.randn(32, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)]
    assert [c.channel for c in remove_dead(network, batches).removed["body.3"]] == [1, 7]
    miswired()
    with pytest.raises(PruneError, match="apart"):
        remove_dead(network, batches)


def test_fresh_inputs_light_the_border_alone() -> None:
    inputs = fresh_inputs((3, 4, 5, 6), 0)
    border = inputs["with only the border lit"]
    assert border[:, :, 1:-1, 1:-1, 1:-1].abs().max() == 0
    assert (border[:, :, 0] != 0).all()
    assert all(x.shape[1:] == (3, 4, 5, 6) for x in inputs.values())
    assert torch.equal(build_noise(), build_noise())


def build_noise() -> torch.Tensor:
    return fresh_inputs((1, 2, 2), 7)["random normal"]


def test_building_for_a_proof_leaves_the_random_stream_alone(make: Make, kill: Kill) -> None:
    network = _shuffled(make, kill)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    remove_dead(network)
    assert torch.equal(torch.rand(1), expected)
