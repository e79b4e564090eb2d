"""Datasets by name: `load(source)` gives the `Resident` that a name or a file stands for.

A loader is a function and one line in `BY_NAME` or `BY_SUFFIX`.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from nas.digits import digits, digits_video
from nas.npz import npz
from nas.resident import SPLITS, Data, DataError, Resident, Split, mix

__all__ = ["BY_NAME", "BY_SUFFIX", "SPLITS", "Data", "DataError", "Resident", "Split", "load", "mix"]

BY_NAME: dict[str, Callable[[int], Resident]] = {"digits": digits, "digits-video": digits_video}
BY_SUFFIX: dict[str, Callable[[Path, int], Resident]] = {".npz": npz}


def load(source: str, *, seed: int = 0) -> Resident:
    """The dataset `source`: a name, or the path of an .npz file. `seed` (>= 0) draws the split and fixed placements.

    Raises `DataError` for an unknown name or a file that breaks a rule of its loader.
    """
    suffix = Path(source).suffix.lower()
    if source in BY_NAME:
        return BY_NAME[source](seed)
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix](Path(source), seed)
    close = get_close_matches(source, BY_NAME, 1)
    raise DataError(
        f"`data` must be one of {', '.join(BY_NAME)} or the path of a file ending in {', '.join(BY_SUFFIX)}, "
        f"but got {source!r}{f'; did you mean {close[0]!r}?' if close else '.'}"
    )
