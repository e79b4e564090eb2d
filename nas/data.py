"""Datasets: what a network is trained on, resident as tensors and batched on the device.

`load(source)` gives a `Data`. It knows `digits` (scikit-learn's 1,797 real digits of 8x8, each at a random place of a
16x16 canvas, a fresh place every epoch) and `.npz` files; another loader is a function and one line in `BY_NAME` or
`BY_SUFFIX`. Images stay as they were stored (uint8 or float32) until a batch is made; then they become float32,
normalised by mean and standard deviation of each channel over the training split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Protocol, Self, get_args

import numpy as np
import torch
from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES = (0.6, 0.2, 0.2)
LEAST_PER_CLASS = 5  # the fewest images of which 20% is one

Batch = tuple[Tensor, Tensor]
Augment = Callable[[Tensor, torch.Generator], Tensor]


class DataError(ValueError):
    """A dataset that cannot be used; the message says the rule, what was got and what to do."""


class Data(Protocol):
    """What training needs of a dataset. Batches are (images (batch, channels, *space) float32, labels (batch,) int64).

    `input` is (channels, *space), `sizes` the images of each split, `fingerprint` the SHA-256 of images, labels
    and split.
    """

    @property
    def name(self) -> str: ...
    @property
    def input(self) -> tuple[int, ...]: ...
    @property
    def classes(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def sizes(self) -> Mapping[Split, int]: ...

    def to(self, device: torch.device | str) -> Self:
        """The same data on `device`."""

    def steps(self, batch_size: int) -> int:
        """Training batches in an epoch."""

    def epoch(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
        """The training split, shuffled and augmented: a function of (seed, epoch), the same on every device."""

    def batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """A split in its fixed order, the same images every time."""


def mix(*numbers: int) -> int:
    """One seed (63 bits) of several whole numbers >= 0."""
    return int(np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A dataset that fits in the device's memory.

    `images[split]` is raw (images, channels, *space); `augment` makes what the network sees of the raw training
    images, with offsets drawn from a CPU generator. `mean` and `deviation` are (channels, 1, ...), in raw units.
    """

    name: str
    input: tuple[int, ...]
    classes: int
    fingerprint: str
    seed: int
    images: Mapping[Split, Tensor]
    labels: Mapping[Split, Tensor]
    mean: Tensor
    deviation: Tensor
    augment: Augment | None = None

    @property
    def sizes(self) -> Mapping[Split, int]:
        return {split: len(labels) for split, labels in self.labels.items()}

    def to(self, device: torch.device | str) -> Self:
        return replace(
            self,
            images={split: x.to(device) for split, x in self.images.items()},
            labels={split: y.to(device) for split, y in self.labels.items()},
            mean=self.mean.to(device),
            deviation=self.deviation.to(device),
        )

    def steps(self, batch_size: int) -> int:
        """As few batches as hold the split, all of nearly one size: a last batch of one would break BatchNorm."""
        n = self.sizes["train"]
        return min(-(-n // batch_size), n // 2)

    def epoch(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(mix(seed, epoch))
        images, labels = self.images["train"], self.labels["train"]
        order = torch.randperm(len(labels), generator=generator)
        for chosen in order.tensor_split(self.steps(batch_size)):
            index = chosen.to(labels.device)
            x = images[index]
            yield self._seen(self.augment(x, generator) if self.augment else x), labels[index]

    def batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        if split not in SPLITS:
            raise DataError(f"`split` must be one of {', '.join(SPLITS)}, but got {split!r}.")
        images, labels = self.images[split], self.labels[split]
        if self.augment and split == "train":
            images = self.augment(images, torch.Generator().manual_seed(mix(self.seed)))
        for at in range(0, len(labels), batch_size):
            yield self._seen(images[at : at + batch_size]), labels[at : at + batch_size]

    def _seen(self, raw: Tensor) -> Tensor:
        """Raw images as a network sees them: float32, normalised, 2D images channels last."""
        x = (raw.float() - self.mean) / self.deviation
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def load(source: str, *, seed: int = 0) -> Resident:
    """The dataset `source`: "digits" or the path of an .npz file. `seed` (>= 0) draws the split and fixed placements.

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


def digits(seed: int = 0) -> Resident:
    """Digits anywhere: 8x8 images of 0-16 in a 16x16 canvas of zeros; validation and test places are fixed by seed."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    return _resident("digits", images, labels, stratified(labels, seed), 10, seed, place)


def place(images: Tensor, generator: torch.Generator, size: int = 16) -> Tensor:
    """Each of `images` (n, channels, h, w) at its own random place of a (size, size) canvas of zeros."""
    n, channels, height, width = images.shape
    top = torch.randint(size - height + 1, (n, 1), generator=generator)
    left = torch.randint(size - width + 1, (n, 1), generator=generator)
    rows, columns = (top + torch.arange(height)).to(images.device), (left + torch.arange(width)).to(images.device)
    canvas = images.new_zeros(n, size, size, channels)
    canvas[torch.arange(n, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]] = (
        images.permute(0, 2, 3, 1)
    )
    return canvas.permute(0, 3, 1, 2)


def npz(path: Path, seed: int = 0) -> Resident:
    """An .npz file, read without pickle.

    It holds `images` (n, h, w), (n, channels, h, w) or (n, channels, frames, h, w), of uint8 or float, and `labels`
    (n,) or (n, 1), whole numbers 0..classes-1. Optional: `split` (n,) of "train", "val", "test" or 0, 1, 2, else it is
    split 60/20/20 by class with `seed`; `classes`, where some class has no image. Instead of one pair of arrays it may
    hold a pair for each split: train_images, train_labels, val_images and so on.
    """
    if not path.is_file():
        raise DataError(f"{path}: there must be an .npz file here, but there is none.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # numpy raises many kinds: BadZipFile, EOFError, ValueError for pickled objects
        raise DataError(
            f"{path}: must be an .npz file of plain arrays, but {error}. Write it with numpy.savez and no objects."
        ) from None
    try:
        images, labels, parts = _arrays(arrays)
        images, labels = _checked(images, labels)
        classes = _classes(labels, arrays.get("classes"))
        parts = stratified(labels, seed) if parts is None else _parts(parts, len(labels))
        return _resident(path.stem, images, labels, parts, classes, seed, None)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


BY_NAME: dict[str, Callable[[int], Resident]] = {"digits": digits}
BY_SUFFIX: dict[str, Callable[[Path, int], Resident]] = {".npz": npz}


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


def stratified(labels: np.ndarray, seed: int) -> np.ndarray:
    """(n,) of 0 (train), 1 (val), 2 (test): 60/20/20 within each class."""
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < LEAST_PER_CLASS:
        raise DataError(
            f"A 60/20/20 split needs at least {LEAST_PER_CLASS} images of each class, but class "
            f"{classes[counts.argmin()]} has {counts.min()}. Add images, or give a `split`."
        )
    everything = np.arange(len(labels))
    rest, test = train_test_split(everything, test_size=SHARES[2], random_state=seed, stratify=labels)
    share = SHARES[1] / (SHARES[0] + SHARES[1])
    _, val = train_test_split(rest, test_size=share, random_state=seed, stratify=labels[rest])
    parts = np.zeros(len(labels), dtype=np.int64)
    parts[val], parts[test] = 1, 2
    return parts


def _resident(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    parts: np.ndarray,
    classes: int,
    seed: int,
    augment: Augment | None,
) -> Resident:
    sizes = np.bincount(parts, minlength=3)
    if sizes[0] < 2 or sizes.min() < 1:
        raise DataError(
            f"There must be at least 2 images to train on, 1 to validate and 1 to test, but got {sizes.tolist()}."
        )
    raw = {split: torch.from_numpy(images[parts == i]) for i, split in enumerate(SPLITS)}
    generator = torch.Generator().manual_seed(mix(seed, 0x5EED))
    seen = {split: augment(x, generator) if augment else x for split, x in raw.items()}
    mean, deviation = _moments(seen["train"])
    return Resident(
        name=name,
        input=tuple(seen["train"].shape[1:]),
        classes=classes,
        fingerprint=_fingerprint(images, labels, parts),
        seed=seed,
        images={"train": raw["train"], "val": seen["val"], "test": seen["test"]},
        labels={split: torch.from_numpy(labels[parts == i]) for i, split in enumerate(SPLITS)},
        mean=mean,
        deviation=deviation,
        augment=augment,
    )


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1 where it is 0) of each channel, as (channels, 1, ...), summed in float64."""
    over = [0, *range(2, images.ndim)]
    count = images.numel() / images.shape[1]
    zero = torch.zeros(images.shape[1], dtype=torch.float64)
    chunks = [images[at : at + 1024] for at in range(0, len(images), 1024)]
    mean = sum((c.double().sum(over) for c in chunks), zero) / count
    shape = (-1, *(1,) * (images.ndim - 2))
    centred = mean.reshape(shape)
    deviation = (sum(((c.double() - centred).square().sum(over) for c in chunks), zero) / count).sqrt()
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return mean.float().reshape(shape), deviation.float().reshape(shape)


def _fingerprint(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
