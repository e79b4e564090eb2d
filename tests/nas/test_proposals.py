"""Whatever the sampler, a trial is buildable, inside the limits and new: one suite for all of them."""

from __future__ import annotations

from random import Random

import optuna
import pytest
from optuna.trial import TrialState

from nas.proposals import SAMPLERS, Proposals, SpaceFull
from nas.sweep import Limits
from searchspace.choices import SpaceError
from searchspace.cost import cost
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


def study_of(proposals: Proposals) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=proposals)


def run(
    name: str, trials: int, seed: int = 0, space: Space = SPACE, limits: Limits = TIGHT
) -> tuple[Proposals, list[str]]:
    """Trials with a made-up, deterministic accuracy; every fifth fails. (proposals, digests)."""
    proposals = Proposals(space, limits, SAMPLERS[name](seed), Random(seed), set())
    study = study_of(proposals)
    digests: list[str] = []
    for number in range(trials):
        trial = study.ask(fixed_distributions=proposals.distributions)
        assert proposals.candidate is not None
        assert proposals.cost is not None
        architecture = proposals.candidate.architecture
        assert space.decode(proposals.code(trial.params)) == architecture
        digests.append(architecture.digest)
        assert limits.excess(cost(architecture)) == {}
        if number % 5 == 4:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, [int(architecture.digest[:4], 16) / 65536, proposals.cost.flops])
    return proposals, digests


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_trial_is_feasible_and_new_where_few_members_are_feasible(name: str) -> None:
    share = sum(not TIGHT.excess(cost(SPACE.sample(Random(i)).architecture)) for i in range(200)) / 200
    assert share < 0.3
    proposals, digests = run(name, 45)
    assert len(set(digests)) == 45
    assert proposals.counts.over_limit > 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_gives_the_same_trials_and_another_seed_others(name: str) -> None:
    assert run(name, 15, seed=3)[1] == run(name, 15, seed=3)[1]
    assert run(name, 15, seed=3)[1] != run(name, 15, seed=4)[1]


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
    _, digests = run(name, len(feasible), space=space, limits=limits)
    assert set(digests) == feasible
    proposals = Proposals(space, limits, SAMPLERS[name](0), Random(0), set(digests))
    with pytest.raises(SpaceFull, match=rf"{len(feasible)} architectures were proposed"):
        study_of(proposals).ask(fixed_distributions=proposals.distributions)


def test_the_start_of_a_sampler_that_learns_shows_the_values_of_every_choice() -> None:
    def shown(spread: int, trials: int) -> int:
        proposals = Proposals(SPACE, Limits(), SAMPLERS["tpe"](0), Random(0), set(), spread)
        study = study_of(proposals)
        values: set[tuple[str, object]] = set()
        for _ in range(trials):
            trial = study.ask(fixed_distributions=proposals.distributions)
            code = proposals.code(trial.params)
            values |= {(name, code[name]) for name in SPACE.active(code)}
        return len(values)

    members = [SPACE.sample(Random(i)) for i in range(400)]
    everything = {(name, m.code[name]) for m in members for name in SPACE.active(m.code)}
    assert shown(8, 12) == len(everything)
    assert shown(8, 4) > shown(1, 4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_all_failed_trials_do_not_stop_a_sampler(name: str) -> None:
    proposals = Proposals(SPACE, TIGHT, SAMPLERS[name](0), Random(0), set())
    study = study_of(proposals)
    for _ in range(12):
        study.tell(study.ask(fixed_distributions=proposals.distributions), state=TrialState.FAIL)
    assert len(proposals.seen) == 12


def test_values_per_axis_pass_through_optuna() -> None:
    space = Space(
        {"stages": [{"block": "plain", "width": [4, 6], "kernel": [3, [1, 3, 3], [3, 1, 1]]}]},
        input=(1, 3, 6, 6),
        classes=2,
    )
    _, digests = run("tpe", 6, space=space, limits=Limits())
    assert len(set(digests)) == 6


def test_a_space_without_choices_is_refused() -> None:
    space = Space({"stages": [{"block": "plain", "width": 4}]}, input=(1, 6, 6), classes=2)
    with pytest.raises(SpaceError, match="must offer at least one choice"):
        Proposals(space, Limits(), SAMPLERS["random"](0), Random(0), set())


def test_parameters_of_another_space_are_refused() -> None:
    proposals = Proposals(SPACE, TIGHT, SAMPLERS["random"](0), Random(0), set())
    with pytest.raises(KeyError):
        proposals.code({"nothing": 1})
    with pytest.raises(SpaceError, match="has no choice 'nothing'"):
        SPACE.decode({"nothing": 1})
