"""Dead and constant channels leave, the function stays: rule by rule, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import pruning.exact
from pruning.exact import Pruned, remove_dead
from pruning.proof import PruneError
from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Axes,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Flatten,
    Linear,
    LocalNorm,
    Norm,
    Pool,
    Select,
    Shuffle,
    SqueezeExcite,
    Tap,
)
from searchspace.checkpoint import load, save
from searchspace.network import Network

Make = Callable[..., Network]
Kill = Callable[..., None]
Check = Callable[[Network], Pruned]

HEAD = (AdaptivePool(), Flatten(), Linear(3))
SIZE = (2, 6, 6)


def unit(out: int, kernel: int = 3, **options: int) -> tuple[Conv, Norm, Activation]:
    return Conv(out, kernel, **options), Norm(), Activation()  # type: ignore[arg-type]


def gone(pruned: Pruned) -> dict[str, list[int]]:
    return {name: [c.channel for c in found] for name, found in pruned.removed.items()}


def stays(pruned: Pruned) -> dict[str, dict[int, str]]:
    return {name: {k.constant.channel: k.reason for k in found} for name, found in pruned.kept.items()}


# rule by rule


def test_zeros_leave_and_the_costs_fall_by_what_they_took(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(8), *unit(5), *HEAD)
    kill(network, "body.1", [1, 2, 6], 0.0)
    pruned = check(network)
    assert gone(pruned) == {"body.0": [1, 2, 6]}
    assert pruned.kept == {}
    assert {(c.value, c.cause, c.at) for c in pruned.removed["body.0"]} == {(0.0, "norm scale 0", "body.1")}
    before, after = pruned.cost_before, pruned.cost_after
    assert before.macs - after.macs == 36 * 9 * (3 * 2 + 5 * 3)
    assert before.params - after.params == 9 * (3 * 2 + 5 * 3) + 2 * 3
    assert before.activations - after.activations == 36 * 3
    assert "Removed 3 channels from 1 layer:" in pruned.words


def test_a_negative_shift_dies_in_relu_and_a_zero_filter_in_its_norm(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(8), *unit(5), *HEAD)
    kill(network, "body.1", [0], -2.0)
    with torch.no_grad():
        network.get_parameter("body.0.weight")[3] = 0
        network.get_parameter("body.1.bias")[3] = -50
    pruned = check(network)
    assert [(c.channel, c.value, c.cause) for c in pruned.removed["body.0"]] == [
        (0, 0.0, "norm scale 0"),
        (3, 0.0, "zero filter"),
    ]


def test_constants_fold_into_the_running_mean_the_bias_or_a_new_bias(make: Make, check: Check, kill: Kill) -> None:
    for reader, grows in (((Conv(4), Norm()), 0), ((Conv(4, bias=True),), 0), ((Conv(4), Activation("tanh")), 4)):
        network = make(SIZE, *unit(8), *reader, *HEAD)
        kill(network, "body.1", [0, 1, 2], 0.7)
        pruned = check(network)
        assert gone(pruned) == {"body.0": [0, 1, 2]}
        assert {c.value for c in pruned.removed["body.0"]} == {0.7}
        assert pruned.cost_before.params - pruned.cost_after.params == 3 * (18 + 2 + 4) - grows


@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (3, 2), ((1, 3), 1), (5, 4)])
def test_past_zero_padding_one_constant_of_each_group_carries_the_others(
    make: Make, check: Check, kill: Kill, kernel: Axes, groups: int
) -> None:
    network = make(SIZE, *unit(16), Conv(8, kernel, groups=groups), *HEAD)
    each = 16 // groups
    dead = [g * each + c for g in range(groups) for c in range(3)]
    kill(network, "body.1", dead, 0.7)
    pruned = check(network)
    assert len(gone(pruned)["body.0"]) == 2 * groups
    reasons = set(stays(pruned)["body.1"].values())
    assert len(stays(pruned)["body.1"]) == groups
    assert reasons <= {
        "carries its group's constants past the zero padding of body.3",
        "body.3 needs as many channels in every group",
    }


def test_one_constant_before_zero_padding_stays_and_is_named(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(8), Conv(4, 3), *HEAD)
    kill(network, "body.1", [5], 0.7)
    pruned = check(network)
    assert gone(pruned) == {}
    assert stays(pruned) == {"body.1": {5: "is not zero where zeros are padded in body.3"}}
    assert "Nothing to remove" in pruned.words


def test_a_depthwise_convolution_loses_what_its_input_loses(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(8), Depthwise(3, 2, bias=True), Norm(), Activation(), *unit(4, 1), *HEAD)
    kill(network, "body.1", [2], 0.0)
    kill(network, "body.4", [3], -0.5)  # the filter before it dies with it
    kill(network, "body.1", [5], 0.9)  # varies at the padded border after all
    pruned = check(network)
    assert gone(pruned) == {"body.0": [2, 3]}
    assert stays(pruned) == {"body.1": {5: "varies at the zero-padded border in body.3"}}
    assert pruned.cost_before.params - pruned.cost_after.params == 2 * (18 + 2 + 9 + 1 + 2 + 4)


def test_a_sum_loses_a_channel_only_where_every_summand_is_constant(make: Make, check: Check, kill: Kill) -> None:
    branch = Chain((Conv(6, 3), Norm()))
    network = make(SIZE, Add((branch, Chain((Conv(6), Norm())))), Activation(), *unit(4), *HEAD)
    kill(network, "body.0.0.1", [0, 1, 2], -1.0)
    kill(network, "body.0.1.1", [2, 3], 0.5)
    pruned = check(network)
    assert gone(pruned) == {"body.0.0.0": [2], "body.0.1.0": [2]}
    assert pruned.removed["body.0.0.0"][0].value == 0
    assert stays(pruned) == {
        "body.0.0.1": dict.fromkeys((0, 1), "is added to a channel that varies"),
        "body.0.1.1": {3: "is added to a channel that varies"},
    }


def test_a_trunk_loses_a_channel_that_is_dead_in_every_block_of_its_stage(make: Make, check: Check, kill: Kill) -> None:
    block = Chain((Add((Chain((*unit(5), Conv(6, 3), Norm())), Chain())), Activation()))
    network = make(SIZE, *unit(6), block, block, *HEAD)
    for name in ("body.1", "body.3.0.0.4", "body.4.0.0.4"):
        kill(network, name, [1, 4], 0.0)
    kill(network, "body.3.0.0.4", [2], 0.0)
    pruned = check(network)
    assert gone(pruned) == {name: [1, 4] for name in ("body.0", "body.3.0.0.3", "body.4.0.0.3")}
    assert stays(pruned) == {"body.3.0.0.4": {2: "is added to a channel that varies"}}


def test_concatenated_parts_lose_their_own(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, Concat((Chain(unit(4)), Chain(unit(5, 1)), Chain())), *unit(6), *HEAD)
    kill(network, "body.0.0.1", [3], -1.0)
    kill(network, "body.0.1.1", [0, 2], 0.0)
    assert gone(check(network)) == {"body.0.0.0": [3], "body.0.1.0": [0, 2]}


def test_groups_lose_equal_counts_at_any_places_and_the_rest_is_named(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(8), *unit(12, groups=2), *unit(4), *HEAD)
    kill(network, "body.4", [0, 3, 5, 7], 0.0)
    pruned = check(network)
    assert len(gone(pruned)["body.3"]) == 2
    assert 7 in gone(pruned)["body.3"]
    assert set(stays(pruned)["body.4"].values()) == {"body.3 needs as many channels in every group"}
    kill(network, "body.1", [1, 2, 6], -1.0)
    pruned = check(network)
    assert len(gone(pruned)["body.0"]) == 2
    assert set(stays(pruned)["body.1"].values()) == {"body.3 needs as many channels in every group"}


def test_a_shuffle_stays_where_all_groups_lose_the_same_places(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(9), *unit(12, groups=3), Shuffle(3), *unit(6, groups=3), *HEAD)
    kill(network, "body.4", [1, 5, 9], -1.0)  # after shuffling, one in each chunk of the reader: place 1 of 0-3
    pruned = check(network)
    assert gone(pruned) == {}  # 3, 4, 5 lie in the reader's chunks 0, 1, 1
    dense = make(SIZE, *unit(9), *unit(12, groups=3), Shuffle(3), *unit(6), *HEAD)
    kill(dense, "body.4", [1, 5, 9], -1.0)
    pruned = check(dense)
    assert gone(pruned) == {"body.3": [1, 5, 9]}
    assert pruned.architecture.body.items[6] == Shuffle(3)
    kill(dense, "body.4", [2, 11], -1.0)
    kill(dense, "body.4", [7], -1.0)
    pruned = check(dense)
    assert gone(pruned) == {"body.3": [1, 2, 5, 7, 9, 11]}
    assert pruned.architecture.body.items[6] == Select((0, 2, 4, 3, 5, 1))  # of 0 3 4 6 8 10


def test_between_two_grouped_convolutions_a_shuffle_loses_as_many_as_both_allow(
    make: Make, check: Check, kill: Kill
) -> None:
    network = make(SIZE, *unit(8), *unit(12, groups=2), Shuffle(2), *unit(6, groups=2), *HEAD)
    kill(network, "body.4", [0, 1, 9, 11], -1.0)  # places 0, 2 of the first chunk; 7, 11 of the second
    pruned = check(network)
    assert gone(pruned) == {"body.3": [0, 1, 9, 11]}
    kill(network, "body.4", [2, 3], -1.0)
    assert len(gone(check(network))["body.3"]) == 4


def test_no_layer_is_emptied(make: Make, check: Check, kill: Kill) -> None:
    for groups in (1, 2):
        network = make(SIZE, *unit(8), *unit(8, groups=groups), *unit(4, 1), *HEAD)
        kill(network, "body.4", range(8), 0.0)
        pruned = check(network)
        assert len(gone(pruned)["body.3"]) == 8 - groups
        assert set(stays(pruned)["body.4"].values()) == {
            "body.3 keeps at least one channel" + (" in each group" if groups > 1 else "")
        }
        # what only fed the dead layer is read by no weight that matters
        assert len(gone(pruned)["body.0"]) == 8 - groups
        assert {c.cause for c in pruned.removed["body.0"]} == {"read by no weight"}


def test_frequencies_lose_their_own_and_keep_one_each(make: Make, check: Check, kill: Kill) -> None:
    for stride in (1, 2):
        network = make(
            SIZE, Conv(12, 3, low=4), Norm(), Activation(), Conv(9, 3, stride, low=3), Norm(), Activation(), *HEAD
        )
        kill(network, "body.1", [0, 9, 10], 0.0)
        kill(network, "body.1", [3, 4, 11], 0.6)
        kill(network, "body.4", [1, 6, 7, 8], -0.5)
        pruned = check(network)
        assert set(gone(pruned)["body.0"]) >= {0, 9, 10}
        assert len(gone(pruned)["body.0"]) == 4  # 3 or 4 carries the other; 11 has nobody
        assert len(gone(pruned)["body.3"]) == 3
        assert pruned.architecture.sites[0].leaf == Conv(8, 3, low=2)
        assert pruned.architecture.sites[3].leaf == Conv(6, 3, stride, low=1)


def test_squeeze_excite_loses_channels_and_hidden_units(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(8), SqueezeExcite(4, gate="hardsigmoid"), *unit(4), *HEAD)
    kill(network, "body.1", [0], 0.0)
    kill(network, "body.1", [1], 0.5)
    with torch.no_grad():
        network.get_parameter("body.3.squeeze.weight")[[1, 2]] = 0
        network.get_parameter("body.3.squeeze.bias")[:3] = torch.tensor([0.1, -1.0, 0.8])
        network.get_parameter("body.3.expand.weight")[5] = 0
        network.get_parameter("body.3.expand.bias")[5] = -4
    pruned = check(network)
    assert gone(pruned) == {"body.0": [0], "body.3.squeeze": [1, 2]}
    assert [c.value for c in pruned.removed["body.3.squeeze"]] == pytest.approx([0.0, 0.8])
    assert stays(pruned)["body.1"] == {1: "is multiplied by a gate that varies in body.3"}
    # a closed gate makes zeros of what the squeeze still reads
    assert stays(pruned)["body.3"] == {5: "varies where body.3.squeeze reads it"}


def test_a_map_is_flattened_channel_by_channel(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(8), Pool("max", 3, 2), Flatten(), Linear(7), Activation(), Linear(3))
    kill(network, "body.1", [2, 5], 0.4)
    with torch.no_grad():
        network.get_parameter("body.5.weight")[[0, 3]] = 0
        network.get_parameter("body.5.bias")[[0, 3]] = torch.tensor([0.5, -0.5]).double()
    pruned = check(network)
    assert gone(pruned) == {"body.0": [2, 5], "body.5": [0, 3]}
    assert pruned.cost_before.params - pruned.cost_after.params == 2 * (18 + 2) + 2 * (8 * 9 + 1 + 3) + 5 * 2 * 9


def test_padded_average_pooling_keeps_zeros_alone(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(8), Pool("average", 3, 2), *unit(4, 1), *HEAD)
    kill(network, "body.1", [2], 0.0)
    kill(network, "body.1", [5], 0.4)
    pruned = check(network)
    assert gone(pruned) == {"body.0": [2]}
    assert stays(pruned) == {"body.1": {5: "varies at the zero-padded border in body.3"}}


def test_local_norm_holds_its_channels(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(8), LocalNorm(), *unit(4, 1), *HEAD)
    kill(network, "body.1", [2], 0.0)
    assert stays(check(network)) == {"body.1": {2: "is read by constant_pad_nd in body.3, which is not followed"}}


def test_a_selection_is_renumbered_and_keeps_one(make: Make, check: Check, kill: Kill) -> None:
    network = make(SIZE, *unit(6), Select((5, 1, 1, 4)), *unit(4), *HEAD)
    kill(network, "body.1", [1, 2], 0.0)
    pruned = check(network)
    assert gone(pruned)["body.0"] == [0, 1, 2, 3]  # 0 and 3 are read by nobody
    assert pruned.architecture.body.items[3] == Select((1, 0))
    network = make(SIZE, *unit(6), Concat((Select((1, 2)), Select((0, 5)))), *unit(4), *HEAD)
    kill(network, "body.1", [1, 2], 0.0)
    assert len(gone(check(network))["body.0"]) == 3


def test_an_auxiliary_head_is_pruned_and_proved_along(make: Make, check: Check, kill: Kill) -> None:
    head = Chain((*unit(4, 1), AdaptivePool(), Flatten(), Linear(3)))
    network = make(SIZE, *unit(8), Tap(head), *unit(4), *HEAD)
    kill(network, "body.1", [2, 5], 0.0)
    kill(network, "body.3.0.1", [0], 0.3)
    pruned = check(network)
    assert gone(pruned) == {"body.0": [2, 5], "body.3.0.0": [0]}
    network.train()
    pruned.network.train()
    x = torch.randn(4, *SIZE).double()
    with torch.no_grad():
        (wanted, (aux,)), (got, (new_aux,)) = network(x), pruned.network(x)
    assert torch.allclose(wanted, got, rtol=1e-12)
    assert torch.allclose(aux, new_aux, rtol=1e-12)


def test_inputs_and_outputs_stay(make: Make, check: Check) -> None:
    network = make(SIZE, *unit(4), *HEAD)
    with torch.no_grad():
        network.get_parameter("body.0.weight")[:, 0] = 0
        network.get_parameter("body.5.weight")[1] = 0
    pruned = check(network)
    assert gone(pruned) == {}
    assert stays(pruned) == {"body.5": {1: "is an output of the network"}}


def test_nothing_to_remove_gives_an_equal_network(make: Make) -> None:
    network = make(SIZE, *unit(4), *HEAD).float()
    pruned = remove_dead(network)
    assert pruned.words == "Nothing to remove: the network is unchanged."
    assert pruned.architecture == network.architecture
    assert pruned.cost_before == pruned.cost_after
    assert pruned.network is not network
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), pruned.network.state_dict().values()))


# what comes out


def test_the_result_is_saved_loaded_trained_and_pruned_again(make: Make, kill: Kill, tmp_path: Path) -> None:
    network = make(SIZE, *unit(8), *unit(5), *HEAD).float().train()
    kill(network, "body.1", [1, 2, 6], 0.4)
    network.get_parameter("body.0.weight").requires_grad_(False)
    pruned = remove_dead(network)
    assert pruned.network.training
    assert next(pruned.network.parameters()).dtype == torch.float32
    save(tmp_path / "pruned.safetensors", pruned.network)
    loaded = load(tmp_path / "pruned.safetensors")
    assert loaded.architecture == pruned.architecture
    for name, tensor in pruned.network.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert not pruned.network.get_parameter("body.0.weight").requires_grad
    optimizer = torch.optim.SGD([p for p in pruned.network.parameters() if p.requires_grad], 0.1)
    before = pruned.network.get_parameter("body.3.weight").clone()
    pruned.network(torch.randn(4, *SIZE)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(before, pruned.network.get_parameter("body.3.weight"))
    assert remove_dead(loaded).removed == {}
    record = pruned.to_json()
    assert record["format"] == "pruned/1"
    assert record["proof"]["samples"] == 16  # type: ignore[index]


def test_float32_stays_within_its_own_rounding(make: Make, kill: Kill) -> None:
    network = make(SIZE, *unit(16), *unit(12), *unit(5), *HEAD).float()
    kill(network, "body.1", range(0, 16, 3), 0.4)
    kill(network, "body.4", range(0, 12, 2), 0.0)
    pruned = remove_dead(network)
    assert len(gone(pruned)["body.0"]) == 5
    x = torch.randn(16, *SIZE)
    with torch.no_grad():
        wanted, got = network(x), pruned.network(x)
    assert (wanted - got).abs().max() <= 1e-5 * wanted.abs().max()
    assert torch.equal(wanted.argmax(1), got.argmax(1))


# refusals


def _hooked(network: Network) -> nn.Module:
    network.get_submodule("body.0").register_forward_hook(lambda *_: None)
    return network


def _parametrized(network: Network) -> nn.Module:
    weight_norm(network.get_submodule("body.0"))
    return network


def _replaced(network: Network) -> nn.Module:
    setattr(network.body, "2", nn.ReLU6())
    return network


def _patched(network: Network) -> nn.Module:
    network.get_submodule("body.2").forward = torch.relu  # type: ignore[method-assign, assignment]
    return network


def _infinite(network: Network) -> nn.Module:
    nn.init.constant_(network.get_parameter("body.1.weight"), float("inf"))
    return network


def _mixed(network: Network) -> nn.Module:
    network.get_submodule("body.0").float()
    return network


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda network: network.body, "must come with an example"),
        (_hooked, "no hooks, but body.0 has"),
        (_parametrized, r"body\.0"),
        (_replaced, r"body\.2"),
        (_patched, "no hooks, but body.2 has"),
        (_infinite, "finite weights, but body.1.weight"),
        (_mixed, "one precision, but got torch.float32, torch.float64"),
    ],
)
def test_what_is_no_plain_network_is_refused(make: Make, change: Callable[[Network], nn.Module], words: str) -> None:
    with pytest.raises(PruneError, match=words):
        remove_dead(change(make(SIZE, *unit(4), *HEAD)))


@pytest.mark.parametrize("batch", [torch.zeros(4, 3, 6, 6), torch.zeros(2, 6), "images"])
def test_batches_of_another_shape_are_refused(make: Make, batch: Tensor) -> None:
    network = make(SIZE, *unit(4), *HEAD)
    with pytest.raises(PruneError, match=r"\(batch, 2, 6, 6\), but got"):
        remove_dead(network, [batch])
    with pytest.raises(PruneError, match=r"\(batch, 2, 6, 6\), but got"):
        remove_dead(network, proof_inputs=[batch])


def test_a_failure_on_the_way_changes_nothing(make: Make, kill: Kill, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(SIZE, *unit(8), *unit(5), *HEAD)
    kill(network, "body.1", [1], 0.0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    right = pruning.exact.narrow

    def wrong(module: nn.Module, *arguments: object) -> object:
        found = right(module, *arguments)  # type: ignore[arg-type]
        module.get_submodule("body.0").weight = nn.Parameter(module.get_parameter("body.0.weight")[1:])
        return found

    monkeypatch.setattr(pruning.exact, "narrow", wrong)
    with pytest.raises(PruneError, match="must run as the one given does"):
        remove_dead(network)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
