"""Regularised evolution and local search change what is good and fully trained."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from nas.evolution import POPULATION, Evolution, LocalSearch
from nas.pareto import OBJECTIVES
from nas.results import Result, Worker
from searchspace.codes import Candidate
from searchspace.cost import cost
from searchspace.space import Space

SPACE = Space(
    {
        "stages": [
            {"block": ["plain", "residual"], "depth": [1, 2], "width": [8, 16, 24], "kernel": [3, 5, [1, 3]]},
            {"block": ["plain", "fire"], "width": [8, 16, 24], "kernel": [3, 5], "activation": ["relu", "hardswish"]},
        ],
    },
    input=(1, 8, 8),
    classes=4,
)
TWO = (OBJECTIVES["accuracy"], OBJECTIVES["flops"])


def row(number: int, candidate: Candidate, accuracy: float, **changes: object) -> Result:
    result = Result(
        trial=number,
        digest=candidate.architecture.digest,
        architecture={},
        choices={k: list(v) if isinstance(v, tuple) else v for k, v in candidate.code.items()},
        epoch=8,
        final=True,
        state="complete",
        values={**cost(candidate.architecture).values(), "accuracy": accuracy},
        seconds=1.0,
        worker=Worker(node="here", pid=0, device="cpu"),
        seed=0,
    )
    return replace(result, **changes)  # type: ignore[arg-type]


def members(count: int) -> list[Candidate]:
    rng, found = Random(1), {}
    while len(found) < count:
        member = SPACE.sample(rng)
        found[member.architecture.digest] = member
    return list(found.values())


def changes(code: dict, other: dict) -> int:
    return sum(code[name] != other[name] for name in SPACE.choices)


def test_evolution_waits_for_a_population_of_fully_trained_trials() -> None:
    found = members(POPULATION + 3)
    evolution = Evolution(SPACE, TWO, 0)
    for number, member in enumerate(found[:-4]):
        evolution.learn(row(number, member, 0.5))
    evolution.learn(row(97, found[-4], 0.9, epoch=2, final=False))
    evolution.learn(row(98, found[-3], 0.9, state="failed", final=False))
    evolution.learn(row(99, found[-2], 0.9, choices=None))
    assert evolution.propose() is None
    evolution.learn(row(100, found[-1], 0.5))
    assert evolution.propose() is not None


def test_evolution_forgets_the_old_and_prefers_the_better() -> None:
    found = members(3 * POPULATION)
    evolution = Evolution(SPACE, (OBJECTIVES["accuracy"],), 0)
    for number, member in enumerate(found):  # the first are the best, and too old; of the others, the later
        evolution.learn(row(number, member, 1.0 if number < POPULATION else number / 100))
    parents = []
    for _ in range(60):
        code = evolution.propose()
        assert code is not None
        child = SPACE.candidate(code)
        parent = evolution.parent(child.architecture.digest)
        assert parent is not None
        assert child.architecture != found[parent].architecture
        parents.append(parent)
    youngest = range(2 * POPULATION, 3 * POPULATION)
    assert set(parents) <= set(youngest)
    assert sum(parents) / len(parents) > sum(youngest) / POPULATION + 3  # a tournament of five: about 6.7 above


def test_local_search_changes_one_choice_of_a_member_of_the_front() -> None:
    found = members(30)
    local = LocalSearch(SPACE, TWO, 0)
    assert local.propose() is None
    cheapest = min(found, key=lambda m: cost(m.architecture).flops)
    dearest = max(found, key=lambda m: cost(m.architecture).flops)
    for number, member in enumerate(found):
        accuracy = 0.9 if member is dearest else 0.5 if member is cheapest else 0.4
        local.learn(row(number, member, accuracy))
    parents = set()
    for _ in range(40):
        code = local.propose()
        assert code is not None
        child = SPACE.candidate(code)
        parent = local.parent(child.architecture.digest)
        assert parent is not None
        parents.add(parent)
        assert changes(code, found[parent].code) >= 1
        assert any(
            SPACE.candidate({**found[parent].code, name: value}).architecture == child.architecture
            for name, values in SPACE.choices.items()
            for value in values
        )
    assert parents == {found.index(cheapest), found.index(dearest)}


@pytest.mark.parametrize("make", [Evolution, LocalSearch])
def test_a_seed_gives_the_same_children(make: type[Evolution] | type[LocalSearch]) -> None:
    def children(seed: int) -> list[object]:
        learner = make(SPACE, TWO, seed)
        for number, member in enumerate(members(POPULATION)):
            learner.learn(row(number, member, number / 100))
        return [learner.propose() for _ in range(10)]

    assert children(0) == children(0) != children(1)
