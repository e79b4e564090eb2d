"""Counts and durations as people write them: 300M, 60k, 5 ms; and how they are printed."""

from __future__ import annotations

import math
import re

_COUNT = re.compile(r"^\s*([0-9][0-9_,]*(?:\.[0-9]+)?(?:e\+?[0-9]+)?)\s*([kKMGBT]?)\s*$")
_SCALE = {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_TIME = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s)\s*$")
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def count(value: object) -> float:
    """A positive count: a number, or text such as 300M, 1.5G, 60k. Raises `ValueError`."""
    if type(value) in (int, float) and 0 < value < 1e300:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    match = _COUNT.match(value) if isinstance(value, str) else None
    if match is None or not 0 < (number := float(re.sub("[_,]", "", match[1])) * _SCALE[match[2]]) < math.inf:
        raise ValueError(f"must be a positive count such as 60k, 300M or 1.5G (got {value!r})")
    return number


def milliseconds(value: object) -> float:
    """A positive duration with its unit, such as 5 ms or 0.2 s, in milliseconds. Raises `ValueError`."""
    match = _TIME.match(value) if isinstance(value, str) else None
    if match is None or not 0 < (number := float(match[1]) * _MS[match[2]]) < math.inf:
        raise ValueError(f"must be a duration with its unit, such as 5 ms (got {value!r})")
    return number


def short(value: float) -> str:
    """A count in at most four characters and its unit: 1.23M, 60k, 512."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale * 0.9995:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds for people: 48 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
