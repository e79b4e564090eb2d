"""The driver is killed (kill -9) at ten moments of one sweep; the same command, run again, makes it good."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

# The command line, killed at the nth time that it comes to a moment; `clock` is a time in seconds.
KILLED = '''
import os
import sys
import threading

from optuna.study import Study

import experiments.cli
import nas.search
import nas.tracking
import nas.train
from nas.journal import Journal
from nas.results import Results
from nas.tracking import Tracker

moment, nth = sys.argv[1], float(sys.argv[2])
del sys.argv[1:3]
nas.train.SAVE_EVERY_S = 0.0


def die():
    os.kill(os.getpid(), 9)


def nth_time():
    global nth
    nth -= 1
    return nth == 0


def half(path, before):
    """Whatever was just written behind `before` bytes is only half there, and then the end."""
    os.truncate(path, before + (os.stat(path).st_size - before) // 2)
    die()


def instead(place, name, hurt):
    """Make `place.name` call `hurt` with itself and its arguments, at the nth time."""
    whole = getattr(place, name)
    setattr(place, name, lambda *a, **k: hurt(whole, *a, **k) if nth_time() else whole(*a, **k))


def before(whole, *a, **k):
    die()


def after(whole, *a, **k):
    whole(*a, **k)
    die()


def in_the_table(whole, table, result):
    size = os.stat(table.path).st_size if table.path.exists() else 0
    whole(table, result)
    half(table.path, size)


def in_the_journal(whole, journal, logs):
    size = os.stat(journal._path).st_size
    whole(journal, logs)
    half(journal._path, size)


def in_a_replace(folder):
    whole = os.replace

    def replace(source, target):
        if folder in str(target) and nth_time():
            die()
        whole(source, target)

    os.replace = replace


match moment:
    case "in a line of the table":
        instead(Results, "append", in_the_table)
    case "between the table and the study":
        instead(nas.search, "tell", before)
    case "in a line of the journal":
        nth = 30 + nth  # a trial makes some 8 lines
        instead(Journal, "append_logs", in_the_journal)
    case "after a proposal":
        instead(Study, "ask", after)
    case "in a checkpoint":
        in_a_replace("checkpoints")
    case "in an epoch":
        instead(nas.train, "_evaluate", before)
    case "in the front":
        in_a_replace("front.json")
    case "in a run of MLflow":
        instead(Tracker, "_batches", after)
    case "clock":
        seconds, nth = nth, 1
        instead(Study, "ask", lambda ask, *a, **k: (threading.Timer(seconds, die).start(), ask(*a, **k))[1])
experiments.cli.main()
'''

MOMENTS = [
    "in a line of the table",
    "between the table and the study",
    "in a line of the journal",
    "after a proposal",
    "in a checkpoint",
    "in an epoch",
    "in the front",
    "clock",
    "clock",
]


@pytest.mark.slow
def test_a_driver_killed_at_ten_moments_leaves_every_trial_once(tmp_path: Path, sweeping: Callable[..., Any]) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"{seed=}")
    rng = Random(seed)
    one = sweeping(40, tracking={})
    (tmp_path / "killed.py").write_text(KILLED)
    # MLflow's thread starts late, when most trials are over: its moment comes last.
    for moment in (*rng.sample(MOMENTS, len(MOMENTS)), "in a run of MLflow"):
        when = rng.uniform(0, 1) if moment == "clock" else 1 if moment == "in the front" else rng.randint(1, 4)
        before = len(one.rows())
        said = one.run(script=("killed.py", moment, str(when)), code=-9)
        print(f"{moment}, {when:.3g}: {before} -> {len(one.rows())} rows", *re.findall("jsonl?.*broken.*", said))
    one.run()
    rows = one.check()
    trainings = one.trainings()
    print(f"{len(trainings)} trainings for {len(one.rows())} rows of {len(rows)} trials")
    assert len(trainings) <= len(one.rows()) + 10, "a kill costs the training in flight, no more"
    assert {r.state for r in rows} == {"complete"}
