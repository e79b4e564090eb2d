"""Workers: where a rung job runs. One protocol, `Pool`; jobs run in this process or as Ray tasks.

A job goes from a checkpoint to a checkpoint, so any worker can run it again: its paths must mean the same on
every node. `run` turns whatever happens in a job into a `Result`; a pool answers every job it took with exactly
one, unless it is closed first. A worker process or node that is lost has its job repeated once.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, Self, cast

import torch

from nas.data import Resident, load
from nas.latency import latency_ms, one_thread
from nas.results import Epoch, Result, Worker
from nas.train import Train, Trained, Training, TrainingFailed, evaluate, out_of_memory
from searchspace.checkpoint import save
from searchspace.network import build
from searchspace.notation import from_json

if TYPE_CHECKING:
    from ray import ObjectRef

ATTEMPTS = 2  # a job whose worker was lost runs once more
SHIPPED = ("nas", "searchspace")  # the packages a cluster's workers get from the driver
OBJECT_STORE_BYTES = 100_000_000  # nothing large goes through it; Ray would take a third of the memory


class WorkersError(RuntimeError):
    """No workers: nobody answers at an address, nothing fits a trial, a closed pool, a function not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One rung job: train an architecture from where `checkpoint` left it to epoch `until`.

    `architecture` is its JSON, `values` the costs already known; `trial` to `parent` go into the result as they are.
    Latency is measured where `measure_latency` or `latency_limit_ms` asks for it. Once fully trained, the network is
    written to `checkpoint` + ".safetensors", which is then the result's checkpoint. `train` names a function like
    `nas.train.train` as "package.module:function". `evaluate_test` adds values["test_accuracy"].
    """

    trial: int
    kind: str = "trial"
    architecture: dict[str, object]
    choices: dict[str, object] | None = None
    words: str = ""
    digest: str
    values: dict[str, float]
    data: str
    data_seed: int = 0
    training: Training
    seed: int
    until: int
    parent: int | None = None
    measure_latency: bool = False
    latency_limit_ms: float | None = None
    checkpoint: str | None = None
    train: str = "nas.train:train"
    evaluate_test: bool = False


class Pool(Protocol):
    """Takes jobs and gives results, in any order."""

    @property
    def capacity(self) -> int:
        """Jobs that can run at the same time, at least 1."""

    def submit(self, job: Job) -> None:
        """Take a job without waiting. Raises `WorkersError` once closed."""

    def finished(self, timeout_s: float) -> list[Result]:
        """Results not given before, waiting up to `timeout_s` for the first; empty if there is none."""

    def close(self) -> None:
        """Cancel what runs, and end what the pool began. A second call does nothing."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


def run(job: Job, *, node: str | None = None, device: str = "auto") -> Result:
    """Do a job on one thread, here. Never raises for what a training does: that is a result with state "failed".

    A latency over its limit ends the job untrained: state "stopped", epoch 0, no accuracy.
    """
    start = time.perf_counter()
    device = _device(device)
    worker = Worker(node=node or socket.gethostname(), pid=os.getpid(), device=device)
    values = dict(job.values)

    def result(state: str, curve: tuple[Epoch, ...] = (), error: str | None = None) -> Result:
        seconds = time.perf_counter() - start
        return _result(job, state, values, worker, curve=curve, seconds=seconds, error=error)

    try:
        with one_thread():
            network = build(from_json(job.architecture), job.seed)
            if job.measure_latency or job.latency_limit_ms is not None:
                values["latency_ms"] = latency_ms(network, device=device)
                if job.latency_limit_ms is not None and values["latency_ms"] > job.latency_limit_ms:
                    return result("stopped")
            data = _data(job.data, job.data_seed, device)
            checkpoint = Path(job.checkpoint) if job.checkpoint else None
            trained = resolve(job.train)(
                network, data, job.training, seed=job.seed, until=job.until, checkpoint=checkpoint, device=device
            )
            if not isinstance(trained, Trained) or not trained.curve:
                raise WorkersError(f"{job.train} must return a nas.train.Trained with a curve, but got {trained!r}.")
            values["accuracy"] = trained.curve[-1].val_accuracy
            if job.evaluate_test:
                _, values["test_accuracy"] = evaluate(network, data, "test", device=device)
            done = result("complete", trained.curve)
            if done.final and checkpoint is not None:
                network_file = checkpoint.with_name(f"{checkpoint.name}.safetensors")
                save(network_file, network)
                done = replace(done, checkpoint=str(network_file))
            return done
    except TrainingFailed as error:
        return result("failed", error.curve, str(error))
    except Exception as error:  # user code and torch may raise anything; the sweep goes on
        summary = f"Out of memory: {error}" if out_of_memory(error) else f"{type(error).__name__}: {error}"
        return result("failed", error=f"{summary}\n\n{traceback.format_exc()}")
    finally:
        if device.startswith("cuda"):
            torch.cuda.empty_cache()  # other trials share the card


