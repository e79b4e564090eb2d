"""Counts and durations read as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.quantities import count, duration, milliseconds, short


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("300M", 300e6),
        ("1.5G", 1.5e9),
        ("60k", 60e3),
        ("60K", 60e3),
        ("2B", 2e9),
        ("1_000", 1000),
        ("1e+6", 1e6),
        ("1e6", 1e6),
        (12, 12),
        (2.5, 2.5),
    ],
)
def test_counts_are_read_with_their_unit(text: object, value: float) -> None:
    assert count(text) == value


@pytest.mark.parametrize("text", ["lots", "", "-3M", 0, -1, "0", True, None, float("nan"), float("inf"), [1], "5 ms"])
def test_what_is_no_positive_count_is_refused_with_the_value(text: object) -> None:
    with pytest.raises(ValueError, match="must be a positive count"):
        count(text)


@pytest.mark.parametrize(("text", "value"), [("5 ms", 5), ("5ms", 5), ("0.2 s", 200), ("750 us", 0.75)])
def test_durations_are_read_in_milliseconds(text: str, value: float) -> None:
    assert milliseconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", [5, "5", "ms", "0 ms", "5 min", None])
def test_a_duration_without_its_unit_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration with its unit"):
        milliseconds(text)


@given(st.floats(min_value=1, max_value=1e14))
def test_short_keeps_three_digits(value: float) -> None:
    assert count(short(value)) == pytest.approx(value, rel=6e-3)


def test_durations_for_people() -> None:
    assert [duration(s) for s in (48, 200, 7500)] == ["48 s", "3 min 20 s", "2 h 05 min"]
