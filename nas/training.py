"""How a network is trained: the settings of a sweep's training, checked. No torch: a sweep is read without it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

MOST = 10**9  # epochs; what is more is a slip, and may not fit a float
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


class TrainingError(ValueError):
    """A training that cannot start: a setting, a network that does not fit the data, another run's checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a network is trained. Lengths are epochs; `learning_rate` is the peak."""

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 0.01
    weight_decay: float = 0.05
    warmup_epochs: float = 0.5
    label_smoothing: float = 0.1
    precision: Precision = "32-true"

    def __post_init__(self) -> None:
        _rule(
            "epochs", f"a whole number in 1..{MOST}", self.epochs, type(self.epochs) is int and 1 <= self.epochs <= MOST
        )
        _rule(
            "batch_size", "a whole number >= 2", self.batch_size, type(self.batch_size) is int and self.batch_size > 1
        )
        rate = self.learning_rate
        _rule("learning_rate", "a finite number > 0", rate, _number(rate) and rate > 0)
        _rule("weight_decay", "a finite number >= 0", self.weight_decay, _number(self.weight_decay, 0))
        _rule("label_smoothing", "in [0, 1)", self.label_smoothing, _number(self.label_smoothing, 0, 1, below=True))
        warmup = self.warmup_epochs
        _rule("warmup_epochs", f"in [0, epochs={self.epochs})", warmup, _number(warmup, 0, self.epochs, below=True))
        _rule(
            "precision",
            f"one of {', '.join(get_args(Precision))}",
            self.precision,
            self.precision in get_args(Precision),
        )


def _rule(name: str, rule: str, value: object, holds: bool) -> None:
    if not holds:
        raise TrainingError(f"`{name}` must be {rule}, but got {value!r}.")


def _number(value: object, low: float = -math.inf, high: float = math.inf, *, below: bool = False) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return low <= value < high if below else low <= value <= high
