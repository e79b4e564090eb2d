"""A dataset resident on the device: what training needs of data, as tensors split in three and batched in place.

Images stay as they were stored (uint8 or float32) until a batch is made; then they become float32, normalised by
mean and standard deviation of each channel over the training split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self, get_args

import numpy as np
import torch
from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES = (0.6, 0.2, 0.2)
LEAST_PER_CLASS = 5  # the fewest images of which 20% is one

Batch = tuple[Tensor, Tensor]
Augment = Callable[[Tensor, Tensor, torch.Generator], Tensor]


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
    """One seed (63 bits) of several whole numbers of at most 63 bits and a sign."""
    whole = [number % 2**64 for number in (len(numbers), *numbers)]
    return int(np.random.SeedSequence(whole).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A dataset that fits in the device's memory.

    `images[split]` is raw (images, channels, *space); `augment` makes what the network sees of the raw training
    images and their labels, with offsets drawn from a CPU generator. `mean` and `deviation` are (channels, 1, ...), in
    raw units.
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
            x, y = images[index], labels[index]
            yield self._seen(self.augment(x, y, generator) if self.augment else x), y

    def batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        if split not in SPLITS:
            raise DataError(f"`split` must be one of {', '.join(SPLITS)}, but got {split!r}.")
        images, labels = self.images[split], self.labels[split]
        if self.augment and split == "train":
            images = self.augment(images, labels, torch.Generator().manual_seed(mix(self.seed)))
        for at in range(0, len(labels), batch_size):
            yield self._seen(images[at : at + batch_size]), labels[at : at + batch_size]

    def _seen(self, raw: Tensor) -> Tensor:
        """Raw images as a network sees them: float32, normalised, 2D images channels last."""
        x = (raw.float() - self.mean) / self.deviation
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


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


def resident(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    parts: np.ndarray,
    classes: int,
    seed: int,
    augment: Augment | None,
) -> Resident:
    """Images (n, channels, *space) of `parts` (n,) 0 (train), 1 (val), 2 (test); `augment` places val and test once."""
    sizes = np.bincount(parts, minlength=3)
    if sizes[0] < 2 or sizes.min() < 1:
        raise DataError(
            f"There must be at least 2 images to train on, 1 to validate and 1 to test, but got {sizes.tolist()}."
        )
    raw = {split: torch.from_numpy(images[parts == i]) for i, split in enumerate(SPLITS)}
    named = {split: torch.from_numpy(labels[parts == i]) for i, split in enumerate(SPLITS)}
    generator = torch.Generator().manual_seed(mix(seed, 0x5EED))
    seen = {split: augment(x, named[split], generator) if augment else x for split, x in raw.items()}
    mean, deviation = _moments(seen["train"])
    return Resident(
        name=name,
        input=tuple(seen["train"].shape[1:]),
        classes=classes,
        fingerprint=_fingerprint(images, labels, parts),
        seed=seed,
        images={"train": raw["train"], "val": seen["val"], "test": seen["test"]},
        labels=named,
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
