"""Datasets in .npz files, and all that such a file may not be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nas.resident import SPLITS, DataError, Resident, resident, stratified

MOST_CLASSES = 10**6  # what is larger is a slip, and would not fit a classifier


def npz(path: Path, seed: int = 0) -> Resident:
    """An .npz file, read without pickle.

    It holds `images` (n, h, w), (n, channels, h, w) or (n, channels, frames, h, w), of uint8 or float, and `labels`
    (n,) or (n, 1), whole numbers 0..classes-1. Optional: `split` (n,) of "train", "val", "test" or 0, 1, 2, else it is
    split 60/20/20 by class with `seed`; `classes`, where some class has no image. Instead of one pair of arrays it may
    hold a pair for each split: train_images, train_labels, val_images and so on.
    """
    try:
        with path.open("rb") as raw:  # numpy leaves a cut file open
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError(f"it is one array of shape {file.shape} (.npy)")
            with file:
                arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path}: there must be an .npz file here, but there is none.") from None
    except Exception as error:  # numpy raises many kinds: OSError, BadZipFile, EOFError, ValueError for objects
        raise DataError(
            f"{path}: must be an .npz file of plain arrays, but {error}. Write it with numpy.savez and no objects."
        ) from None
    try:
        images, labels, parts = _arrays(arrays)
        images, labels = _checked(images, labels)
        classes = _classes(labels, arrays.get("classes"))
        parts = stratified(labels, seed) if parts is None else _parts(parts, len(labels))
        return resident(path.stem, images, labels, parts, classes, seed, None)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _arrays(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(images, labels, split or None) of either layout."""
    if "images" in arrays and "labels" in arrays:
        return arrays["images"], arrays["labels"], arrays.get("split")
    pairs = [(f"{split}_images", f"{split}_labels") for split in SPLITS]
    if not all(name in arrays for pair in pairs for name in pair):
        raise DataError(
            f"The arrays must be `images` and `labels`, or such a pair for each of {', '.join(SPLITS)} "
            f"(train_images, ...), but got {', '.join(sorted(arrays)) or 'none'}."
        )
    for images, labels in pairs:
        if arrays[images].shape[1:] != arrays["train_images"].shape[1:]:
            raise DataError(f"`{images}` must have the shape of `train_images`, but got {arrays[images].shape[1:]}.")
        _equally_long(images, arrays[images], labels, arrays[labels])
    split = np.repeat(np.arange(3), [len(arrays[labels]) for _, labels in pairs])
    return (
        np.concatenate([arrays[images] for images, _ in pairs]),
        np.concatenate([arrays[labels] for _, labels in pairs]),
        split,
    )


def _equally_long(a: str, first: np.ndarray, b: str, second: np.ndarray) -> None:
    if first.shape[:1] != second.shape[:1]:
        raise DataError(f"`{a}` and `{b}` must be equally long, but got shapes {first.shape} and {second.shape}.")


def _checked(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images as (n, channels, *space) uint8 or float32 and labels as (n,) int64."""
    _equally_long("images", images, "labels", labels)
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim not in (4, 5) or 0 in images.shape:
        raise DataError(
            "`images` must be (n, h, w), (n, channels, h, w) or (n, channels, frames, h, w), none of them 0, "
            f"but got shape {images.shape}."
        )
    if images.shape[-1] in (1, 3, 4) and images.shape[1] not in (1, 2, 3, 4):
        raise DataError(
            f"`images` must have channels second, but got shape {images.shape}, which looks like channels last. "
            "Move them with numpy.moveaxis(images, -1, 1)."
        )
    if images.dtype != np.uint8:
        if images.dtype.kind not in "fiub":
            raise DataError(f"`images` must be uint8 or float, but got {images.dtype}.")
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused below
            images = images.astype(np.float32)
        bad = int((~np.isfinite(images)).sum())
        if bad:
            raise DataError(f"`images` must be finite, but got {bad} values that are NaN or infinite.")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"`labels` must be whole numbers of shape (n,), but got {labels.dtype} of shape {labels.shape}."
        )
    return images, labels.astype(np.int64)


def _classes(labels: np.ndarray, stated: np.ndarray | None) -> int:
    if stated is not None and (stated.size != 1 or stated.dtype.kind not in "iu"):
        raise DataError(f"`classes` must be one whole number, but got {stated.dtype} of shape {stated.shape}.")
    classes = int(stated.item()) if stated is not None else int(labels.max()) + 1
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(f"`labels` must be in 0..{max(classes, 1) - 1} (classes - 1), but got {low}..{high}.")
    if classes > MOST_CLASSES:
        raise DataError(f"There must be at most {MOST_CLASSES} classes, but got {classes} (labels {low}..{high}).")
    found = np.unique(labels)
    if len(found) < 2:
        raise DataError(f"`labels` must name at least two classes, but all {len(labels)} are {low}.")
    if stated is None and len(found) < classes:
        missing = sorted(set(range(classes)) - set(found.tolist()))[:5]
        raise DataError(
            f"`labels` must use every class in 0..{high}, but got none of {missing}. "
            "Number the classes from 0, or add an array `classes` with their number."
        )
    return classes


def _parts(split: np.ndarray, n: int) -> np.ndarray:
    """A split given by name or number as (n,) of 0, 1, 2."""
    numbers: dict[str, int] = {}
    for i, name in enumerate(SPLITS):
        numbers[name] = numbers[str(i)] = i
    names = [str(v) for v in split.tolist()] if split.ndim == 1 else []
    if len(names) != n or not set(names) <= set(numbers):
        raise DataError(
            f"`split` must hold {n} of train, val, test (or 0, 1, 2), but got shape {split.shape} "
            f"with {', '.join(sorted(set(names))[:5]) or 'no names'}."
        )
    return np.array([numbers[name] for name in names])
