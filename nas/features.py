"""What a forest sees of a network: its choices and its costs as numbers, and epochs as shares of a whole training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from searchspace.architecture import Architecture
from searchspace.codes import Code, Codes
from searchspace.cost import COUNTS

IDLE = -1.0  # the value of a choice that does nothing


class Features:
    """The rows of networks of `space` that are trained for `epochs`; `extra` is one more feature of an architecture.

    A choice among numbers is one column, the index of its value as declared; one among words or values per axis is a
    column a value, 0 or 1. Costs are log10, 0 for a cost of 0.
    """

    def __init__(self, space: Codes, epochs: int, extra: Callable[[Architecture], float] | None = None) -> None:
        self.space, self.epochs, self.extra = space, epochs, extra
        self._places: dict[str, dict[object, tuple[float, ...]]] = {}
        for name, values in space.choices.items():
            numbers = all(isinstance(value, int | float) for value in values)
            whole = [(float(i),) for i in range(len(values))] if numbers else np.eye(len(values)).tolist()
            self._places[name] = {value: tuple(row) for value, row in zip(values, whole, strict=True)}

    def network(self, code: Code, costs: Mapping[str, float], architecture: Architecture | None = None) -> np.ndarray:
        """The columns of a network, shape (columns,). Its architecture, for `extra`, is made where it is not given."""
        active = set(self.space.active(code))
        row: list[float] = []
        for name, places in self._places.items():
            place = places[code[name]]
            row += place if name in active else [IDLE] * len(place)
        row += [math.log10(costs[name]) if costs.get(name) else 0.0 for name in COUNTS]
        if self.extra is not None:
            row.append(self.extra(architecture or self.space.decode(code)))
        return np.array(row, dtype=np.float32)

    def reach(self, network: np.ndarray, epoch: int) -> np.ndarray:
        """The row that asks for the accuracy of a network at `epoch`."""
        return self._joined(network, epoch / self.epochs)

    def rise(self, network: np.ndarray, before: tuple[int, float], epoch: int) -> np.ndarray:
        """The row that asks what is gained until `epoch` on a known (epoch, accuracy) before it."""
        return self._joined(network, epoch / self.epochs, before[0] / self.epochs, before[1])

    def _joined(self, network: np.ndarray, *more: float) -> np.ndarray:
        return np.concatenate([network, np.array(more, dtype=np.float32)])
