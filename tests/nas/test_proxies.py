"""Scores of untrained networks: naswot by its definition, and a noise that knows the digest alone."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch

from nas.data import load
from nas.proxies import BATCH, naswot, noise, proxy
from searchspace.architecture import Activation, AdaptivePool, Architecture, Chain, Conv, Flatten, Linear, Norm
from searchspace.network import build


def network(width: int = 6, kernel: int = 3, activation: str = "relu") -> Architecture:
    body = (Conv(width, kernel), Norm(), Activation(activation), Conv(4), Norm(), Activation("hardswish"))
    return Architecture((1, 8, 8), Chain((*body, AdaptivePool(), Flatten(), Linear(3))))


@pytest.mark.parametrize("activation", ["relu", "hardswish", "relu6"])
def test_naswot_counts_the_activations_that_two_images_switch_alike(activation: str) -> None:
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    architecture = network(activation=activation)
    twin = build(architecture, 0).train()
    with torch.no_grad():
        first = twin.body[:2](images)
        second = twin.body[3:5](twin.body[2](first))
    codes = torch.cat([first.flatten(1) > 0, second.flatten(1) > 0], dim=1).numpy()
    alike = np.array([[(a == b).sum() for b in codes] for a in codes], dtype=float)
    assert naswot(architecture, images) == pytest.approx(np.linalg.slogdet(alike + np.eye(5))[1])


def test_images_that_cannot_be_told_apart_score_low_and_scores_repeat() -> None:
    one = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    other = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    alike, apart = one.expand(4, 1, 8, 8), other
    assert naswot(network(), alike) < naswot(network(), apart)
    assert naswot(network(), apart) == naswot(network(), apart)


def test_images_are_brought_to_the_networks_own_resolution() -> None:
    data = load("digits")
    score = proxy("naswot", data)
    assert score is not None
    assert np.isfinite(score(network()))
    images, _ = next(data.batches("train", BATCH))
    assert score(network()) == naswot(network(), images)


def test_noise_is_a_uniform_number_of_the_digest_alone() -> None:
    rng = Random(0)
    several = [network(rng.randint(1, 60), rng.choice([1, 3, 5, 7])) for _ in range(200)]
    numbers = [noise(a) for a in several]
    assert numbers == [noise(network_again) for network_again in several]
    assert all(0 <= n < 1 for n in numbers)
    assert 0.4 < np.mean(numbers) < 0.6
    assert abs(np.corrcoef(numbers, [a.body.items[0].out for a in several])[0, 1]) < 0.25
    assert proxy("none", load("digits")) is None
    assert proxy("noise", load("digits")) is noise
