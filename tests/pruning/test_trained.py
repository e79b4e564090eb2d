"""A network trained on real digits until some of its ReLUs die: nothing planted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from pruning.channels import constants
from pruning.exact import remove_dead
from searchspace.architecture import Activation, AdaptivePool, Architecture, Chain, Conv, Flatten, Linear, Norm, Shape
from searchspace.blocks import residual
from searchspace.network import Network, build


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(data.target)


@pytest.fixture(scope="module")
def trained(digits: tuple[Tensor, Tensor]) -> Network:
    """Two epochs of SGD at a learning rate far too high, without norm on the first layers."""
    images, labels = digits
    shape = Shape(24, (8, 8))
    body = Chain(
        (
            *(Conv(24, 3, bias=True), Activation()),
            residual(shape, out=24),
            *(Conv(32, 3, 2, bias=True), Activation(), Conv(16), Norm(), Activation()),
            *(AdaptivePool(), Flatten(), Linear(10)),
        )
    )
    network = build(Architecture((1, 8, 8), body), seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.7, momentum=0.9)
    order = torch.Generator().manual_seed(0)
    for _ in range(2):
        for batch in torch.randperm(len(images), generator=order).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
    return network.eval()


def test_relus_that_died_in_training_leave_and_every_prediction_stays(
    trained: Network, digits: tuple[Tensor, Tensor]
) -> None:
    images, _ = digits
    assert constants(trained) == {}
    assert remove_dead(trained).removed == {}
    pruned = remove_dead(trained, images.split(512))
    found = [c for channels in pruned.removed.values() for c in channels]
    assert found
    assert {c.cause for c in found} <= {f"zero on all {len(images)} samples", "constant input"} | {
        f"constant on all {len(images)} samples"
    }
    assert pruned.cost_after.flops < pruned.cost_before.flops
    assert pruned.proof.data_samples == len(images)
    assert pruned.proof.data_error is not None
    assert pruned.proof.data_error <= 1e-12
    assert pruned.proof.relative_error <= 1e-12
    with torch.no_grad():
        wanted, got = trained(images), pruned.network(images)
    assert (wanted - got).abs().max() <= 1e-5 * wanted.abs().max()
    assert torch.equal(wanted.argmax(1), got.argmax(1))