def resolve(name: str) -> Train:
    """The function "package.module:function", found on `sys.path` or in the working directory.

    Raises `WorkersError` where it is not found. What the module itself raises on import passes through.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise WorkersError(f'`train` must be "package.module:function", but got {name!r}.')
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise WorkersError(
            f"`train` must name a module on the path, but there is no {error.name} ({name!r})."
        ) from None
    if not callable(function):
        raise WorkersError(f"`train` must name a function, but {module_name} has no function {attribute!r}.")
    return cast(Train, function)


@lru_cache(maxsize=2)
def _data(source: str, seed: int, device: str) -> Resident:
    """A dataset, kept on the device between the jobs of a process."""
    return load(source, seed=seed).to(device)


def _device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _result(
    job: Job,
    state: str,
    values: dict[str, float],
    worker: Worker,
    *,
    curve: tuple[Epoch, ...] = (),
    seconds: float = 0.0,
    error: str | None = None,
) -> Result:
    epoch = curve[-1].epoch if curve else 0
    return Result(
        trial=job.trial,
        kind=job.kind,
        digest=job.digest,
        architecture=job.architecture,
        choices=job.choices,
        words=job.words,
        epoch=epoch,
        final=state == "complete" and epoch >= job.training.epochs,
        state=state,  # type: ignore[arg-type]
        values=values,
        curve=curve,
        seconds=seconds,
        worker=worker,
        seed=job.seed,
        parent=job.parent,
        error=error,
        checkpoint=job.checkpoint if state == "complete" else None,
    )


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
    sees the demand, unless `max_concurrent` holds them back. Worker processes are kept, with the data they loaded.
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
        timeout_s: float = 10.0,
    ) -> None:
        if cpus_per_trial < 0 or gpus_per_trial < 0 or cpus_per_trial + gpus_per_trial == 0:
            raise WorkersError(f"A trial must use a CPU or a GPU, but got ({cpus_per_trial=}, {gpus_per_trial=}).")
        if max_concurrent is not None and max_concurrent < 1:
            raise WorkersError(f"`max_concurrent` must be at least 1, but got {max_concurrent}.")
        self._need = {"CPU": float(cpus_per_trial), "GPU": float(gpus_per_trial)}
        self._max_concurrent = max_concurrent
        self._waiting: deque[tuple[Job, int]] = deque()
        self._running: dict[ObjectRef, tuple[Job, int]] = {}
        self._closed = False
        self._ray = _quiet_ray()
        self._task = self._ray.remote(
            num_cpus=cpus_per_trial,
            num_gpus=gpus_per_trial,
            max_retries=0,  # repeated here: Ray repeats a task killed for memory without end
            max_calls=0,
            scheduling_strategy="SPREAD",
        )(_task)
        if address is not None:
            address = _reachable(address, timeout_s)
        self._opened = not self._ray.is_initialized()
        if self._opened:
            _open_session(self._ray, address, (*SHIPPED, *modules), gpus_per_trial > 0)
        elif address not in (None, self._ray.get_runtime_context().gcs_address):
            raise WorkersError(
                f"This process must leave its present Ray session before it joins {address}: ray.shutdown()."
            )
        if address is None and self._fitting() == 0:
            total = {name: self._ray.cluster_resources().get(name, 0) for name in self._need}
            self.close()
            raise WorkersError(f"A trial must fit this machine, but it needs {self._need} where there is {total}.")

    def _fitting(self) -> int:
        """Trials that fit the nodes there are now."""
        return sum(_slots(node["Resources"], self._need) for node in self._ray.nodes() if node["Alive"])

    @property
    def capacity(self) -> int:
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
            self._running[self._task.remote(job, self._need["GPU"] > 0, path)] = job, attempt

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
            if attempt < ATTEMPTS:
                self._waiting.appendleft((job, attempt + 1))
                return None
            reason = f"The worker was lost {attempt} times ({type(error).__name__}): {error}"
        return _result(job, "failed", dict(job.values), Worker(node="lost", pid=0, device="lost"), error=reason)

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


def _task(job: Job, gpu: bool, path: list[str]) -> Result:
    """Runs in a Ray worker. The driver's `path` comes last, for training functions that lie there."""
    import ray

    sys.path += [entry for entry in path if entry not in sys.path and os.path.isdir(entry)]
    device = f"cuda:{_card(ray.get_gpu_ids(), os.environ.get('CUDA_VISIBLE_DEVICES'))}" if gpu else "cpu"
    return run(job, node=ray.get_runtime_context().get_node_id(), device=device)


