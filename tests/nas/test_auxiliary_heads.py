"""Auxiliary heads in training and out of it: each adds its weight times its loss; evaluation does not run them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.data import Resident, load
from nas.train import evaluate, train
from nas.training import Training
from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    Chain,
    Conv,
    Flatten,
    Linear,
    Norm,
    Tap,
)
from searchspace.network import Network, build

WEIGHTS = (0.3, 0.7)
TRAINING = Training(epochs=1, batch_size=64, warmup_epochs=0.0, label_smoothing=0.1, weight_decay=0.0)


def head(width: int) -> Chain:
    return Chain((Conv(width), Norm(), Activation(), AdaptivePool(), Flatten(), Linear(3)))


def stage(width: int) -> Chain:
    return Chain((Conv(width, 3), Norm(), Activation()))


def tapped(size: tuple[int, ...]) -> Architecture:
    first, second = (Tap(head(4), weight) for weight in WEIGHTS)
    return Architecture(size, Chain((stage(4), first, stage(8), second, stage(8), head(8))))


@pytest.fixture(scope="module", params=[(1, 6, 6), (1, 3, 6, 6)], ids=["images", "clips"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Resident:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    np.savez(path, images=rng.normal(size=(60, *request.param)).astype(np.float32), labels=np.arange(60) % 3)
    return load(str(path))


def step_by_hand(network: Network, data: Resident, weights: tuple[float, ...]) -> None:
    """One epoch of one step on the sum of the main loss and `weights` times the heads'."""
    torch.manual_seed(0)
    ((x, y),) = data.epoch(TRAINING.batch_size, seed=0, epoch=1)
    network.train()
    logits, heads = network(x)
    losses = [F.cross_entropy(z, y, label_smoothing=0.1) for z in (logits, *heads)]
    sum(w * loss for w, loss in zip((1.0, *weights), losses, strict=True)).backward()
    torch.optim.AdamW(network.parameters(), lr=TRAINING.learning_rate, weight_decay=0.0).step()


def test_each_head_adds_its_weight_times_its_loss(data: Resident) -> None:
    trained = build(tapped(data.input), 0)
    train(trained, data, TRAINING, seed=0, device="cpu")
    expected, other = build(tapped(data.input), 0), build(tapped(data.input), 0)
    step_by_hand(expected, data, WEIGHTS)
    step_by_hand(other, data, WEIGHTS[::-1])
    pairs = list(zip(trained.parameters(), expected.parameters(), other.parameters(), strict=True))
    for a, b, _ in pairs:
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
    assert max(float((a - c).abs().max().detach()) for a, _, c in pairs) > 1e-3


def test_evaluation_reads_the_main_head_alone(data: Resident) -> None:
    network = build(tapped(data.input), 0)
    before = evaluate(network, data, "val", device="cpu")
    with torch.no_grad():
        for site in network.architecture.sites:
            if site.auxiliary:
                for parameter in network.get_submodule(site.name).parameters():
                    parameter.fill_(float("nan"))
    assert evaluate(network, data, "val", device="cpu") == before


def test_the_curve_holds_the_main_loss(data: Resident) -> None:
    curve = train(build(tapped(data.input), 0), data, TRAINING, seed=0, device="cpu").curve
    network = build(tapped(data.input), 0).train()
    ((x, y),) = data.epoch(TRAINING.batch_size, seed=0, epoch=1)
    loss = F.cross_entropy(network(x)[0], y, label_smoothing=0.1).item()
    assert curve[0].train_loss == pytest.approx(loss, rel=1e-4)
