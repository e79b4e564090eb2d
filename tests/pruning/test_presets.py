"""Random members of the presets with 30% of their channels dead: what can leave leaves, the proof holds."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn

import experiments
from pruning.exact import remove_dead
from searchspace.network import Network, build
from searchspace.space import Space

SPACES = Path(experiments.__file__).parent / "spaces"
# Small inputs: the wiring is the same, and padding borders more of each map.
INPUTS = {"digits": (1, 16, 16), "images": (3, 64, 64), "video": (3, 8, 32, 32), "digits-video": (1, 4, 16, 16)}
# Why a dead channel's removal would change the function, or leave illegal widths:
EXCUSES = ("varies", "is not zero where zeros are padded in", "as many channels", "may leave only with", "output")


def planted(network: Network, rng: torch.Generator) -> int:
    """Random statistics; 30% of the channels of each norm dead, zero or constant. Returns their number."""
    count = 0
    with torch.no_grad():
        for norm in (part for part in network.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0, 0.3, generator=rng)
            norm.running_var.uniform_(0.5, 1.5, generator=rng)
            norm.weight.normal_(1, 0.3, generator=rng)
            norm.bias.normal_(0, 0.3, generator=rng)
            dead = torch.rand(len(norm.weight), generator=rng) < 0.3
            shifts = torch.tensor([0.0, 0.4, -0.6])[torch.randint(0, 3, (len(dead),), generator=rng)]
            norm.weight[dead], norm.bias[dead] = 0.0, shifts[dead].to(norm.bias)
            count += int(dead.sum())
    return count


def check(preset: str, seed: int) -> tuple[int, int]:
    """(removed, those that could have left and stay) of one random member."""
    space = Space.from_yaml(SPACES / f"{preset}.yaml", input=INPUTS[preset], classes=7)
    network = build(space.sample(Random(seed)).architecture, seed).double().eval()
    assert planted(network, torch.Generator().manual_seed(seed)) > 0
    pruned = remove_dead(network)
    assert pruned.proof.relative_error <= 1e-10
    assert pruned.proof.unsilenced_error <= 1e-10
    size = pruned.architecture.input
    x = torch.randn(4, *size, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    with torch.no_grad():
        wanted, got = network(x), pruned.network(x)
        assert (wanted - got).abs().max() <= 1e-12 * wanted.abs().max()
        single, narrow = network.float()(x.float()), pruned.network.float()(x.float())
    assert (single - narrow).abs().max() <= 1e-5 * single.abs().max()
    assert torch.equal(single.argmax(1), narrow.argmax(1))
    stay = [k for found in pruned.kept.values() for k in found if not any(e in k.reason for e in EXCUSES)]
    return sum(map(len, pruned.removed.values())), len(stay)


@pytest.mark.parametrize("preset", INPUTS)
def test_a_few_members(preset: str) -> None:
    found = [check(preset, seed) for seed in range(3)]
    assert sum(removed for removed, _ in found) > 0


@pytest.mark.slow
@pytest.mark.parametrize("preset", INPUTS)
def test_many_members_lose_all_that_can_leave(preset: str) -> None:
    found = [check(preset, seed) for seed in range(100, 130 if "digits" in preset else 112)]
    removed, stay = (sum(counts) for counts in zip(*found, strict=True))
    print(f"{preset}: {removed} removed, {stay} could have left")
    assert removed >= 0.95 * (removed + stay)
