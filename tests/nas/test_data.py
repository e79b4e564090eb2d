"""Datasets: splits, placements, batches, and what an .npz file may not be."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nas.data import SPLITS, DataError, Resident, Split, load, mix
from nas.digits import place


@pytest.fixture(scope="module")
def digits() -> Resident:
    return load("digits", seed=0)


def images_and_labels(n: int = 40, classes: int = 2, shape: tuple[int, ...] = (6, 5)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (n, *shape), dtype=np.uint8),
        "labels": np.arange(n) % classes,
    }


def written(folder: Path, **arrays: np.ndarray) -> str:
    path = folder / "set.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def test_digits_are_split_60_20_20_by_class(digits: Resident) -> None:
    assert (digits.input, digits.classes) == ((1, 16, 16), 10)
    total = sum(digits.sizes.values())
    assert total == 1797
    for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        assert abs(digits.sizes[split] - share * total) < 2
        counts = torch.bincount(digits.labels[split], minlength=10) / share
        whole = sum(torch.bincount(y, minlength=10) for y in digits.labels.values())
        assert (counts - whole).abs().max() <= 1 / share + 1


def test_every_digit_lies_whole_somewhere_in_the_canvas() -> None:
    images = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(500, 1, 1, 1)
    canvas = place(images, torch.zeros(500), torch.Generator().manual_seed(0))
    assert canvas.shape == (500, 1, 16, 16)
    corners = []
    for image in canvas[:, 0]:
        rows, columns = image.nonzero(as_tuple=True)
        top, left = int(rows.min()), int(columns.min())
        assert torch.equal(image[top : top + 8, left : left + 8], images[0, 0])
        assert image.sum() == images[0, 0].sum()
        corners.append((top, left))
    assert {top for top, _ in corners} == {left for _, left in corners} == set(range(9))


def test_an_epoch_is_a_function_of_seed_and_epoch(digits: Resident) -> None:
    def epoch(seed: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        batches = list(digits.epoch(64, seed=seed, epoch=number))
        return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    torch.manual_seed(1)
    first = epoch(0, 1)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, epoch(0, 1), strict=True))
    for other in (epoch(0, 2), epoch(1, 1)):
        assert not torch.equal(first[0], other[0])
        assert torch.equal(first[1].sort().values, other[1].sort().values)


def test_placements_are_fresh_in_training_and_fixed_in_validation(digits: Resident) -> None:
    def ordered(epoch: int) -> torch.Tensor:
        """Training images of one epoch in an order that placement does not change."""
        x = torch.cat([x for x, _ in digits.epoch(64, seed=0, epoch=epoch)])
        return x[x.sum((1, 2, 3)).argsort(stable=True)]

    assert (ordered(1) != ordered(2)).any((1, 2, 3)).float().mean() > 0.9
    again = load("digits", seed=0)
    for split in ("train", "val", "test"):
        a, b = (torch.cat([x for x, _ in d.batches(split, n)]) for d, n in ((digits, 100), (again, 33)))
        assert torch.equal(a, b)
    assert not torch.equal(digits.images["val"], load("digits", seed=1).images["val"])


def test_training_images_have_mean_0_and_deviation_1(digits: Resident) -> None:
    x = torch.cat([x for x, _ in digits.epoch(64, seed=0, epoch=1)])
    assert x.dtype == torch.float32
    assert abs(x.mean()) < 1e-5
    assert abs(x.std() - 1) < 1e-3


def test_a_constant_channel_stays_finite(tmp_path: Path) -> None:
    arrays = images_and_labels(shape=(2, 4, 4))
    arrays["images"][:, 1] = 7
    data = load(written(tmp_path, **arrays))
    x, _ = next(data.batches("train", 100))
    assert torch.equal(x[:, 1], torch.zeros_like(x[:, 1]))


@pytest.mark.parametrize("batch_size", [2, 3, 64, 1076, 5000])
def test_batches_cover_the_split_once_and_none_holds_one_image(digits: Resident, batch_size: int) -> None:
    batches = list(digits.epoch(batch_size, seed=0, epoch=1))
    assert len(batches) == digits.steps(batch_size)
    lengths = [len(y) for _, y in batches]
    assert sum(lengths) == digits.sizes["train"]
    assert min(lengths) >= 2
    assert max(lengths) <= batch_size + 1


def test_2d_batches_are_channels_last(tmp_path: Path) -> None:
    data = load(written(tmp_path, **images_and_labels(shape=(3, 6, 5))))
    for x, _ in [*data.epoch(8, seed=0, epoch=1), *data.batches("val", 8)]:
        assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5), (3, 4, 6, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_npz_images_come_back_normalised_in_every_form(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    arrays = images_and_labels(shape=shape)
    data = load(written(tmp_path, images=arrays["images"].astype(dtype), labels=arrays["labels"][:, None]))
    assert data.input == (shape if len(shape) > 2 else (1, *shape))
    assert data.classes == 2
    assert data.sizes == {"train": 24, "val": 8, "test": 8}
    x, y = next(data.batches("train", 24))
    over = [0, *range(2, x.ndim)]
    torch.testing.assert_close(x.mean(over), torch.zeros(x.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(over, correction=0), torch.ones(x.shape[1]))
    assert torch.bincount(y).tolist() == [12, 12]


@pytest.mark.parametrize("names", [["train", "val", "test"], [0, 1, 2]])
def test_a_ready_split_is_kept(tmp_path: Path, names: list[object]) -> None:
    arrays = images_and_labels(n=10)
    split = np.array([names[i] for i in (0, 0, 0, 1, 1, 2, 0, 0, 2, 1)])
    data = load(written(tmp_path, **arrays, split=split))
    assert np.array_equal(data.images["val"][:, 0].numpy(), arrays["images"][[3, 4, 9]])
    assert np.array_equal(data.labels["test"].numpy(), arrays["labels"][[5, 8]])


def test_a_pair_of_arrays_for_each_split_is_kept(tmp_path: Path) -> None:
    arrays = images_and_labels(n=10)
    parts: dict[Split, slice] = {"train": slice(0, 6), "val": slice(6, 8), "test": slice(8, 10)}
    pairs = {f"{split}_{name}": arrays[name][part] for split, part in parts.items() for name in arrays}
    data = load(written(tmp_path, **pairs))
    for split, part in parts.items():
        assert np.array_equal(data.images[split][:, 0].numpy(), arrays["images"][part])


def test_the_fingerprint_changes_with_any_pixel_label_or_split(tmp_path: Path) -> None:
    def fingerprint(**change: np.ndarray) -> str:
        return load(written(tmp_path, **{**arrays, **change})).fingerprint

    arrays = images_and_labels()
    pixel, labels = arrays["images"].copy(), arrays["labels"].copy()
    pixel[3, 2, 1] ^= 1
    labels[[0, 1]] = labels[[1, 0]]
    split = np.arange(40) % 3
    prints = [fingerprint(), fingerprint(images=pixel), fingerprint(labels=labels), fingerprint(split=split)]
    assert prints[0] == fingerprint()
    assert len(set(prints)) == 4


BROKEN: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "no arrays": ({"x": np.zeros(3)}, "must be `images` and `labels`.*but got x"),
    "lengths differ": ({"labels": np.zeros(39, int)}, "equally long, but got shapes .40, 6, 5. and .39,."),
    "flat images": ({"images": np.zeros((40, 6))}, "but got shape .40, 6."),
    "empty images": ({"images": np.zeros((40, 0, 5))}, "none of them 0"),
    "channels last": ({"images": np.zeros((40, 6, 5, 3))}, "looks like channels last.*moveaxis"),
    "NaN": ({"images": np.full((40, 6, 5), np.nan)}, "finite, but got 1200 values"),
    "too large for float32": ({"images": np.full((40, 6, 5), 1e300)}, "finite, but got 1200 values"),
    "complex": ({"images": np.zeros((40, 6, 5), complex)}, "uint8 or float, but got complex128"),
    "float labels": ({"labels": np.zeros(40)}, "whole numbers of shape .n,., but got float64"),
    "negative label": ({"labels": np.arange(40) % 2 - 1}, "must be in 0..0 .*but got -1..0"),
    "label over classes": ({"classes": np.array(2), "labels": np.arange(40) % 3}, "must be in 0..1 .*but got 0..2"),
    "classes from 1": ({"labels": np.arange(40) % 2 + 1}, r"every class in 0..2, but got none of \[0\]"),
    "one class": ({"labels": np.zeros(40, int)}, "at least two classes, but all 40 are 0"),
    "few of a class": ({"labels": (np.arange(40) < 4).astype(int)}, "least 5 images of each class, but class 1 has 4"),
    "unknown split": ({"split": np.array(["train", "dev"] * 20)}, "train, val, test.*with dev, train"),
    "no test images": ({"split": np.arange(40) % 2}, r"1 to test, but got \[20, 20, 0\]"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_npz_is_refused_with_its_rule(tmp_path: Path, name: str) -> None:
    change, message = BROKEN[name]
    arrays = change if name == "no arrays" else {**images_and_labels(), **change}
    with pytest.raises(DataError, match=f"(?s)set.npz: .*{message}"):
        load(written(tmp_path, **arrays))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    labels = np.array([{"a": 1}] * 40, dtype=object)
    with pytest.raises(DataError, match="plain arrays"):
        load(written(tmp_path, images=np.zeros((40, 4, 4)), labels=labels))


def test_what_is_not_there_or_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npz: there must be an \.npz file"):
        load(str(tmp_path / "gone.npz"))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="plain arrays"):
        load(str(tmp_path / "text.npz"))
    with pytest.raises(DataError, match=r"one of digits, digits-video or the path .*'digit'; did you mean 'digits'"):
        load("digit")


def test_mixed_seeds_differ_by_every_number_and_order() -> None:
    seeds = [mix(0), mix(1), mix(0, 1), mix(1, 0), mix(0, 0, 1)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