def _card(assigned: Sequence[int | str], visible: str | None) -> int:
    """Torch's number of the first GPU assigned, where `visible` is the node's own CUDA_VISIBLE_DEVICES."""
    return visible.split(",").index(str(assigned[0])) if visible else int(assigned[0])


def _quiet_ray() -> ModuleType:
    """Ray, imported with its notices off; tokens stay on."""
    for name in ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_USAGE_STATS_ENABLED"):
        os.environ.setdefault(name, "0")
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    return cast(ModuleType, ray)


def _open_session(ray: ModuleType, address: str | None, modules: Sequence[str], gpu: bool) -> None:
    # Ray would hide all cards but one from a process, for good: but a kept process gets another card with its next job.
    variables = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}} if gpu else {}
    start: Callable[..., object] = ray.init
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        start(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            runtime_env=variables or None,
            **quiet,
        )
        return
    try:
        start(address=address, runtime_env={**variables, "py_modules": [_location(m) for m in modules]}, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError, SystemExit) as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        raise WorkersError(f"Ray at {address} must take this driver, but {type(error).__name__}: {error}") from None


def _location(module: str) -> str:
    """The folder of a package, or the file of a module."""
    try:
        file = importlib.import_module(module).__file__
    except ModuleNotFoundError as error:
        raise WorkersError(f"A module that is shipped must be on the driver's path, but {error}.") from None
    if file is None:
        raise WorkersError(f"A package that is shipped must have an __init__.py, but {module} has none.")
    path = Path(file)
    return str(path.parent if path.name == "__init__.py" else path)


def _reachable(address: str, timeout_s: float) -> str:
    """`address` with "auto" resolved. Raises `WorkersError` unless a gRPC server answers there in time.

    Ray itself tries for 5 minutes and then ends the process (2.60, measured). A gRPC server answers the greeting of
    HTTP/2 at once; one that wants TLS closes the connection, which is an answer too.
    """
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        with contextlib.suppress(ConnectionError):
            address = canonicalize_bootstrap_address("auto") or address
        if address == "auto":
            raise WorkersError(
                "A Ray cluster must run on this machine for address 'auto', but none was found: `ray start`."
            )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise WorkersError(f"`address` must be auto, host:port or ray://host:port, but got {address!r}.")
    try:
        with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            with contextlib.suppress(ConnectionResetError):
                if connection.recv(5) == b"HTTP/":
                    raise WorkersError(
                        f"Ray must answer at {address}, but a web server does. The default port is 6379."
                    )
    except OSError as error:
        raise WorkersError(
            f"Ray must answer at {address} within {timeout_s:g} s, but {error}. Does the head node run (`ray status`)?"
        ) from None
    return address
