"""A training step after a removal is the step of the unpruned module with the same channels silenced."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning.carry import carry_average, carry_optimizer
from pruning.exact import Pruned, remove_dead
from pruning.places import PruneError

DEAD = {"norm1": [1, 4, 6], "norm2": [0, 5]}


class Net(nn.Module):
    """Two stages and a head; `norm1` is followed by ReLU, `norm2` by a linear layer."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.conv1 = conv(2, 8, 3, padding=1, bias=False)
        self.norm1 = norm(8)
        self.conv2 = conv(8, 8, 3, padding=1, bias=False)  # before a norm, a bias has a gradient of rounding alone
        self.norm2 = norm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        y: Tensor = self.head(x.flatten(2).mean(2))
        return y


Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.05),
    "groups": lambda p: torch.optim.SGD([{"params": p[:3], "lr": 0.1}, {"params": p[3:]}], 0.01, momentum=0.9),
}


def silenced(net: nn.Module) -> None:
    """Hold the dead channels at 0, gradient included, by hooks on the norms."""
    for name, channels in DEAD.items():
        module = net.get_submodule(name)
        mask = torch.ones(8, dtype=torch.float64)
        mask[channels] = 0

        def hook(_module: nn.Module, _inputs: object, y: Tensor, mask: Tensor = mask) -> Tensor:
            return y * mask.view(1, -1, *(1 for _ in y.shape[2:]))

        module.register_forward_hook(hook)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def trained(dims: int, make: Make) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    """A net whose dead channels were silent for four steps, and batches to go on with."""
    torch.manual_seed(0)
    net = Net(dims).double()
    rng = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(8, 2, *(5,) * dims, generator=rng).double(), torch.randint(0, 3, (8,), generator=rng))
        for _ in range(7)
    ]
    optimizer = make(list(net.parameters()))
    silenced(net)
    for x, y in batches[:4]:
        step(net, optimizer, x, y)
    for module in net.modules():
        module._forward_hooks.clear()
    with torch.no_grad():
        for name, channels in DEAD.items():
            norm = net.get_submodule(name)
            norm.weight[channels] = 0  # type: ignore[operator]
            norm.bias[channels] = 0  # type: ignore[operator]
    return net, optimizer, batches[4:]


def prune(net: nn.Module, dims: int) -> Pruned:
    pruned = remove_dead(net, example=torch.zeros(1, 2, *(5,) * dims))
    assert {name: [c.channel for c in found] for name, found in pruned.removed.items()} == {
        name.replace("norm", "conv"): channels for name, channels in DEAD.items()
    }
    return pruned


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_next_steps_are_those_of_the_silenced_module(name: str, dims: int) -> None:
    net, optimizer, batches = trained(dims, OPTIMIZERS[name])
    pruned = prune(net, dims)
    carried = carry_optimizer(optimizer, net, pruned)
    assert type(carried) is type(optimizer)
    silenced(net)
    for x, y in batches:
        step(net, optimizer, x, y)
        step(pruned.network, carried, x, y)
    after = dict(pruned.network.named_parameters())
    for key, parameter in net.named_parameters():
        wanted = pruned.cuts.narrowed(key, parameter.detach())
        assert wanted.shape == after[key].shape
        assert torch.allclose(wanted, after[key], rtol=1e-10, atol=1e-12), key


def test_without_its_state_the_next_step_would_differ() -> None:
    """The comparison above can fail."""
    net, optimizer, batches = trained(2, OPTIMIZERS["adam"])
    pruned = prune(net, 2)
    new = OPTIMIZERS["adam"](list(pruned.network.parameters()))
    silenced(net)
    step(net, optimizer, *batches[0])
    step(pruned.network, new, *batches[0])
    wanted = pruned.cuts.narrowed("head.weight", net.get_parameter("head.weight").detach())
    assert (wanted - pruned.network.get_parameter("head.weight")).abs().max() > 1e-3


def test_an_average_equal_to_the_weights_becomes_the_pruned_weights_and_another_follows() -> None:
    net, _, _ = trained(2, OPTIMIZERS["sgd"])
    with torch.no_grad():
        net.norm1.bias[[1, 4]] = 0.4  # type: ignore[index, operator, union-attr]
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    pruned = remove_dead(net, example=torch.zeros(1, 2, 5, 5))
    assert pruned.removed["conv1"]
    state = carry_average(average.module.state_dict(), net, pruned)
    assert state.keys() == pruned.network.state_dict().keys()
    for key, tensor in pruned.network.state_dict().items():
        assert torch.allclose(state[key].double(), tensor.double(), rtol=0, atol=1e-15), key
    with torch.no_grad():
        average.module.head.bias += 1
    moved = copy.deepcopy(pruned.network)
    moved.load_state_dict(carry_average(average.module.state_dict(), net, pruned))
    x = torch.randn(3, 2, 5, 5).double()
    assert torch.allclose(moved.eval()(x), pruned.network.eval()(x) + 1, atol=1e-12)


def test_a_bias_that_was_added_joins_its_weights_group() -> None:
    net = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1, bias=False), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(16, 2)),
    )
    with torch.no_grad():
        net[1].weight[2], net[1].bias[2] = 0, 0.5  # type: ignore[index, operator]
    optimizer = torch.optim.SGD([{"params": net[:3].parameters(), "lr": 0.5}, {"params": net[3:].parameters()}], 0.1)
    pruned = remove_dead(net, example=torch.zeros(1, 2, 4, 4))
    carried = carry_optimizer(optimizer, net, pruned)
    assert pruned.cuts.added == {"2.bias"}
    assert any(p is pruned.network.get_parameter("2.bias") for p in carried.param_groups[0]["params"])
    assert sum(len(group["params"]) for group in carried.param_groups) == len(list(pruned.network.parameters()))


def test_what_mixes_entries_or_is_not_of_the_module_is_refused() -> None:
    net, optimizer, _ = trained(2, OPTIMIZERS["sgd"])
    pruned = prune(net, 2)
    optimizer.state[net.get_parameter("conv1.weight")]["rows"] = torch.zeros(8)
    with pytest.raises(PruneError, match=r"rows of conv1\.weight is"):
        carry_optimizer(optimizer, net, pruned)
    with pytest.raises(PruneError, match="must hold parameters of the module"):
        carry_optimizer(torch.optim.SGD(Net(2).parameters(), 0.1), net, pruned)
    with pytest.raises(PruneError, match=r"conv1\.weight is"):
        carry_average({**net.state_dict(), "conv1.weight": torch.zeros(3)}, net, pruned)
