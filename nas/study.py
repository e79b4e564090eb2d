"""The sampler's memory: an Optuna study that agrees with the results table, whatever a crash left behind.

The table is the truth. On opening, what the study lacks is told from the table, and trials that were begun and not
ended are handed back to be run again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from nas.journal import Journal
from nas.pareto import Objective
from nas.proposals import plain
from nas.results import Result
from nas.sweep import SweepError


def mend_journal(out: Path) -> Path | None:
    """Take away what a killed driver left of `out/journal.log`: its lock, and all from the first broken line on.

    Returns the file that the broken lines went to, None where the journal is whole. Only one driver may hold `out`.
    """
    journal = out / "journal.log"
    Path(f"{journal}.lock").unlink(missing_ok=True)
    if not journal.exists():
        return None
    whole = 0
    with open(journal, "rb") as lines:
        for line in lines:
            if not line.endswith(b"\n") or not _is_record(line):
                break
            whole += len(line)
        lines.seek(whole)
        broken = lines.read()
    if not broken:
        return None
    aside = journal.with_name("journal.log.broken")
    with open(aside, "ab") as file:
        file.write(broken)
    os.truncate(journal, whole)
    return aside


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def open_study(name: str, storage: str | None, out: Path, objectives: Sequence[Objective]) -> Study:
    """The study `name` in `storage`, an Optuna storage URL, or in `out/journal.log`; made where there is none."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = storage or JournalStorage(Journal(out / "journal.log"))
    directions = ["maximize" if o.maximize else "minimize" for o in objectives]
    try:
        return optuna.create_study(study_name=name, storage=place, directions=directions, load_if_exists=True)
    except Exception as error:  # any database, any driver
        if storage is None:
            raise
        raise SweepError([f"storage: must be an Optuna storage that answers (got {storage!r}: {error})"]) from None


def values_to_tell(result: Result, objectives: Sequence[Objective]) -> list[float] | None:
    """The result's point; worst accuracy where it was stopped untrained; None where it failed or is not finite."""
    worst = {o.name: 0.0 if o.maximize else math.inf for o in objectives}
    values = [float(result.values.get(o.name, worst[o.name])) for o in objectives]
    return values if result.state != "failed" and all(map(math.isfinite, values)) else None


def constraints(result: Result, latency_limit_ms: float | None) -> dict[str, float]:
    """By how much the result breaks the latency limit, as a share of it; samplers learn from a value above 0."""
    latency = result.values.get("latency_ms")
    return {} if latency is None or latency_limit_ms is None else {"latency": latency / latency_limit_ms - 1}


def tell(
    study: Study,
    trial: Trial | int,
    result: Result,
    objectives: Sequence[Objective],
    latency_limit_ms: float | None,
) -> None:
    """Tell the study of a finished trial; of one that this process asked for, with its constraint."""
    values = values_to_tell(result, objectives)
    if isinstance(trial, Trial):
        for name, value in constraints(result, latency_limit_ms).items():
            trial.set_constraint(name, value)
    state = TrialState.FAIL if values is None else TrialState.COMPLETE
    study.tell(trial, values, state=state, skip_if_finished=True)


def reconcile(
    study: Study,
    results: Mapping[int, Result],
    objectives: Sequence[Objective],
    distributions: Mapping[str, BaseDistribution],
    latency_limit_ms: float | None,
) -> list[FrozenTrial]:
    """Bring the study up to the table; the trials to run again, oldest first.

    A trial of the table that the study does not have (its journal was lost) is added under its number. A trial that
    waits at a rung goes on running here. One that was begun so late that its parameters are not all there is told as
    failed: nobody has seen it.
    """
    trials = study.get_trials(deepcopy=False)
    for number in range(len(trials), max(results, default=-1) + 1):
        study.add_trial(_from_table(results.get(number), objectives, distributions, latency_limit_ms))
    orphans: list[FrozenTrial] = []
    for trial in trials:
        if trial.state.is_finished():
            continue
        if trial.number in results and not results[trial.number].ended:
            continue
        if trial.number in results:
            tell(study, trial.number, results[trial.number], objectives, latency_limit_ms)
        elif set(trial.params) == set(distributions):
            orphans.append(trial)
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    return orphans


def tell_stopped(study: Study, trials: Iterable[int]) -> None:
    """Tell the study that these trials ended at a rung. Promoted later, in a longer sweep, they stay so here."""
    running = {t.number for t in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}
    for number in sorted(running.intersection(trials)):
        study.tell(number, state=TrialState.PRUNED)


def _from_table(
    result: Result | None,
    objectives: Sequence[Objective],
    distributions: Mapping[str, BaseDistribution],
    latency_limit_ms: float | None,
) -> FrozenTrial:
    values = values_to_tell(result, objectives) if result else None
    choices = {} if result is None or result.choices is None else result.choices
    params = {name: plain(value) for name, value in choices.items()}
    if result is None or values is None or set(params) != set(distributions):
        return create_trial(state=TrialState.FAIL)
    if not result.ended:
        return create_trial(state=TrialState.RUNNING, params=params, distributions=dict(distributions))
    return create_trial(
        state=TrialState.COMPLETE,
        params=params,
        distributions=dict(distributions),
        values=values,
        constraints=constraints(result, latency_limit_ms),
    )
