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
from searchspace.blocks import inverted_residual
from searchspace.network import Network, build


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(data.target)


@pytest.fixture(scope="module")
def trained(digits: tuple[Tensor, Tensor]) -> Network:
    """Three epochs of SGD at a learning rate too high for its first layers, which have no norm."""
    images, labels = digits
    body = Chain(
        (
            *(Conv(24, 3, bias=True), Activation(), Conv(32, 3, 2, bias=True), Activation()),
            inverted_residual(Shape(32, (4, 4)), out=32, expansion=2.0),
            *(Conv(16), Norm(), Activation(), AdaptivePool(), Flatten(), Linear(10)),
        )
    )
    network = build(Architecture((1, 8, 8), body), seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.4, momentum=0.9)
    order = torch.Generator().manual_seed(0)
    for _ in range(3):
        for batch in torch.split(torch.randperm(len(images), generator=order), 64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return network.eval()


def test_relus_that_died_in_training_leave_and_every_prediction_stays(
    trained: Network, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits
    assert constants(trained) == {}
    assert remove_dead(trained).removed == {}
    pruned = remove_dead(trained, torch.split(images, 512))
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
    assert (wanted.argmax(1) == labels).float().mean() > 0.3  # it does something: chance is 0.1
    assert (wanted - got).abs().max() <= 1e-5 * wanted.abs().max()
    assert torch.equal(wanted.argmax(1), got.argmax(1))
