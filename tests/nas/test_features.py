"""What a forest sees of a network does not depend on choices that do nothing."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from nas.features import Features
from searchspace.architecture import Architecture
from searchspace.cost import cost
from searchspace.space import Space

SPACE = Space(
    {
        "width": [0.5, 1.0],
        "stages": [
            {
                "block": ["plain", "fire"],
                "width": [8, 16, 24],
                "groups": [1, 2],
                "kernel": [3, [3, 1], [1, 3]],
                "squeeze": [0.25, 0.5],
                "shuffle": [False, True],
            }
        ],
    },
    input=(1, 8, 8),
    classes=4,
)
PLAIN = {"stage1.block": "plain", "stage1.groups": 1}


def columns(features: Features, code: dict) -> np.ndarray:
    return features.network(SPACE.canonical({}) | code, cost(SPACE.decode(code)).values())


def test_idle_choices_do_not_show() -> None:
    features = Features(SPACE, 8)
    one = columns(features, PLAIN | {"stage1.squeeze": 0.25, "stage1.shuffle": False})
    other = columns(features, PLAIN | {"stage1.squeeze": 0.5, "stage1.shuffle": True})
    assert (one == other).all()
    fire = {"stage1.block": "fire"}
    assert (
        columns(features, fire | {"stage1.squeeze": 0.25}) != columns(features, fire | {"stage1.squeeze": 0.5})
    ).any()


def test_networks_that_differ_show_it() -> None:
    features, rng = Features(SPACE, 8), Random(0)
    members = {m.architecture.digest: m for m in (SPACE.sample(rng) for _ in range(300))}.values()
    rows = {features.network(m.code, cost(m.architecture).values()).tobytes() for m in members}
    assert len(rows) == len(members) > 30


def test_numbers_are_one_column_and_values_per_axis_a_column_each() -> None:
    features = Features(SPACE, 8)
    wide, narrow = columns(features, PLAIN | {"stage1.width": 24}), columns(features, PLAIN | {"stage1.width": 8})
    square, flat = columns(features, PLAIN | {"stage1.kernel": 3}), columns(features, PLAIN | {"stage1.kernel": (3, 1)})
    choices = len(wide) - 6  # beside the costs
    assert sorted((wide - narrow)[:choices])[-2:] == [0.0, 2.0]
    assert sorted((square - flat)[:choices])[:1] == [-1.0]
    assert sorted((square - flat)[:choices])[-1:] == [1.0]


def test_a_cost_of_nothing_is_zero_and_costs_are_decades() -> None:
    features = Features(SPACE, 8)
    code = SPACE.canonical({})
    row = features.network(code, {"flops": 1e6, "params": 0.0})
    assert row[-6] == pytest.approx(6.0)
    assert (row[-5:] == 0).all()


def test_the_extra_feature_stands_behind_the_costs_and_is_made_from_the_architecture() -> None:
    def extra(architecture: Architecture) -> float:
        return int(architecture.digest[:4], 16) / 65536

    member = SPACE.sample(Random(0))
    costs = cost(member.architecture).values()
    without, having = Features(SPACE, 8), Features(SPACE, 8, extra)
    assert having.network(member.code, costs)[-1] == pytest.approx(extra(member.architecture))
    assert (having.network(member.code, costs)[:-1] == without.network(member.code, costs)).all()


def test_epochs_are_shares_of_a_training_behind_the_network() -> None:
    features = Features(SPACE, 8)
    network = np.zeros(3, dtype=np.float32)
    assert features.reach(network, 8).tolist() == [0, 0, 0, 1.0]
    assert features.reach(network, 2).tolist() == [0, 0, 0, 0.25]
    assert features.rise(network, (2, 0.5), 4).tolist() == [0, 0, 0, 0.5, 0.25, 0.5]
    assert features.rise(network, (2, 0.5), 4).dtype == np.float32
