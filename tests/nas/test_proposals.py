"""Whatever the sampler, a trial is buildable, inside the limits and new: one suite for all of them.

Accuracies are made up from the digest. Some trials fail, some come only as far as a lower level, some are stopped at
their latency, as in a search.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from random import Random

import optuna
import pytest
from optuna.trial import Trial, TrialState

from nas.learner import Learner
from nas.pareto import OBJECTIVES, Objective
from nas.proposals import SAMPLERS, Proposals, Setting, SpaceFull
from nas.results import Result, Worker
from nas.start import Start
from nas.survey import Range
from nas.sweep import Limits
from searchspace.choices import SpaceError
from searchspace.codes import Candidate
from searchspace.cost import Cost, cost
from searchspace.space import Space

SPACE = Space(
    {
        "width": [0.5, 1.0],
        "stem": {"width": 8},
        "stages": [
            {
                "block": ["plain", "bottleneck", "shuffle_unit"],
                "depth": [1, 2],
                "width": [8, 16, 24],
                "groups": [1, 2, 3],
                "kernel": [3, 5],
                "factorization": ["none", "asymmetric"],
                "alpha": [0.0, 0.25, 0.5],
            },
            {
                "block": ["inverted_residual", "fire"],
                "stride": 2,
                "width": [16, 32],
                "kernel": [3, 5],
                "shuffle": [False, True],
            },
        ],
    },
    input=(1, 8, 8),
    classes=4,
)
TIGHT = Limits(costs={"flops": 20_000, "params": 1_200})
TWO = ("accuracy", "flops")
EPOCHS = 8


def mixed(number: int) -> str:
    """What becomes of a trial in a search: some fail, some stay at a lower level."""
    return "failed" if number % 5 == 4 else "level" if number % 3 == 2 else "complete"


def fate(word: str) -> Callable[[int], str]:
    return lambda number: word


def row_of(number: int, candidate: Candidate, price: Cost, fate: str = "complete") -> Result:
    """A row as a search records it, read back from its JSON. Latency is made up too."""
    digest = candidate.architecture.digest
    values = {**price.values(), "latency_ms": price.flops**0.5 / 100 + int(digest[4:6], 16) / 1e4}
    if fate in ("complete", "level"):
        values["accuracy"] = int(digest[:4], 16) / 65536
    row = Result(
        trial=number,
        digest=digest,
        architecture={},
        choices=dict(candidate.code),
        epoch={"complete": EPOCHS, "level": 2}.get(fate, 0),
        final=fate == "complete",
        state="complete" if fate == "level" else fate,  # type: ignore[arg-type]
        values=values,
        seconds=1.0,
        worker=Worker(node="here", pid=0, device="cpu"),
        seed=0,
    )
    return Result.from_json(json.loads(json.dumps(row.to_json())))


class Bench:
    """A search without training: `ask`, then `tell`, in any order."""

    def __init__(
        self,
        name: str,
        *,
        seed: int = 0,
        space: Space = SPACE,
        limits: Limits = TIGHT,
        names: Sequence[str] = TWO,
        before: Sequence[Result] = (),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.objectives: tuple[Objective, ...] = tuple(OBJECTIVES[n] for n in names)
        setting = Setting(space=space, limits=limits, objectives=self.objectives, epochs=EPOCHS, seed=seed)
        start = Start(Range(least=4e3, median=1e4, largest=2e4), count=4) if name == "surrogate" else None
        seen = {row.digest for row in before}
        self.proposals = Proposals(space, limits, SAMPLERS[name](setting), Random(seed), seen, start)
        directions = ["maximize" if o.maximize else "minimize" for o in self.objectives]
        self.study = optuna.create_study(directions=directions, sampler=self.proposals)
        self.rows = list(before)
        for row in before:
            self.proposals.learn(row)
        self.flying: list[tuple[Trial, Candidate, Cost]] = []

    def ask(self) -> Candidate:
        trial = self.study.ask(fixed_distributions=self.proposals.distributions)
        candidate, price = self.proposals.candidate, self.proposals.cost
        assert candidate is not None
        assert price is not None
        assert self.proposals.space.decode(self.proposals.code(trial.params)) == candidate.architecture
        assert self.proposals.limits.excess(cost(candidate.architecture)) == {}
        self.flying.append((trial, candidate, price))
        return candidate

    def tell(self, fate: str = "complete", at: int = 0) -> None:
        """The row of one in flight; Optuna hears of what ended."""
        trial, candidate, price = self.flying.pop(at)
        row = row_of(len(self.rows), candidate, price, fate)
        self.rows.append(row)
        self.proposals.learn(row)
        if fate == "failed":
            self.study.tell(trial, state=TrialState.FAIL)
        elif fate != "level":
            worst = {o.name: 0.0 if o.maximize else 1e9 for o in self.objectives}
            self.study.tell(trial, [row.values.get(o.name, worst[o.name]) for o in self.objectives])

    def run(self, trials: int, flying: int = 1, fates: Callable[[int], str] = mixed) -> list[str]:
        """The digests of so many more trials, `flying` of them at a time."""
        digests: list[str] = []
        for _ in range(trials):
            while len(self.flying) >= flying:
                self.tell(fates(len(self.rows)), at=len(self.rows) % flying)
            digests.append(self.ask().architecture.digest)
        while self.flying:
            self.tell(fates(len(self.rows)))
        return digests


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_trial_is_feasible_and_new_where_few_members_are_feasible(name: str) -> None:
    share = sum(not TIGHT.excess(cost(SPACE.sample(Random(i)).architecture)) for i in range(200)) / 200
    assert share < 0.3
    assert len(set(Bench(name).run(45))) == 45


def test_what_the_wrapper_did_is_counted() -> None:
    bench = Bench("random")
    bench.run(20)
    counts = bench.proposals.counts
    assert counts.over_limit > 0
    refused = counts.over_limit + counts.repeated + counts.unbuildable
    assert counts.asked - refused == 20 - counts.mended - counts.drawn
    assert str(counts).startswith(f"{counts.asked} asked, ")


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_gives_the_same_trials_and_another_seed_others(name: str) -> None:
    assert Bench(name, seed=3).run(24) == Bench(name, seed=3).run(24)
    assert Bench(name, seed=3).run(12) != Bench(name, seed=4).run(12)


@pytest.mark.parametrize("flying", [1, 8])
@pytest.mark.parametrize("name", SAMPLERS)
def test_it_goes_on_from_the_rows_of_an_earlier_run(name: str, flying: int) -> None:
    first = Bench(name)
    before = first.run(24 + flying, flying)
    again = Bench(name, before=first.rows, seed=1)
    inner = again.proposals.inner
    if isinstance(inner, Learner) and name != "evolution":  # of the rows, too few are fully trained for a population
        assert inner.propose() is not None
    assert len(set(before) | set(again.run(8, flying))) == 24 + flying + 8


@pytest.mark.parametrize("name", SAMPLERS)
def test_eight_are_asked_for_before_the_first_comes_back(name: str) -> None:
    assert len(set(Bench(name).run(32, flying=8))) == 32


@pytest.mark.parametrize("word", ["failed", "stopped", "level"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_start_of_which_nothing_is_fully_trained_does_not_stop_it(name: str, word: str) -> None:
    limits = Limits(costs=TIGHT.costs, latency_ms=0.5)
    bench = Bench(name, limits=limits)
    bench.run(14, fates=fate(word))
    bench.run(4)
    assert len({row.digest for row in bench.rows}) == 18


@pytest.mark.parametrize(
    "names",
    [("accuracy",), ("flops",), ("accuracy", "latency_ms"), ("accuracy", "flops", "params"), ("params", "latency_ms")],
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_it_takes_one_to_three_objectives_of_any_kind(name: str, names: tuple[str, ...]) -> None:
    assert len(set(Bench(name, names=names).run(26, fates=lambda n: "failed" if n % 9 == 8 else "complete"))) == 26


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_proposal_after_two_hundred_trials_takes_bounded_time(name: str) -> None:
    first = Bench("random")
    for number in range(200):
        first.ask()
        first.tell(mixed(number))
    bench = Bench(name, before=first.rows)
    bench.run(2)
    start = time.process_time()
    bench.run(5)
    assert time.process_time() - start < 5 * 3.0  # seconds; a tenth of that where nothing else runs


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_small_space_is_proposed_to_its_last_feasible_member_then_full(name: str) -> None:
    space = Space(
        {
            "stages": [
                {
                    "block": ["plain", "residual"],
                    "width": [4, 8],
                    "kernel": [3, 5],
                    "groups": [1, 2, 3],
                    "depth": [0, 1],
                }
            ]
        },
        input=(1, 6, 6),
        classes=3,
    )
    members = [m.architecture for m in space.members()]
    limits = Limits(costs={"params": sorted(cost(a).params for a in members)[-4]})
    feasible = {a.digest for a in members if not limits.excess(cost(a))}
    assert 8 <= len(feasible) < len(members)
    bench = Bench(name, space=space, limits=limits)
    assert set(bench.run(len(feasible))) == feasible
    with pytest.raises(SpaceFull, match=rf"{len(feasible)} architectures were proposed"):
        bench.ask()


@pytest.mark.parametrize("name", ["surrogate", "tpe", "evolution", "local"])
def test_values_per_axis_pass_through_optuna_and_json(name: str) -> None:
    space = Space(
        {"stages": [{"block": "plain", "depth": [1, 2, 3, 4], "width": [4, 6], "kernel": [3, [1, 3, 3], [3, 1, 1]]}]},
        input=(1, 3, 6, 6),
        classes=2,
    )
    assert len(set(Bench(name, space=space, limits=Limits()).run(24, fates=fate("complete")))) == 24


def test_what_is_given_is_the_next_proposal() -> None:
    bench = Bench("random")
    given = next(m for m in (SPACE.sample(Random(i)) for i in range(99)) if not TIGHT.excess(cost(m.architecture)))
    bench.proposals.given = given
    assert bench.ask() == given
    assert bench.ask() != given


def test_a_space_without_choices_is_refused() -> None:
    space = Space({"stages": [{"block": "plain", "width": 4}]}, input=(1, 6, 6), classes=2)
    with pytest.raises(SpaceError, match="must offer at least one choice"):
        Bench("random", space=space)


def test_parameters_of_another_space_are_refused() -> None:
    with pytest.raises(SpaceError, match=r"choice 'width' must be one of 0.5, 1.0 \(got None\)"):
        Bench("random").proposals.code({"nothing": 1})
    with pytest.raises(SpaceError, match="has no choice 'nothing'"):
        SPACE.decode({"nothing": 1})
