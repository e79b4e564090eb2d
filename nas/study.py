"""The sampler's memory: an Optuna study that agrees with the results table, whatever a crash left behind.

The table is the truth. On opening, what the study lacks is told from the table, and trials that were begun and not
ended are handed back to be run again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from nas.pareto import Objective
from nas.results import Result


def open_study(name: str, storage: str | None, out: Path, objectives: Sequence[Objective]) -> Study:
    """The study `name` in `storage`, an Optuna storage URL, or in `out/journal.log`; made where there is none.

    Only one driver may hold `out`, so a lock that a killed one left on the journal is removed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place: str | BaseStorage
    if storage is None:
        journal = out / "journal.log"
        Path(f"{journal}.lock").unlink(missing_ok=True)
        place = JournalStorage(JournalFileBackend(str(journal)))
    else:
        place = storage
    directions = ["maximize" if o.maximize else "minimize" for o in objectives]
    return optuna.create_study(study_name=name, storage=place, directions=directions, load_if_exists=True)


def values_to_tell(result: Result, objectives: Sequence[Objective]) -> list[float] | None:
    """The result's point; worst accuracy where it was stopped untrained; None where it failed."""
    if result.state == "failed":
        return None
    worst = {o.name: 0.0 if o.maximize else float("inf") for o in objectives}
    return [float(result.values.get(o.name, worst[o.name])) for o in objectives]


def tell(study: Study, result: Result, objectives: Sequence[Objective], latency_limit_ms: float | None) -> None:
    """Tell the study of a finished trial. A broken latency limit is told as a violated constraint, which samplers
    learn from; a failure teaches nothing."""
    values = values_to_tell(result, objectives)
    latency = result.values.get("latency_ms")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if latency_limit_ms is not None and latency is not None:
            trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, result.trial)
            Trial(
                study,
                trial_id,
            ).set_constraint("latency", latency / latency_limit_ms - 1)
        if values is None or any(v != v or abs(v) == float("inf") for v in values):
            study.tell(result.trial, state=TrialState.FAIL, skip_if_finished=True)
        else:
            study.tell(result.trial, values, skip_if_finished=True)


def reconcile(
    study: Study,
    results: Mapping[int, Result],
    objectives: Sequence[Objective],
    distributions: Mapping[str, BaseDistribution],
    latency_limit_ms: float | None,
) -> list[FrozenTrial]:
    """Bring the study up to the table; the trials to run again, oldest first.

    A trial of the table that the study does not have (its journal was lost) is added under its number. A trial that
    was begun so late that its parameters are not all there is told as failed: nobody has seen it.
    """
    trials = study.get_trials(deepcopy=False)
    for number in range(len(trials), max(results, default=-1) + 1):
        study.add_trial(_from_table(results.get(number), objectives, distributions))
    orphans: list[FrozenTrial] = []
    for trial in trials:
        if trial.state.is_finished():
            continue
        if trial.number in results:
            tell(study, results[trial.number], objectives, latency_limit_ms)
        elif set(trial.params) == set(distributions):
            orphans.append(trial)
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    return orphans


def _from_table(
    result: Result | None, objectives: Sequence[Objective], distributions: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    values = values_to_tell(result, objectives) if result else None
    choices = {} if result is None or result.choices is None else result.choices
    params = {k: "x".join(map(str, v)) if isinstance(v, list | tuple) else v for k, v in choices.items()}
    if values is None or set(params) != set(distributions):
        return create_trial(state=TrialState.FAIL)
    return create_trial(state=TrialState.COMPLETE, params=params, distributions=dict(distributions), values=values)
