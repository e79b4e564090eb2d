"""By how much points would raise a front's hypervolume, on the scale that nas/pareto.py measures it on.

Points are *losses*: of shape (points, objectives), each column falls as the objective gets better and is 0 at the
reference. Accuracy is its negative, a cost the decades it lies above the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import moocore
import numpy as np

from nas.pareto import DEPTH, Objective


def losses(values: np.ndarray, objectives: Sequence[Objective], reference: Mapping[str, float]) -> np.ndarray:
    """`values` (points, objectives) in the objectives' own units, as losses from `reference`."""
    columns = [
        reference[o.name] - column if o.maximize else np.log10(np.maximum(column / reference[o.name], DEPTH))
        for o, column in zip(objectives, values.T, strict=True)
    ]
    return np.column_stack(columns) if len(values) else np.zeros((0, len(objectives)))


def nondominated(points: np.ndarray) -> np.ndarray:
    """Which of the losses no other dominates, shape (points,); of equal ones one stays."""
    return moocore.is_nondominated(points) if len(points) else np.zeros(0, dtype=bool)


def gains(front: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The volume that each of `points` by itself adds to `front`, shape (points,); 0 for one that is dominated.

    A point's box up to the reference, less what the front covers of it.
    """
    found, origin = np.zeros(len(points)), np.zeros(points.shape[1])
    inside = (points < 0).all(axis=1)
    beaten = np.any((front[None] <= points[:, None]).all(axis=2), axis=1)
    for i in np.flatnonzero(inside & ~beaten):
        covered = moocore.hypervolume(np.maximum(front, points[i]), ref=origin) if len(front) else 0.0
        found[i] = max(0.0, float(np.prod(-points[i])) - covered)
    return found
