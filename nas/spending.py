"""What a search may still spend: its budget against what was trained and what is in work."""

from __future__ import annotations

import time
from collections.abc import Collection

from nas.jobs import Job
from nas.sweep import Sweep
from nas.tally import Tally


class Spending:
    """Hours count from here. Seeds cost GPU hours alone."""

    def __init__(self, sweep: Sweep, tally: Tally) -> None:
        self._budget, self._whole, self._gpus = sweep.budget, sweep.training.epochs, sweep.workers.gpus_per_trial
        self._tally = tally
        self._started = time.monotonic()

    def in_time(self) -> bool:
        """Whether hours and GPU hours are left."""
        hours, gpu_hours = (time.monotonic() - self._started) / 3600, self._tally.seconds * self._gpus / 3600
        return (self._budget.hours is None or hours < self._budget.hours) and (
            self._budget.gpu_hours is None or gpu_hours < self._budget.gpu_hours
        )

    def affords_trial(self, in_work: Collection[Job]) -> bool:
        """Whether one more trial can be begun beside what is in work, and trained to its end."""
        new = sum(job.kind == "trial" and job.trial not in self._tally for job in in_work)
        return (
            (self._budget.trials is None or self._tally.done + new < self._budget.trials)
            and self.affords(self._whole, in_work)
            and self.in_time()
        )

    def affords(self, epochs: int, in_work: Collection[Job]) -> bool:
        """Whether so many epochs are left beside what is in work."""
        if self._budget.epochs is None:
            return True
        flying = sum(job.until - self._tally.epoch(job.trial) for job in in_work if job.kind == "trial")
        return self._tally.epochs + flying + epochs <= self._budget.epochs
