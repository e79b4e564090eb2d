"""What a search says on the terminal: the configuration, trials as they come, where it stands, and how it ended."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.progress import Watch, describe, show_outcome, status_line, trial_line
from experiments.report import no_front, write_report
from experiments.terminal import Narrator
from nas.pareto import OBJECTIVES, front, hypervolume_history
from nas.proposals import Counts
from nas.results import Result, Worker
from nas.search import Outcome, Status
from nas.survey import Survey
from nas.sweep import Budget, Limits, Sweep, Workers
from nas.training import Training

TWO = (OBJECTIVES["accuracy"], OBJECTIVES["flops"])
LEVELS = (2, 4, 8)
SWEEP = Sweep(
    name="digits",
    data="digits",
    space={},
    budget=Budget(epochs=480),
    limits=Limits(costs={"flops": 1e6}),
    training=Training(epochs=8),
    workers=Workers(address="inprocess"),
)


def record(trial: int, epoch: int, accuracy: float | None = None, **more: object) -> Result:
    values = {"flops": 2e5 + trial, "macs": 2e5}
    fields: dict = {
        "trial": trial,
        "digest": f"{trial + 9:016x}",
        "architecture": {},
        "words": "16x16x1 > stem 3x3 16 > head pool, fc 10",
        "epoch": epoch,
        "final": epoch == 8,
        "state": "complete",
        "values": values if accuracy is None else values | {"accuracy": accuracy},
        "seconds": 3.0,
        "worker": Worker(node="a", pid=1, device="cpu"),
        "seed": 0,
    }
    return Result(**(fields | more))


LOST = {"final": False, "state": "failed", "error": "ValueError: no luck\nmore"}
LATE = record(4, 0, final=False, state="stopped", values={"flops": 1e5, "latency_ms": 7.0})
ROWS = (
    record(-1, 8, 0.7, kind="seed", name="squeezenet"),
    record(0, 2, 0.311),
    record(1, 2, 0.322),
    record(2, 1, **LOST),
    LATE,
    record(1, 4, 0.433),
    record(3, 2, 0.344),
    record(1, 8, 0.955),
    record(3, 3, **LOST),
)


def status(**more: object) -> Status:
    fields: dict = {
        "total": None,
        "done": 41,
        "failed": 2,
        "stopped": 1,
        "in_flight": 3,
        "levels": LEVELS,
        "reached": (38, 19, 9),
        "epochs": 212,
        "epochs_total": 480,
        "new": (),
        "front": (record(1, 8, 0.955), record(5, 8, 0.913)),
        "hypervolume": 1.2345,
    }
    return Status(**(fields | more))


def outcome(out: Path, rows: tuple[Result, ...], **more: object) -> Outcome:
    reference = {"accuracy": 0.0, "flops": 1.1e6}
    survey = Survey(codes=9, choices=1, drawn=9, feasible=1.0, costs={}, nearest={}, nearest_words="", per_second=1.0)
    fields: dict = {
        "out": out,
        "sweep": SWEEP,
        "results": rows,
        "front": tuple(front(rows, TWO)),
        "objectives": TWO,
        "reference": reference,
        "survey": survey,
        "proposals": Counts(),
        "ended": "the budget is spent",
        "interrupted": False,
        "history": tuple(hypervolume_history(rows, TWO, reference)),
        "levels": LEVELS,
        "store": None,
        "chart": None,
    }
    return Outcome(**(fields | more))


def test_the_configuration_says_the_rungs_and_the_budget(tmp_path: Path) -> None:
    said = "\n".join(describe(replace(SWEEP, budget=Budget(trials=60, epochs=480)), tmp_path))
    assert "rungs      2, 4, 8 epochs, the better half goes on" in said
    assert "budget     60 trials or 480 epochs, proposed by surrogate" in said
    whole = "\n".join(describe(replace(SWEEP, sampler="tpe"), tmp_path))
    assert "training   8 epochs, every trial" in whole
    assert "rungs" not in whole
    assert "1, 8 epochs, the best quarter goes on" in "\n".join(describe(replace(SWEEP, sampler="screen"), tmp_path))


def test_the_column_of_accuracies_holds_results_alone() -> None:
    lines = [trial_line(row, LEVELS, on_front=False) for row in ROWS[1:] if row.state == "complete"]
    result = trial_line(record(1, 8, 0.955), LEVELS, on_front=True)
    at = result.index("0.955")
    assert result.startswith("* trial-0001")
    assert [line[at : at + 5] for line in lines] == ["  -  ", "  -  ", "  -  ", "  -  ", "0.955"]
    assert "  epoch 2 of 8, 0.322 there  " in lines[1]
    assert "  went on to epoch 4 of 8, 0.433 there  " in lines[2]
    assert "there" not in result


def test_a_failed_or_late_trial_says_why() -> None:
    assert trial_line(ROWS[3], LEVELS, on_front=False) == "! trial-0002  failed: ValueError: no luck"
    assert "latency 7 ms is over the limit" in trial_line(LATE, LEVELS, on_front=False)


def test_the_status_says_all_and_what_matters_first() -> None:
    line = status_line(status(), 725, 750)
    parts = (
        "41 trials",
        "212/480 epochs",
        "about 12 min 30 s left",
        "rungs 38 > 19 > 9",
        "2 failed",
        "2 on the front",
        "best accuracy 0.955",
        "hypervolume 1.234",
        "3 in work",
        "1 over the latency limit",
        "12 min 05 s",
    )
    assert line == ", ".join(parts)
    assert all(part in line[:80] for part in parts[:4]), "the narrowest usual terminal"
    assert "rungs" not in status_line(status(levels=(8,), reached=(9,)), 1, None)
    assert "41/60 trials, 212 epochs, rungs" in status_line(status(total=60, epochs_total=None), 1, None)
    early = status_line(status(front=()), 1, None)
    assert "none trained for 8 epochs yet" in early
    assert "best" not in early


class Heard(Narrator):
    """Keeps every status it was given."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.heard: list[str] = []

    def status(self, text: str) -> None:
        self.heard.append(text)


