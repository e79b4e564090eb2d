"""Measured latency: order, side effects, and being alone."""

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from nas.latency import LatencyError, alone, latency_ms, one_thread
from searchspace.architecture import Activation, AdaptivePool, Architecture, Chain, Conv, Flatten, Linear, Norm
from searchspace.network import build


def architecture(width: int, space: tuple[int, ...] = (32, 32)) -> Architecture:
    body = Chain((Conv(width, 3), Norm(), Activation(), Conv(width, 3), AdaptivePool(), Flatten(), Linear(10)))
    return Architecture((1, *space), body)


def test_a_network_of_a_hundred_times_the_work_takes_longer() -> None:
    small, large = (latency_ms(build(architecture(width), 0), repeats=15) for width in (8, 96))
    assert 0 < 2 * small < large


@pytest.mark.parametrize("space", [(12, 12), (4, 12, 12)])
def test_measuring_changes_neither_weights_nor_mode_nor_threads(space: tuple[int, ...]) -> None:
    network = build(architecture(4, space), 0).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    threads = torch.get_num_threads()
    latency_ms(network, repeats=3)
    assert network.training
    assert torch.get_num_threads() == threads
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_time_limit_ends_a_measurement_with_a_number() -> None:
    start = time.monotonic()
    assert latency_ms(build(architecture(8), 0), repeats=10**6, limit_s=0.2) > 0
    assert latency_ms(build(architecture(8), 0), repeats=10**6, limit_s=0.0) > 0
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"repeats": 0}])
def test_nothing_to_measure_is_an_error(wrong: dict[str, int]) -> None:
    with pytest.raises(LatencyError, match="must be at least 1, but got"):
        latency_ms(build(architecture(4), 0), **wrong)  # type: ignore[arg-type]


def test_one_thread_inside_as_before_outside() -> None:
    before = torch.get_num_threads()
    inside = []

    def fail() -> None:
        with one_thread():
            inside.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [1]
    assert torch.get_num_threads() == before


def hold(path: Path, held: Event) -> None:
    with alone(path):
        held.set()
        time.sleep(30)


def test_two_processes_are_never_alone_at_once_and_a_dead_one_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    held = context.Event()
    other = context.Process(target=hold, args=(path, held))
    other.start()
    try:
        assert held.wait(10)
        message = r"must end within 0\.2 s, but .*lock is still held"
        with pytest.raises(LatencyError, match=message), alone(path, wait_s=0.2):
            pass
    finally:
        other.kill()
        other.join()
    with alone(path, wait_s=5):
        pass
