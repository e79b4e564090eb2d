"""Workers: where a rung job runs. One protocol, `Pool`; jobs run in this process or as Ray tasks.

A pool answers every job it took with exactly one result, unless it is closed first. A worker process or node that is
lost has its job repeated once.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self, cast

from nas.hanging import epochs_limited, where_it_hung
from nas.jobs import Job, WorkersError, answer, run
from nas.ray_session import open_session, quiet_ray, reachable
from nas.results import Result, Worker

if TYPE_CHECKING:
    from ray import ObjectRef

ATTEMPTS = 2  # a job whose worker was lost, or ended for hanging, runs once more
EPOCH_MINUTES = 60.0
SHIPPED = ("nas", "searchspace")  # the packages a cluster's workers get from the driver


class Pool(Protocol):
    """Takes jobs and gives results, in any order."""

    @property
    def capacity(self) -> int:
        """Jobs that can run at the same time; with 0 nothing is begun."""

    def submit(self, job: Job) -> None:
        """Take a job without waiting. Raises `WorkersError` once closed."""

    def finished(self, timeout_s: float) -> list[Result]:
        """Results not given before, waiting up to `timeout_s` for the first; empty if there is none."""

    def close(self) -> None:
        """Cancel what runs, and end what the pool began. A second call does nothing."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class InProcessPool:
    """One job at a time in the calling thread: nothing to start, easy to debug.

    `finished` runs the next job, to its end whatever `timeout_s` says. A crash of a job is a crash of this process.
    """

    capacity = 1

    def __init__(self, *, device: str = "auto") -> None:
        self._device = device
        self._waiting: deque[Job] = deque()
        self._closed = False

    def submit(self, job: Job) -> None:
        _check_open(self._closed)
        self._waiting.append(job)

    def finished(self, timeout_s: float) -> list[Result]:
        return [run(self._waiting.popleft(), device=self._device)] if self._waiting else []

    def close(self) -> None:
        self._waiting.clear()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class RayPool:
    """Each job a Ray task of `cpus_per_trial` and `gpus_per_trial` (fractions share a card).

    Without `address` a local session is started, and ended by `close`. With one ("auto", "host:port", "ray://...") the
    driver's `nas` and `searchspace` are shipped to the workers, and the top-level `modules` a training function needs.
    A session this process already has is used and left open. All jobs are handed to Ray at once, so that an autoscaler
    sees the demand, unless `max_concurrent` holds them back. Worker processes are kept, with the data they loaded;
    one whose epoch takes longer than `epoch_minutes` is ended, and counts as lost.
    Raises `WorkersError` where nobody answers at `address` within `timeout_s`, or no node fits a trial.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus_per_trial: float = 1,
        gpus_per_trial: float = 0,
        max_concurrent: int | None = None,
        modules: Sequence[str] = (),
        epoch_minutes: float = EPOCH_MINUTES,
        timeout_s: float = 10.0,
    ) -> None:
        if cpus_per_trial < 0 or gpus_per_trial < 0 or cpus_per_trial + gpus_per_trial == 0:
            raise WorkersError(f"A trial must use a CPU or a GPU, but got ({cpus_per_trial=}, {gpus_per_trial=}).")
        if max_concurrent is not None and max_concurrent < 1:
            raise WorkersError(f"`max_concurrent` must be at least 1, but got {max_concurrent}.")
        self._need = {"CPU": float(cpus_per_trial), "GPU": float(gpus_per_trial)}
        self._max_concurrent = max_concurrent
        self._epoch_minutes = epoch_minutes
        self._joined = address is not None
        self._waiting: deque[tuple[Job, int]] = deque()
        self._running: dict[ObjectRef, tuple[Job, int]] = {}
        self._closed = False
        self._fits, self._counted = 0, -math.inf
        self._ray = quiet_ray()
        self._task = self._ray.remote(
            num_cpus=cpus_per_trial,
            num_gpus=gpus_per_trial,
            max_retries=0,  # repeated here: Ray repeats a task killed for memory without end
            max_calls=0,
            scheduling_strategy="SPREAD",
        )(_task)
        if address is not None:
            address = reachable(address, timeout_s)
        self._opened = not self._ray.is_initialized()
        if self._opened:
            open_session(self._ray, address, (*SHIPPED, *modules), gpus_per_trial > 0)
        elif address not in (None, self._ray.get_runtime_context().gcs_address):
            raise WorkersError(
                f"This process must leave its present Ray session before it joins {address}: ray.shutdown()."
            )
        if address is None and self._fitting() == 0:
            total = {name: self._ray.cluster_resources().get(name, 0) for name in self._need}
            self.close()
            raise WorkersError(f"A trial must fit this machine, but it needs {self._need} where there is {total}.")

    def _fitting(self) -> int:
        """Trials that fit the nodes there are, or were a second ago: asking takes longer than a proposal."""
        if time.monotonic() - self._counted > 1:
            self._fits = sum(_slots(node["Resources"], self._need) for node in self._ray.nodes() if node["Alive"])
            self._counted = time.monotonic()
        return self._fits

    @property
    def capacity(self) -> int:
        if self._max_concurrent is not None and self._joined:
            return self._max_concurrent  # of a cluster that may grow: pending tasks are what makes it
        fitting = max(1, self._fitting())
        return fitting if self._max_concurrent is None else min(fitting, self._max_concurrent)

    def submit(self, job: Job) -> None:
        _check_open(self._closed)
        self._waiting.append((job, 1))
        self._dispatch()

    def _dispatch(self) -> None:
        while self._waiting and (self._max_concurrent is None or len(self._running) < self._max_concurrent):
            job, attempt = self._waiting.popleft()
            path = [os.path.abspath(entry) for entry in sys.path]
            self._running[self._task.remote(job, self._need["GPU"] > 0, path, self._epoch_minutes)] = job, attempt

    def finished(self, timeout_s: float) -> list[Result]:
        deadline = time.monotonic() + timeout_s
        while self._running:
            left = max(0.0, deadline - time.monotonic())
            if not self._ray.wait(list(self._running), num_returns=1, timeout=left)[0]:
                break
            ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            results = [result for ref in ready if (result := self._collect(ref)) is not None]
            self._dispatch()
            if results:
                return results
        return []

    def _collect(self, ref: ObjectRef) -> Result | None:
        """The result of a task that ended; None where its worker was lost and the job waits to be repeated."""
        from ray.exceptions import RayError, RayTaskError

        job, attempt = self._running.pop(ref)
        try:
            return cast(Result, self._ray.get(ref))
        except RayTaskError as error:
            reason = f"The worker could not run the job: {error}"
        except RayError as error:
            stood = where_it_hung(job.checkpoint)
            if attempt < ATTEMPTS:
                self._waiting.appendleft((job, attempt + 1))
                return None
            reason = f"The worker was lost {attempt} times ({type(error).__name__}): {error}"
            if stood:
                reason = (
                    f"An epoch must end within {self._epoch_minutes:g} min, but {attempt} times it hung in:\n{stood}"
                )
        return answer(job, "failed", dict(job.values), Worker(node="lost", pid=0, device="lost"), error=reason)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._waiting.clear()
        if self._ray.is_initialized():
            for ref in self._running:
                self._ray.cancel(ref, force=True)
            if self._running:
                self._ray.wait(list(self._running), num_returns=len(self._running), timeout=5)
            if self._opened:
                self._ray.shutdown()
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _check_open(closed: bool) -> None:
    if closed:
        raise WorkersError("A pool must be open to take a job, but this one is closed.")


def _slots(resources: dict[str, float], need: dict[str, float]) -> int:
    """How many times `need` fits `resources`."""
    return min(int(resources.get(name, 0) / amount + 1e-9) for name, amount in need.items() if amount)


def _task(job: Job, gpu: bool, path: list[str], epoch_minutes: float) -> Result:
    """Runs in a Ray worker. The driver's `path` comes last, for training functions that lie there."""
    import ray

    sys.path += [entry for entry in path if entry not in sys.path and os.path.isdir(entry)]
    device = f"cuda:{_card(ray.get_gpu_ids(), os.environ.get('CUDA_VISIBLE_DEVICES'))}" if gpu else "cpu"
    with epochs_limited(60 * epoch_minutes, job.until, job.checkpoint):
        return run(job, node=ray.get_runtime_context().get_node_id(), device=device)


def _card(assigned: Sequence[int | str], visible: str | None) -> int:
    """Torch's number of the first GPU assigned, where `visible` is the node's own CUDA_VISIBLE_DEVICES."""
    return visible.split(",").index(str(assigned[0])) if visible else int(assigned[0])
