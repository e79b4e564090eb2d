"""Measured latency: how long one forward pass takes, on this machine, now.

The number is the median wall time of single forward passes of the network as built (evaluation mode, float32, 2D
images channels last, one thread) after a warm-up. A lock file keeps any two measurements by one user on one node apart,
so they never time each other; trainings on other cores or on a shared GPU still run, and their load is part of
the number. Compare latencies of one machine only.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from searchspace.network import Network

WARM_UP = 5
LOCK_WAIT_S = 300.0


class LatencyError(RuntimeError):
    """A measurement that could not be made."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside; as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def alone(path: Path | None = None, *, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Held by one process of this user on this node at a time; the kernel lets go when its holder dies.

    Raises `LatencyError` after `wait_s` seconds of waiting.
    """
    path = path or Path(tempfile.gettempdir()) / f"nas-latency-{os.getuid()}.lock"
    deadline = time.monotonic() + wait_s
    with open(path, "a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LatencyError(
                        f"Another latency measurement must end within {wait_s:g} s, but {path} is still held."
                    ) from None
                time.sleep(0.01)
        yield


def latency_ms(
    network: Network, *, batch: int = 1, device: torch.device | str = "cpu", repeats: int = 50, limit_s: float = 10.0
) -> float:
    """Median milliseconds of a forward pass of `batch` random inputs, of at most `repeats` passes in `limit_s` seconds.

    The network is moved to `device` and left in the mode it was in. Raises `LatencyError` for `batch` or `repeats`
    below 1.
    """
    if batch < 1 or repeats < 1:
        raise LatencyError(f"`batch` and `repeats` must be at least 1, but got ({batch=}, {repeats=}).")
    device = torch.device(device)
    x = torch.randn(batch, *network.architecture.input, generator=torch.Generator().manual_seed(0)).to(device)
    network.to(device)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = network.training
    network.eval()
    try:
        with alone(), one_thread(), torch.inference_mode():
            return median(_passes(network, x, repeats, limit_s)) * 1e3
    finally:
        network.train(training)


def _passes(network: Network, x: torch.Tensor, repeats: int, limit_s: float) -> list[float]:
    """Seconds of each pass after the warm-up; at least one."""
    wait: Callable[[], None] = torch.cuda.synchronize if x.device.type == "cuda" else lambda: None
    deadline = time.perf_counter() + limit_s
    seconds: list[float] = []
    for _ in range(WARM_UP + repeats):
        start = time.perf_counter()
        network(x)
        wait()
        end = time.perf_counter()
        seconds.append(end - start)
        if end > deadline:
            break
    return seconds[WARM_UP:] or seconds[-1:]
