"""A rung job: train one architecture from a checkpoint to a checkpoint, on one thread of one worker.

Any worker can run a job again, so its paths must mean the same on every node. `run` turns whatever happens in a job
into a `Result`.
"""

from __future__ import annotations

import importlib
import math
import os
import socket
import sys
import time
import traceback
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import cast

import torch

from nas.data import Resident
from nas.data import load as load_data
from nas.latency import latency_ms, one_thread
from nas.results import Epoch, Result, Worker
from nas.train import Train, Trained, TrainingFailed, evaluate, out_of_memory
from nas.training import Training
from searchspace.checkpoint import CheckpointError, load, save
from searchspace.network import Network, build
from searchspace.notation import from_json


class WorkersError(RuntimeError):
    """No workers: nobody answers at an address, nothing fits a trial, a closed pool, a function not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One rung job: train an architecture from where `checkpoint` left it to epoch `until`.

    `architecture` is its JSON, `values` the costs already known; `trial` to `parent` go into the result as they are.
    Latency is measured where `measure_latency` or `latency_limit_ms` asks for it. Once fully trained, the network is
    written to `checkpoint` + ".safetensors", which is then the result's checkpoint. `train` names a function like
    `nas.train.train` as "package.module:function". `evaluate_test` adds values["test_accuracy"]. Where the training has
    not begun, it starts from what fits of the network in the file `inherit`; where that is gone, from nothing, and the
    result has no parent.
    """

    trial: int
    kind: str = "trial"
    name: str = ""
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
    inherit: str | None = None


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
        return answer(job, state, values, worker, curve=curve, seconds=seconds, error=error)

    try:
        with one_thread():
            network = build(from_json(job.architecture), job.seed)
            if job.measure_latency or job.latency_limit_ms is not None:
                values["latency_ms"] = latency_ms(network, device=device)
                if job.latency_limit_ms is not None and values["latency_ms"] > job.latency_limit_ms:
                    return result("stopped")
            data = _data(job.data, job.data_seed, device)
            checkpoint = Path(job.checkpoint) if job.checkpoint else None
            note = None
            if job.inherit and not (checkpoint and checkpoint.exists()):
                note = _inherit(network, Path(job.inherit))
                job = job if note is None else replace(job, parent=None)
            trained = resolve(job.train)(
                network, data, job.training, seed=job.seed, until=job.until, checkpoint=checkpoint, device=device
            )
            if not isinstance(trained, Trained) or not trained.curve:
                raise WorkersError(f"{job.train} must return a nas.train.Trained with a curve, but got {trained!r}.")
            last = trained.curve[-1]
            if last.epoch < job.until or not math.isfinite(last.val_accuracy):
                raise WorkersError(
                    f"{job.train} must reach epoch {job.until} with a finite accuracy, but ended at epoch {last.epoch} "
                    f"with {last.val_accuracy}."
                )
            values["accuracy"] = last.val_accuracy
            if job.evaluate_test:
                _, values["test_accuracy"] = evaluate(network, data, "test", device=device)
            done = replace(result("complete", trained.curve), note=trained.note or note)
            if done.final and checkpoint is not None:
                network_file = checkpoint.with_name(f"{checkpoint.name}.safetensors")
                save(network_file, network)
                done = replace(done, checkpoint=str(network_file))
            return done
    except TrainingFailed as error:
        return result("failed", error.curve, str(error))
    except (Exception, SystemExit) as error:  # user code and torch may raise anything; the sweep goes on
        summary = f"Out of memory: {error}" if out_of_memory(error) else f"{type(error).__name__}: {error}"
        return result("failed", error=f"{summary}\n\n{traceback.format_exc()}")
    finally:
        if device.startswith("cuda"):
            torch.cuda.empty_cache()  # other trials share the card


def _inherit(network: Network, file: Path) -> str | None:
    """Take over every tensor of the network in `file` that has the same name and shape here; why not, if not.

    A parent that left the front has no file any more.
    """
    try:
        mine, theirs = network.state_dict(), load(file).state_dict()
    except CheckpointError as error:
        return f"It inherits nothing: {error}"
    fits = {name: theirs[name] for name, own in mine.items() if name in theirs and theirs[name].shape == own.shape}
    network.load_state_dict(mine | fits)
    return None


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
    return load_data(source, seed=seed).to(device)


def _device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def answer(
    job: Job,
    state: str,
    values: dict[str, float],
    worker: Worker,
    *,
    curve: tuple[Epoch, ...] = (),
    seconds: float = 0.0,
    error: str | None = None,
) -> Result:
    """The result of `job`."""
    epoch = curve[-1].epoch if curve else 0
    return Result(
        trial=job.trial,
        kind=job.kind,
        name=job.name,
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
