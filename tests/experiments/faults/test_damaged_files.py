"""Damaged journals and checkpoints are kept aside or replaced, and said; a folder has one driver at a time."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DAMAGES = {
    "cut": lambda line: line[: len(line) // 2],
    "garbled": lambda line: b"\x00\xff{" + line[3:],
    "garbled with line ends": lambda line: b"}\r{" + line[3:],
    "another value": lambda line: b"17\n",
}


def damage_the_last_line(path: Path, damage: Callable[[bytes], bytes]) -> bytes:
    """Returns what the last line is now."""
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + damage(last))
    return damage(last)


@pytest.mark.slow
def test_a_damaged_last_line_of_a_journal_goes_aside_and_is_said(sweeping: Callable[..., Any]) -> None:
    trials = 2
    sweeping(trials).run()
    for damage in DAMAGES.values():
        trials += 1
        one = sweeping(trials)
        broken = {name: damage_the_last_line(one.out / name, damage) for name in ("results.jsonl", "journal.log")}
        said = one.run()
        for name, line in broken.items():
            assert f"{name}.broken" in said, name
            assert (one.out / f"{name}.broken").read_bytes().endswith(line)
        one.check()


@pytest.mark.slow
def test_a_journal_damaged_in_its_middle_is_filled_from_the_table(sweeping: Callable[..., Any]) -> None:
    one = sweeping(4)
    one.run()
    lines = (one.out / "journal.log").read_bytes().splitlines(keepends=True)
    lines[len(lines) // 2] = b"\x00\x00\n"
    (one.out / "journal.log").write_bytes(b"".join(lines))
    one = sweeping(5)
    assert "journal.log.broken" in one.run()
    one.check()


@pytest.mark.slow
def test_damaged_checkpoints_are_said_and_the_training_starts_over(
    sweeping: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    one = sweeping(3, training={"epochs": 400, "batch_size": 16}, rungs=False)
    script = "import sys, nas.train, experiments.cli; nas.train.SAVE_EVERY_S = 0.0; experiments.cli.main()"
    process = one.start(script=("-c", script))
    wait_for((one.out / "checkpoints" / "trial-0000").exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (one.out / "checkpoints" / "trial-0000").write_bytes(b"garbage")
    said = one.run()
    assert "trial-0000 is damaged, so the training started over" in said
    (row, *_) = one.check()
    assert "started over" in str(row.note)
    # The weights of a front member, before its test accuracy is measured: the front keeps it, and it is said.
    member = Path(next(iter((one.out / "checkpoints").glob("*.safetensors"))))
    member.write_bytes(b"garbage")
    (one.out / "front.json").unlink()
    assert f"{member.stem} has no test accuracy: {member}: must be a network file" in one.run()
    one.check()


def test_a_second_driver_is_told_who_holds_the_folder_and_a_stale_lock_is_broken(
    sweeping: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    one = sweeping(2, training={"epochs": 2000, "batch_size": 16})
    first = one.start()
    lock = one.out / "lock"
    wait_for(lambda: lock.exists() and lock.read_text(), first)
    said = one.run(code=2)
    assert f"{one.out}: must not be in use by another search" in said
    assert f"(held by process {first.pid} on {socket.gethostname()} since 20" in said
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert str(first.pid) in lock.read_text()
    os.symlink("journal.log", one.out / "journal.log.lock")  # Optuna's own, as a kill in mid-write leaves it
    second = one.start()
    wait_for(lambda: f"process {second.pid} " in lock.read_text(), second)
    second.send_signal(signal.SIGKILL)
    second.communicate()
