"""Ray workers that are killed, hang, run out of memory or train NaN; Ctrl-C and SIGTERM while they work."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_a_worker_killed_hung_out_of_memory_or_at_nan_costs_at_most_its_trial(sweeping: Callable[..., Any]) -> None:
    workers = {"epoch_minutes": 0.1, "max_concurrent": 2}
    one = sweeping(7, train="trainings:faulty", workers=workers, rungs=False)
    said = one.run()
    rows = {row.trial: row for row in one.check()}
    assert "".join(rows[n].state[0] for n in range(7)) == "cffcfcc", "complete or failed"
    assert Counter(trial for trial, _ in one.trainings()) == {0: 2, 1: 1, 2: 1, 3: 2, 4: 2, 5: 1, 6: 1}
    errors = {n: str(rows[n].error) for n in (1, 2, 4)}
    assert errors[1].startswith("Out of memory")
    assert "The loss must stay finite" in errors[2]
    assert errors[4].startswith("An epoch must end within 0.1 min, but 2 times it hung in:")
    assert "trainings.py" in errors[4], "it is said where it hung"
    assert "3 failed" in said


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_of_the_whole_process_group_saves_the_front_and_the_next_run_goes_on(
    sweeping: Callable[..., Any], wait_for: Callable[..., None], stop: signal.Signals
) -> None:
    """A terminal sends Ctrl-C to the driver and to all that it started."""
    one = sweeping(6, workers={"max_concurrent": 2}, training={"epochs": 60, "batch_size": 16})
    process = one.start()
    wait_for(lambda: len(one.rows()) >= 1, process)
    os.killpg(process.pid, stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert f"nas search sweep.yaml --out {one.out}" in said
    assert (one.out / "front.html").exists()
    assert one.rows()
    one.run()
    assert {row.state for row in one.check()} == {"complete"}
    assert len(one.trainings()) <= len(one.rows()) + 3  # two in work, and one that waited at the door
