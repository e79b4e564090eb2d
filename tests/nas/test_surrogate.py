"""The surrogate finds what is good, counts what is in work, and takes no more time than it is given."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from nas import pool, surrogate
from nas.gain import losses
from nas.outlook import Outlook
from nas.pareto import OBJECTIVES, Objective, front, hypervolume
from nas.results import Result, Worker
from nas.surrogate import Surrogate
from nas.sweep import Limits
from searchspace.codes import Candidate
from searchspace.cost import cost
from searchspace.space import Space

SPACE = Space(
    {
        "width": [0.5, 1.0],
        "resolution": [0.5, 1.0],
        "stages": [
            {
                "block": ["plain", "residual", "bottleneck"],
                "depth": [1, 2, 3],
                "width": [8, 16, 24, 32],
                "kernel": [3, 5],
                "activation": ["relu", "hardswish"],
            },
            {
                "block": ["inverted_residual", "fire"],
                "stride": 2,
                "depth": [1, 2],
                "width": [16, 32, 48],
                "kernel": [3, 5],
                "activation": ["relu", "hardswish"],
            },
        ],
    },
    input=(1, 8, 8),
    classes=4,
)
LIMITS = Limits(costs={"flops": 2_000_000})
TWO = (OBJECTIVES["accuracy"], OBJECTIVES["flops"])
REFERENCE = {"accuracy": 0.0, "flops": 2.2e6}


def accuracy_of(candidate: Candidate, epoch: int = 8) -> float:
    """A made-up truth: size helps with falling returns, some choices help, some harm, and training takes time."""
    code, flops = candidate.code, cost(candidate.architecture).flops
    helps = 0.10 * (code["stage1.block"] == "residual") + 0.08 * (code["stage1.kernel"] == 5)
    helps += 0.08 * (code["stage2.block"] == "fire") - 0.08 * (code["stage2.activation"] == "relu")
    whole = 0.45 + 0.12 * math.log10(flops / 1e5) + helps
    return min(0.99, max(0.1, whole)) * (1 - math.exp(-epoch / 2))


def row_of(number: int, candidate: Candidate, epoch: int = 8, **changes: object) -> Result:
    values = {**cost(candidate.architecture).values(), "accuracy": accuracy_of(candidate, epoch)}
    row = Result(
        trial=number,
        digest=candidate.architecture.digest,
        architecture={},
        choices=dict(candidate.code),
        epoch=epoch,
        final=epoch == 8,
        state="complete",
        values=values,
        seconds=1.0,
        worker=Worker(node="here", pid=0, device="cpu"),
        seed=0,
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def members(count: int, seed: int = 0, space: Space = SPACE, limits: Limits = LIMITS) -> list[Candidate]:
    rng = Random(seed)
    found: dict[str, Candidate] = {}
    while len(found) < count:
        member = space.sample(rng)
        if not limits.excess(cost(member.architecture)):
            found[member.architecture.digest] = member
    return list(found.values())


def learned(
    count: int, seed: int = 0, objectives: tuple[Objective, ...] = TWO, limits: Limits = LIMITS, **options: object
) -> Surrogate:
    """A surrogate that was told of so many random networks."""
    sampler = Surrogate(SPACE, limits, objectives, 8, seed, **options)  # type: ignore[arg-type]
    for number, member in enumerate(members(count, seed)):
        sampler.begin(member, cost(member.architecture))
        sampler.learn(row_of(number, member))
    return sampler


def proposed(sampler: Surrogate) -> Candidate:
    """A proposal that becomes a trial."""
    code = sampler.propose()
    assert code is not None
    candidate = SPACE.candidate(code)
    sampler.begin(candidate, cost(candidate.architecture))
    return candidate


def volume(rows: list[Result]) -> float:
    return hypervolume(rows, TWO, REFERENCE)


def test_it_beats_random_proposals_by_a_clear_margin() -> None:
    found, random = [], []
    for seed in range(4):
        drawn = [row_of(number, member) for number, member in enumerate(members(40, seed))]
        sampler, rows = learned(10, seed), drawn[:10]
        while len(rows) < 40:
            rows.append(row_of(len(rows), proposed(sampler)))
            sampler.learn(rows[-1])
        found.append(volume(rows))
        random.append(volume(drawn))
    assert sum(found) / 4 > sum(random) / 4 + 0.1  # accuracy x decades of FLOPs; the whole space has 1.86
    assert sum(a > b for a, b in zip(found, random, strict=True)) >= 3


def test_a_batch_is_the_greedy_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "FRESH", 0)
    sampler = learned(24)
    assert sampler.propose() is not None  # fits and fills the pool
    candidates = list(sampler.pool)
    assert len(candidates) > 100
    values, _, _ = sampler.outlook.hoped(
        [c.columns for c in candidates], [c.costs for c in candidates], surrogate.KAPPA
    )
    hopes = {
        c.digest: row_of(-1, c.candidate, values={"accuracy": v[0], "flops": v[1]})
        for c, v in zip(candidates, values.tolist(), strict=True)
    }
    standing = [row_of(number, member) for number, member in enumerate(members(24))]
    for number in range(8):
        added = {digest: volume([*standing, hope]) - volume(standing) for digest, hope in hopes.items()}
        chosen = proposed(sampler)
        digest = chosen.architecture.digest
        assert added[digest] == pytest.approx(max(added.values()), abs=1e-12)
        begun = sampler.outlook.begun(digest)
        assert begun is not None
        ((accuracy, flops),) = sampler.outlook.expected([begun]).tolist()
        standing.append(row_of(100 + number, chosen, values={"accuracy": accuracy, "flops": flops}))
        del hopes[digest]


def test_rows_alone_give_the_same_model_as_a_search_did() -> None:
    one, other = (Outlook(SPACE, LIMITS, TWO, 8, 0, None) for _ in range(2))
    found = members(20)
    rows = [row_of(n, m, epoch) for epoch in (2, 8) for n, m in enumerate(found) if epoch == 2 or n % 2]
    for member in found:
        one.begin(member, cost(member.architecture))
    one.learn(rows[0])
    one.fit()
    for row in rows[1:]:
        one.learn(row)
    for row in rows:
        other.learn(Result.from_json(json.loads(json.dumps(row.to_json()))))
    one.fit()
    other.fit()
    strangers = members(30, 7)
    columns = [one.features.network(m.code, cost(m.architecture).values()) for m in strangers]
    costs = [cost(m.architecture).values() for m in strangers]
    for a, b in zip(one.hoped(columns, costs, 1.0), other.hoped(columns, costs, 1.0), strict=True):
        assert (a == b).all()
    assert [b.trial for b in one.finals()] == [b.trial for b in other.finals()] == list(range(1, 20, 2))


def test_a_partial_training_stands_where_it_is_expected_to_end_not_where_it_is() -> None:
    sampler = Surrogate(SPACE, LIMITS, TWO, 8, 0)
    for number, member in enumerate(members(30)):
        for epoch in (2, 4, 8):
            sampler.learn(row_of(number, member, epoch))
    stranger = members(31, 5)[-1]
    sampler.learn(row_of(30, stranger, 2))
    assert sampler.propose() is not None
    assert all(begun.trial != 30 for begun in sampler.outlook.finals())
    begun = sampler.outlook.begun(stranger.architecture.digest)
    assert begun is not None
    expected = sampler.outlook.expected([begun])[0, 0]
    assert abs(expected - accuracy_of(stranger)) < 0.1 < accuracy_of(stranger) - accuracy_of(stranger, 2)


def test_what_is_expected_follows_the_curve() -> None:
    outlook = Outlook(SPACE, LIMITS, TWO, 8, 0, None)
    rng = Random(0)

    def lucky(row: Result, luck: float) -> Result:
        return replace(row, values={**row.values, "accuracy": row.values["accuracy"] + luck})

    for number, member in enumerate(members(60)):
        luck = rng.uniform(-0.2, 0.2)
        for epoch in (2, 8):
            outlook.learn(lucky(row_of(number, member, epoch), luck))
    for number, (stranger, luck) in enumerate(zip(members(62)[60:], (0.2, -0.2), strict=True)):
        begun = outlook.begin(stranger, cost(stranger.architecture))
        outlook.fit()
        unknown = outlook.expected([begun])[0, 0]
        outlook.learn(lucky(row_of(60 + number, stranger, 2), luck))
        followed = outlook.expected([begun])[0, 0]
        assert (followed - unknown) / luck > 0.5
        assert abs(followed - accuracy_of(stranger) - luck) < 0.1


@pytest.mark.parametrize("changes", [{"state": "failed", "final": False}, {"state": "stopped", "final": False}])
def test_what_failed_is_nowhere_on_the_front(changes: dict[str, object]) -> None:
    sampler = learned(12)
    best = max(members(300, 3), key=accuracy_of)
    sampler.begin(best, cost(best.architecture))
    sampler.learn(row_of(50, best, 0, values=cost(best.architecture).values(), **changes))
    assert sampler.propose() is not None
    begun = sampler.outlook.begun(best.architecture.digest)
    assert begun not in [*sampler.outlook.finals(), *sampler.outlook.work()]
    kept = front([row_of(number, member) for number, member in enumerate(members(12))], TWO)
    assert len(sampler.front) == len(kept)


def test_networks_predicted_over_the_latency_limit_are_passed_over() -> None:
    def latency(candidate: Candidate) -> float:
        return 0.1 * (1 + 9 * (candidate.code["stage1.kernel"] == 5)) * float(candidate.code["stage1.depth"])  # type: ignore[arg-type]

    limits = Limits(costs=LIMITS.costs, latency_ms=0.5)
    sampler = Surrogate(SPACE, limits, TWO, 8, 0)
    for number, member in enumerate(members(40)):
        row = row_of(number, member)
        values = {**row.values, "latency_ms": latency(member)}
        if latency(member) > 0.5:
            del values["accuracy"]
            row = replace(row, state="stopped", epoch=0, final=False)
        sampler.learn(replace(row, values=values))
    batch = [proposed(sampler) for _ in range(12)]
    assert sum(latency(m) > 0.5 for m in members(40)) >= 15
    assert sum(latency(m) > 0.5 for m in batch) <= 1


def test_latency_is_predicted_where_it_is_an_objective() -> None:
    objectives = (OBJECTIVES["accuracy"], OBJECTIVES["latency_ms"])
    sampler = Surrogate(SPACE, LIMITS, objectives, 8, 0)
    truth = {m.architecture.digest: cost(m.architecture).flops / 1e6 for m in members(120)}
    for number, member in enumerate(members(80)):
        row = row_of(number, member)
        sampler.learn(replace(row, values={**row.values, "latency_ms": truth[row.digest]}))
    sampler.outlook.fit()
    strangers = members(120)[80:]
    begun = [sampler.outlook.begin(m, cost(m.architecture)) for m in strangers]
    expected = np.log10(sampler.outlook.expected(begun)[:, 1])
    wanted = np.log10([truth[m.architecture.digest] for m in strangers])
    assert np.corrcoef(expected, wanted)[0, 1] > 0.9
    assert proposed(sampler).architecture.digest not in truth


def test_a_proposal_says_which_trial_it_was_made_from() -> None:
    found = members(20)
    sampler = learned(20)
    changed: list[int] = []
    for number in range(20, 50):
        child = proposed(sampler)
        parent = sampler.parent(child.architecture.digest)
        if parent is not None:
            changed.append(sum(child.code[n] != found[parent].code[n] for n in SPACE.choices))
        found.append(child)
        sampler.learn(row_of(number, child))
    assert len(changed) >= 5
    assert min(changed) >= 1
    assert sorted(changed)[len(changed) // 2] <= 4  # mutants, most of them; some have two parents
    strange = [
        sum(a.code[n] != b.code[n] for n in SPACE.choices) for a, b in zip(found[:10], found[10:20], strict=True)
    ]
    assert sorted(strange)[5] > 4
    assert sampler.parent(found[0].architecture.digest) is None


def test_without_enough_rows_there_is_no_model_and_costs_alone_need_none() -> None:
    assert learned(surrogate.LEAST - 1).propose() is None
    assert learned(surrogate.LEAST).propose() is not None
    assert learned(0, objectives=(OBJECTIVES["flops"], OBJECTIVES["params"])).propose() is not None


def test_each_proposal_is_another_network_that_was_not_there() -> None:
    sampler = learned(30)
    codes = [sampler.propose() for _ in range(40)]
    assert None not in codes
    digests = {SPACE.candidate(code).architecture.digest for code in codes if code is not None}
    assert len(digests) == 40
    assert not digests & {m.architecture.digest for m in members(30)}


def test_what_failed_no_longer_stands_on_the_front() -> None:
    sampler = learned(20)
    best = proposed(sampler)
    sampler.begin(best, cost(best.architecture))
    row = row_of(100, best)
    early = replace(row, epoch=1, final=False, values={**row.values, "accuracy": 0.999})
    sampler.learn(early)
    proposed(sampler)
    (at,) = [n for n in sampler.outlook.work() if n.trial == 100]
    (point,) = losses(sampler.outlook.expected([at]), sampler.objectives, sampler._reference).tolist()
    assert point in sampler.front.tolist(), "as good as it promises"
    fitted = sampler._fitted
    sampler.learn(replace(row, state="failed", final=False, epoch=0, values={}))
    proposed(sampler)
    assert sampler._fitted == fitted, "a failure teaches nothing"
    assert point not in sampler.front.tolist()


def test_its_seconds_stay_below_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(share: float | None) -> tuple[int, float, float]:
        """(fits, seconds spent, seconds that passed) of 30 trials of a second each; a fit takes one too."""
        now = [0.0]
        sampler = learned(10, share=share, clock=lambda: now[0])
        fit: Callable[[], None] = sampler.outlook.fit
        fits = []

        def slow() -> None:
            fits.append(now[0])
            now[0] += 1.0
            fit()

        monkeypatch.setattr(sampler.outlook, "fit", slow)
        for number in range(30):
            sampler.learn(row_of(100 + number, proposed(sampler)))
            now[0] += 1.0
        return len(fits), sampler.spent_s, now[0]

    fits, spent, passed = run(0.25)
    assert passed == 30 + fits
    assert 0.25 * passed < spent <= 0.25 * passed + surrogate.GRACE_S
    assert fits == spent
    assert run(None)[0] == 30


def test_where_it_may_spend_nothing_it_lives_off_its_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrogate, "GRACE_S", 0.0)
    sampler = learned(10, share=0.0)
    proposed(sampler)
    left = len(sampler.pool)
    assert 0 < left < pool.FEW, "there is always time for a few attempts"
    for number in range(left):
        sampler.learn(row_of(100 + number, proposed(sampler)))
    assert sampler.propose() is None
