"""Networks to prune: random weights with random norm statistics, in float64, and a way to kill their channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from pruning.exact import Pruned, remove_dead
from searchspace.architecture import Architecture, Chain, Node
from searchspace.network import Network, build, read_architecture

torch.set_num_threads(1)

Make = Callable[..., Network]
Kill = Callable[..., None]
Check = Callable[[Network], Pruned]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make() -> Make:
    """make(input, *nodes, seed=0): the network of these nodes in float64, its norms with random statistics."""

    def made(size: tuple[int, ...], *nodes: Node, seed: int = 0) -> Network:
        network = build(Architecture(size, Chain(nodes)), seed=seed).double().eval()
        rng = torch.Generator().manual_seed(seed)

        def noise(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=rng, dtype=torch.float64)

        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                    assert module.running_mean is not None
                    assert module.running_var is not None
                    module.running_mean.copy_(0.3 * noise(module.running_mean))
                    module.running_var.copy_(0.5 + noise(module.running_var).abs())
                    module.weight.copy_(1 + 0.3 * noise(module.weight))
                    module.bias.copy_(0.5 * noise(module.bias))
        return network

    return made


@pytest.fixture
def kill() -> Kill:
    """kill(network, name, channels, shift=0): the norm `name` scales these channels (high first) to `shift`."""

    def killed(network: Network, name: str, channels: Iterable[int], shift: float = 0.0) -> None:
        module = network.get_submodule(name)
        parts = [p for p in (module.high, module.low) if p is not None] if hasattr(module, "high") else [module]
        start = 0
        with torch.no_grad():
            for part in parts:
                assert isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d)
                here = [c - start for c in channels if start <= c < start + len(part.weight)]
                part.weight[here], part.bias[here] = 0.0, shift
                start += len(part.weight)

    return killed


@pytest.fixture
def check() -> Check:
    """check(network): the result of `remove_dead`, after checking what it promises of any network in float64."""

    def checked(network: Network) -> Pruned:
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        pruned = remove_dead(network)
        rng = torch.Generator().manual_seed(1)
        x = torch.randn(5, *network.architecture.input, generator=rng, dtype=torch.float64)
        with torch.no_grad():
            wanted, got = network(x), pruned.network(x)
        assert (wanted - got).abs().max() <= 1e-12 * wanted.abs().max()
        assert pruned.proof.relative_error <= 1e-12
        assert pruned.proof.unsilenced_error <= 1e-12
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
        assert read_architecture(pruned.network) == pruned.architecture
        for measure in ("flops", "macs", "params", "activations", "interactions"):
            assert getattr(pruned.cost_after, measure) <= getattr(pruned.cost_before, measure)
        for found in pruned.removed.values():
            assert len({c.channel for c in found}) == len(found)
        return pruned

    return checked
