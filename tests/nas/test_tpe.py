"""Our TPE proposes as Optuna's does, new points first, from a study of any kind."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from nas import tpe
from nas.tpe import TPE

SPACE: dict[str, BaseDistribution] = {
    "width": CategoricalDistribution((8, 16, 24)),
    "block": CategoricalDistribution(("plain", "fire")),
    "alpha": CategoricalDistribution((0.0, 0.25, 0.5, 0.75)),
}


def study_of(trials: int, objectives: int = 2, violated: bool = False) -> Study:
    """Trials with one best corner, and a few that failed or are in work; the last one waits."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"][:objectives])
    rng = Random(0)
    for number in range(trials):
        params = {name: rng.choice(d.choices) for name, d in SPACE.items()}  # type: ignore[attr-defined]
        width, alpha = params["width"], params["alpha"]
        accuracy = width / 24 - alpha / 2 + 0.2 * (params["block"] == "fire") + rng.gauss(0, 0.3)
        state = (
            TrialState.RUNNING if number >= trials - 4 else TrialState.FAIL if number % 9 == 8 else TrialState.COMPLETE
        )
        study.add_trial(
            create_trial(
                state=state,
                params=params,
                distributions=SPACE,
                values=[accuracy, width * (1 - alpha)][:objectives] if state == TrialState.COMPLETE else None,
                constraints={"latency": width / 16 - 1} if violated and state == TrialState.COMPLETE else None,
            )
        )
    study.add_trial(create_trial(state=TrialState.WAITING))
    return study


def shares(sampler: BaseSampler, study: Study, asks: int = 400) -> dict[tuple[str, object], float]:
    """How often each value is proposed."""
    seen: Counter[tuple[str, object]] = Counter()
    trial = study.trials[-1]
    for _ in range(asks):
        trial.number += 1
        seen.update(sampler.sample_relative(study, trial, SPACE).items())
    return {key: count / asks for key, count in seen.items()}


# Of two objectives, the points of the last rank that are still good are chosen otherwise: not the same, but close.
@pytest.mark.parametrize(
    ("objectives", "violated", "candidates"), [(1, False, 1), (1, False, 4), (1, True, 1), (1, True, 4), (2, False, 1)]
)
def test_it_proposes_each_value_as_often_as_optuna(
    objectives: int, violated: bool, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tpe, "DRAWS", 0)  # a space this small has no new points: let old ones pass, as Optuna does
    monkeypatch.setattr(tpe, "CANDIDATES", candidates)
    study = study_of(240, objectives, violated)
    ours = shares(TPE(0), study)
    theirs = shares(TPESampler(seed=0, multivariate=True, constant_liar=True, n_ei_candidates=candidates), study)
    assert max(abs(ours.get(key, 0) - theirs.get(key, 0)) for key in ours | theirs) < 0.1
    assert max(abs(share - 1 / len(SPACE[name].choices)) for (name, _), share in ours.items()) > 0.2  # type: ignore[attr-defined]


def test_a_density_sums_to_one_and_knows_its_rows() -> None:
    sizes = np.array([3, 2, 4])
    points = np.array([(a, b, c) for a in range(3) for b in range(2) for c in range(4)], dtype=np.uint16)
    rows, weights = points[[0, 5, 5, 20]], np.array([0.1, 1.0, 0.5, 1.0])
    logs, known = tpe._log_density(points, rows, weights, sizes)
    assert np.exp(logs).sum() == pytest.approx(1)
    assert np.flatnonzero(known).tolist() == [0, 5, 20]


def test_points_are_drawn_from_the_good_density() -> None:
    """As often as the density says, where one draw is one candidate and nothing is ranked."""
    sizes = np.array([3, 2])
    every = np.array([(a, b) for a in range(3) for b in range(2)], dtype=np.uint16)
    good = every[[0, 0, 3]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tpe, "DRAWS", 0)
        patch.setattr(tpe, "CANDIDATES", 1)
        drawn = Counter(
            tuple(p.tolist()) for p in islice(tpe._points(good, good[:0], sizes, np.random.default_rng(0)), 4_000)
        )
    expected = np.exp(tpe._log_density(every, good, np.ones(3), sizes)[0])
    found = np.array([drawn[tuple(p)] / 4_000 for p in every.tolist()])
    assert found == pytest.approx(expected, abs=0.02)


def test_a_point_that_was_there_is_not_proposed_while_there_are_others() -> None:
    study = study_of(60)
    there = {tuple(t.params.values()) for t in study.get_trials(states=(TrialState.COMPLETE, TrialState.RUNNING))}
    wide = {**SPACE, "kernel": CategoricalDistribution(tuple(range(50)))}
    for t in study.get_trials(deepcopy=False)[:-1]:
        t.params["kernel"], t.distributions["kernel"] = 0, wide["kernel"]
    sampler, trial = TPE(0), study.trials[-1]
    points = [tuple(sampler.sample_relative(study, trial, wide).values()) for _ in range(20)]
    assert len(set(points)) == 20
    assert not {p[:3] for p in points if p[3] == 0} & there


def test_the_best_are_the_fit_then_the_ranks_then_the_volume() -> None:
    losses = np.array([[0, 4], [1, 2], [1.1, 1.9], [4, 0], [5, 5], [-9, -9]], dtype=float)
    excess = np.array([0, 0, 0, 0, 0, 1.0])
    chosen = {wanted: set(tpe._best(losses, excess, wanted).tolist()) for wanted in (1, 4, 5, 6)}
    assert chosen[1] <= {0, 1, 2, 3}
    assert chosen[4] == {0, 1, 2, 3}
    assert chosen[5] == {0, 1, 2, 3, 4}
    assert chosen[6] == {0, 1, 2, 3, 4, 5}
    assert tpe._best(losses[5:], excess[5:], 1).tolist() == [0]


def test_a_resumed_study_is_remembered_whole_and_more_than_the_first_arrays_hold() -> None:
    study = study_of(200)
    sampler = TPE(0)
    sampler.sample_relative(study, study.trials[-1], SPACE)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert sampler._memory is not None
    assert sampler._memory.count == len(complete)
    row = sampler._memory._rows[150].tolist()
    assert [d.to_external_repr(i) for d, i in zip(SPACE.values(), row, strict=True)] == [*complete[150].params.values()]


def test_a_trial_without_parameters_changes_nothing() -> None:
    study = study_of(60)
    study.add_trial(create_trial(values=[9.0, 0.0]))
    study.add_trial(create_trial(state=TrialState.WAITING))
    assert TPE(0).sample_relative(study, study.trials[-1], SPACE).keys() == SPACE.keys()
