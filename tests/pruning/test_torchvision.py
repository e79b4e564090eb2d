"""Dead channels leave torchvision's models exactly, and come back from a file to the bit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pruning import checkpoint
from pruning.exact import Kept, remove_dead
from pruning.places import evaluating, tensors
from searchspace import factory
from searchspace.factory import Factory

pytestmark = pytest.mark.slow

SHIFTS = {"zero": 0.0, "constant": 0.3}
SMALL, WIDE, VIDEO = (3, 64, 64), (3, 96, 96), (3, 8, 32, 32)
MODELS: dict[str, tuple[int, ...]] = {
    "resnet18": SMALL,
    "resnext50_32x4d": SMALL,
    "mobilenet_v2": SMALL,
    "mobilenet_v3_small": SMALL,
    "googlenet": WIDE,
    "shufflenet_v2_x0_5": SMALL,
    "densenet121": SMALL,
    "efficientnet_b0": SMALL,
    "regnet_y_400mf": SMALL,
    "mnasnet0_5": SMALL,
    "vgg11_bn": (3, 32, 32),
    "r3d_18": VIDEO,
    "r2plus1d_18": VIDEO,
}
# Why a dead channel's removal would change the function, or the widths would not be legal:
EXCUSES = (
    "is added to a channel that varies",
    "is multiplied by a gate that varies",
    "varies at the zero-padded border",
    "is not zero where zeros are padded in",
    "varies where",
    "needs as many channels in every group",
    "carries its group's constants",
    "a split into equal parts",
)


@pytest.fixture(scope="module", autouse=True)
def _torchvision() -> None:
    try:
        factory.torchvision()
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed; `make test FULL=1` installs it")


def planted(name: str, shift: float) -> tuple[nn.Module, int]:
    """The model with random statistics and 30% of the channels of its norms dead, in float64, and their number."""
    model, count = Factory(name=f"torchvision:{name}").make().double().eval(), 0
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for norm in (part for part in model.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0, 0.3, generator=rng)
            norm.running_var.uniform_(0.5, 1.5, generator=rng)
            norm.weight.normal_(1, 0.3, generator=rng)
            norm.bias.normal_(0, 0.3, generator=rng)
            dead = torch.rand(len(norm.weight), generator=rng) < 0.3
            norm.weight[dead], norm.bias[dead] = 0.0, shift
            count += int(dead.sum())
    return model, count


@torch.no_grad()
def outputs(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Those of auxiliary heads among them."""
    with evaluating(module):
        return tensors(module(x))


@pytest.mark.parametrize("kind", SHIFTS)
@pytest.mark.parametrize("name", MODELS)
def test_all_that_can_leave_leaves_and_the_function_stays(name: str, kind: str) -> None:
    size = MODELS[name]
    model, count = planted(name, SHIFTS[kind])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    pruned = remove_dead(model, example=torch.zeros(2, *size))
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert pruned.proof.relative_error <= 1e-12
    assert pruned.proof.unsilenced_error <= 1e-12
    stay: list[Kept] = [k for found in pruned.kept.values() for k in found]
    removed = sum(map(len, pruned.removed.values()))
    could = [k for k in stay if not any(excuse in k.reason for excuse in EXCUSES)]
    assert removed >= 0.95 * (removed + len(could))
    assert removed >= 10
    assert removed + len(stay) >= 0.5 * count  # channels of a depthwise convolution are those before it, counted once
    x = torch.randn(8, *size, generator=torch.Generator().manual_seed(1))
    for wanted, got in zip(outputs(model, x.double()), outputs(pruned.network, x.double()), strict=True):
        assert (wanted - got).abs().max() <= 1e-12 * wanted.abs().max()
    single, narrow = copy.deepcopy(model).float(), copy.deepcopy(pruned.network).float()
    for wanted, got in zip(outputs(single, x), outputs(narrow, x), strict=True):
        assert (wanted - got).abs().max() <= 1e-5 * wanted.abs().max()
        assert torch.equal(wanted.argmax(1), got.argmax(1))


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "shufflenet_v2_x0_5", "r3d_18"])
def test_a_pruned_model_is_saved_loaded_trained_and_pruned_again(name: str, tmp_path: Path) -> None:
    size, made_by = MODELS[name], Factory(name=f"torchvision:{name}")
    model, _ = planted(name, 0.3)
    pruned = remove_dead(model.float(), example=torch.zeros(2, *size)).network
    checkpoint.save(tmp_path / "a.safetensors", pruned, made_by)
    loaded = checkpoint.load(tmp_path / "a.safetensors")
    x = torch.randn(4, *size)
    for wanted, got in zip(outputs(pruned, x), outputs(loaded, x), strict=True):
        assert torch.equal(wanted, got)
    optimizer = torch.optim.SGD(loaded.train().parameters(), 0.01)
    sum(y.square().mean() for y in tensors(loaded(x))).backward()  # type: ignore[union-attr]
    optimizer.step()
    loaded.eval()
    norm = next(m for m in loaded.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d))
    with torch.no_grad():
        norm.weight[:3], norm.bias[:3] = 0, -1
    again = remove_dead(loaded, example=x)
    checkpoint.save(tmp_path / "b.safetensors", again.network, made_by)
    for wanted, got in zip(outputs(again.network, x), outputs(checkpoint.load(tmp_path / "b.safetensors"), x)):
        assert torch.equal(wanted, got)
