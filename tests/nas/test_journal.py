"""The journal that one driver writes is Optuna's own format, and what it keeps in memory is what the file says."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.journal import Journal


def test_what_one_driver_wrote_in_two_calls_is_what_optuna_reads(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = tmp_path / "journal.log"
    for _ in range(2):
        study = optuna.create_study(storage=JournalStorage(Journal(path)), study_name="a", load_if_exists=True)
        for _ in range(3):
            trial = study.ask()
            study.tell(trial, trial.suggest_categorical("width", (8, 16)) + trial.suggest_float("alpha", 0, 1))
        study.set_user_attr("seeds", [-1])
    other = optuna.load_study(storage=JournalStorage(JournalFileBackend(str(path))), study_name="a")
    assert other.trials == study.trials
    assert len(other.trials) == 6
    assert other.user_attrs == study.user_attrs == {"seeds": [-1]}
