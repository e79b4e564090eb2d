"""Signals wait for a safe place, and are not lost on the way."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from nas.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_next_safe_place(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), number)
        reached = True  # not interrupted here
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            reached = False
    assert reached
    assert signal.getsignal(number) is before


def test_a_signal_at_a_safe_place_comes_at_once() -> None:
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt), interrupts.allowed():
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("must not get here")


def test_the_third_signal_ends_anything() -> None:
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_nothing_is_installed() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.allowed():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
