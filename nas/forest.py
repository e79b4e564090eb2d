"""A forest of extremely randomised trees [trees]: a mean, and the trees' disagreement as its doubt.

Sources: [trees] Geurts, Ernst, Wehenkel, "Extremely randomized trees", Machine Learning 63, 2006, through scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TREES = 50
LEAF = 3  # rows in a leaf, at least; with 3 the doubt is about as large as the error
LEAVES = 1_000  # in a tree, about, at most: of many rows a leaf holds more, which bounds what a fit takes
SHARE = 1 / 3  # of the columns that each split looks at; all of them did worse below a hundred rows


class Forest:
    """The same seed and lessons, in the same order, are the same forest. Before the first fit: mean 0, doubt 1."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rows: list[np.ndarray] = []
        self._targets: list[float] = []
        self._trees: list[object] = []

    def __len__(self) -> int:
        """How many lessons there are."""
        return len(self._rows)

    def teach(self, row: np.ndarray, target: float) -> None:
        """One more lesson, for the next fit; `row` is float32 of shape (columns,)."""
        self._rows.append(row)
        self._targets.append(target)

    def fit(self) -> None:
        if not self._rows:
            return
        from sklearn.tree import ExtraTreeRegressor  # here: it takes a second to import

        rows, targets = np.stack(self._rows), np.array(self._targets)
        leaf = max(LEAF, len(rows) // LEAVES)
        trees = [
            ExtraTreeRegressor(min_samples_leaf=leaf, max_features=SHARE, random_state=self._seed + number)
            for number in range(TREES)  # scikit-learn's own forest takes half as long again on a hundred rows
        ]
        self._trees = [tree.fit(rows, targets, check_input=False).tree_ for tree in trees]

    def predict(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(mean, doubt) for each of `rows`, both of shape (rows,)."""
        if not self._trees or not rows:
            return np.zeros(len(rows)), np.ones(len(rows))
        table = np.stack(rows)
        answers = np.stack([tree.predict(table)[:, 0] for tree in self._trees])  # type: ignore[attr-defined]
        return answers.mean(axis=0), answers.std(axis=0)
