"""How far trials came on the rungs, in counts that add up: for a table, a line of text and the colours of a figure.

A record at a lower rung says that its trial got there, and no more; what became of a trial is said by its last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nas.results import Result


@dataclass(frozen=True, slots=True)
class Level:
    """Trials at one level: `reached` = `went_on` + `ended`.

    `ended` have their last record here: at the top they are fully trained, below it they were stopped or still wait.
    `failed` and `late` (over the latency limit) were lost on the way here from the level below.
    """

    epoch: int
    reached: int
    went_on: int
    ended: int
    failed: int
    late: int


@dataclass(frozen=True, slots=True)
class Fates:
    """All levels, rising: `trials` = the sum of every level's `ended`, `failed` and `late`."""

    levels: tuple[Level, ...]

    @property
    def trials(self) -> int:
        return sum(level.ended + level.failed + level.late for level in self.levels)

    def said(self, below: str = "stopped at") -> str:
        """What became of all trials, in words; `below` is what those did that ended under the top."""
        *lower, top = self.levels
        failed, late = sum(level.failed for level in self.levels), sum(level.late for level in self.levels)
        rungs = [f"{level.ended} {below} epoch {level.epoch}" for level in lower if level.ended]
        over = [f"{late} over the latency limit"] if late else []
        return ", ".join([f"{top.ended} fully trained", *rungs, f"{failed} failed", *over])


def climbs(results: Iterable[Result]) -> list[list[Result]]:
    """The records of each trial, in order of arrival. Retrainings (kind "final") are no part of any."""
    found: dict[tuple[str, int], list[Result]] = {}
    for row in results:
        if row.kind != "final":
            found.setdefault((row.kind, row.trial), []).append(row)
    return list(found.values())


def fate(climb: Sequence[Result]) -> str:
    """What became of a trial: "trained", "below" the top, "failed", or "late" over the latency limit."""
    last = climb[-1]
    return {"failed": "failed", "stopped": "late"}.get(last.state, "trained" if last.final else "below")


def fates(results: Iterable[Result], levels: Sequence[int]) -> Fates:
    """The counts at `levels` (epochs, rising, the last is the training's end); of trials, not of what was published or
    imported."""
    counts: list[dict[str, int]] = [dict.fromkeys(("ended", "failed", "late"), 0) for _ in levels]
    for climb in climbs(results):
        if climb[-1].kind != "trial":
            continue
        end = fate(climb)
        passed = sum(level <= max((r.epoch for r in climb if r.state == "complete"), default=0) for level in levels)
        if end in ("failed", "late"):
            counts[min(passed, len(levels) - 1)][end] += 1
        else:
            counts[len(levels) - 1 if end == "trained" else max(passed, 1) - 1]["ended"] += 1
    return Fates(tuple(_added(levels, counts)))


def _added(levels: Sequence[int], counts: Sequence[Mapping[str, int]]) -> list[Level]:
    """From the top down: who reached a level ended there or set out for the next one."""
    found: list[Level] = []
    above = 0
    for epoch, count in reversed(list(zip(levels, counts, strict=True))):
        found.insert(0, Level(epoch, above + count["ended"], above, **count))
        above = found[0].reached + count["failed"] + count["late"]
    return found