@pytest.mark.parametrize(
    ("budget", "left"),
    [
        ({"epochs_total": 140, "total": 1000}, "about 1 min 00 s left"),
        ({"epochs_total": None, "total": 60}, "about 40 s left"),
        ({"epochs_total": 79, "total": None}, ""),
        ({"epochs_total": None, "total": 40}, ""),
        ({"epochs_total": None, "total": None}, ""),
    ],
    ids=["epochs", "trials", "over", "all begun", "neither"],
)
def test_what_is_left_goes_by_epochs_or_else_by_trials(budget: dict[str, object], left: str) -> None:
    """A search that goes on: 10 trials and 20 epochs in 20 s; what was spent before does not make it look fast."""
    times = iter([0.0, 5.0, 25.0])
    narrator = Heard()
    watch = Watch(narrator, clock=lambda: next(times))
    watch(status(done=30, epochs=60, **budget))
    watch(status(done=40, epochs=80, **budget))
    first, second = narrator.heard
    assert "left" not in first
    assert re.findall(r"about [^,]* left", second) == ([left] if left else [])


def test_a_trial_appears_again_at_each_level_it_reaches() -> None:
    narrator = Heard()
    watch = Watch(narrator)
    for row in ROWS:
        watch(status(new=(row,), front=(record(1, 8, 0.955),)))
    said = [line for line in narrator.stream.getvalue().splitlines() if "trial-0001" in line]  # type: ignore[attr-defined]
    assert len(said) == 3
    assert ["epoch 2 of 8" in said[0], "epoch 4 of 8" in said[1], said[2].startswith("*")] == [True] * 3


def test_the_end_says_what_became_of_every_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(outcome(tmp_path, ROWS))
    said = capsys.readouterr().out
    ends = "1 fully trained, 1 stopped at epoch 2, 2 failed, 1 over the latency limit"
    assert f"Pareto front of 5 trials and 1 published: {ends}; the budget is spent." in said
    assert "0.955" in said
    assert not re.search(r"0\.(311|322|344|433)", said), "a partial training is no result"
    show_outcome(outcome(tmp_path, ROWS, interrupted=True, ended="interrupted"))
    assert "1 wait at epoch 2" in capsys.readouterr().out


def test_what_is_no_trial_stands_beside_the_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported = record(-2, 8, 0.8, kind="tune")
    lost = record(-3, 1, kind="seed", name="vgg", **LOST)
    show_outcome(outcome(tmp_path, (*ROWS, imported, lost)))
    said = capsys.readouterr().out
    assert "Pareto front of 5 trials and 2 published and 1 from Ray Tune (1 published not trained): 1 fully" in said


def test_partial_trainings_alone_are_no_front_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_outcome(outcome(tmp_path, (ROWS[1], ROWS[2], ROWS[5], ROWS[3])))
    said = capsys.readouterr().out
    assert "3 trials: 0 fully trained, 1 stopped at epoch 2, 1 stopped at epoch 4, 1 failed" in said
    assert "2 trained in part, to epoch 2 or 4, which is no result" in said
    assert "1 failed, first trial-0002 by ValueError: no luck" in said
    assert no_front([]) == "No trial was trained to its end: none has ended yet"


@pytest.mark.parametrize("levels", [LEVELS, (8,)])
def test_the_files_show_rungs_where_there_are_some(levels: tuple[int, ...], tmp_path: Path) -> None:
    files = write_report(outcome(tmp_path, ROWS, levels=levels))
    assert all(path.stat().st_size > 10_000 for path in files)
    page = (tmp_path / "front.html").read_text()
    assert page.count("<h2>") == 1 + 1 + (len(levels) > 1)
    assert ("went on</th>" in page) == (len(levels) > 1)
    assert "5 trials and 1 published, of 8 epochs" in page
    assert "Hypervolume, from the reference validation accuracy 0, FLOPs 1.1M" in page
