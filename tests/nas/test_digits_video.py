"""Moving digits: what moves where, that no single frame tells the direction, splits by image, places by epoch."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from scipy.stats import chi2_contingency
from torch import Tensor

from nas.data import SPLITS, Resident, load
from nas.digits import FRAMES, move

STEPS = {0: (0, 2), 1: (0, -2), 2: (2, 0), 3: (-2, 0)}  # right, left, down, up as (down, right), pixels a frame


@pytest.fixture(scope="module")
def clips() -> Resident:
    return load("digits-video", seed=0)


def corners(frames: Tensor) -> list[tuple[int, int]]:
    """(top, left) of what is not 0 in each of `frames` (n, h, w)."""
    found = [frame.nonzero(as_tuple=True) for frame in frames]
    return [(int(rows.min()), int(columns.min())) for rows, columns in found]


def full(n: int) -> tuple[Tensor, Tensor]:
    """`n` images without a zero, so that their place can be read, with every label equally often."""
    return torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(n, 1, 1, 1), torch.arange(n) % 20


def test_a_clip_is_one_whole_digit_that_moves_in_its_direction_and_goes_on_at_the_other_side() -> None:
    images, labels = full(400)
    moved = move(images, labels, torch.Generator().manual_seed(0))
    assert moved.shape == (400, 1, FRAMES, 16, 16)
    places = [corners(moved[:, 0, t]) for t in range(FRAMES)]
    jumps = 0
    for i, label in enumerate(labels.tolist()):
        for t in range(FRAMES):
            top, left = places[t][i]
            assert torch.equal(moved[i, 0, t, top : top + 8, left : left + 8], images[i, 0])
            assert moved[i, 0, t].sum() == images[i].sum()
        for (top, left), (next_top, next_left) in zip((p[i] for p in places), (p[i] for p in places[1:]), strict=False):
            down, right = STEPS[label % 4]
            assert (next_top, next_left) == ((top + down) % 9, (left + right) % 9)
            jumps += (next_top, next_left) != (top + down, left + right)
    assert 0 < jumps < 400 * 3 / 2


def test_a_single_frame_says_nothing_of_the_direction_and_two_say_it_all() -> None:
    images, labels = full(8_000)
    moved = move(images, labels, torch.Generator().manual_seed(1))[:, 0]
    places = [corners(moved[:, t]) for t in range(FRAMES)]
    for frame in places:
        counts = Counter(zip(frame, (labels % 4).tolist(), strict=True))
        table = [[counts[(top, left), d] for d in range(4)] for top in range(9) for left in range(9)]
        assert chi2_contingency(table).pvalue > 0.001
    for t in range(FRAMES - 1):
        told: dict[tuple[int, int], set[int]] = {}
        for before, after, label in zip(places[t], places[t + 1], labels.tolist(), strict=True):
            told.setdefault(((after[0] - before[0]) % 9, (after[1] - before[1]) % 9), set()).add(label % 4)
        assert sorted(map(tuple, told.values())) == [(0,), (1,), (2,), (3,)]


def test_the_mean_frame_is_the_same_in_every_direction(clips: Resident) -> None:
    x = torch.cat([x for e in range(4) for x, _ in clips.epoch(512, seed=0, epoch=e)])[:, 0]
    y = torch.cat([y for e in range(4) for _, y in clips.epoch(512, seed=0, epoch=e)])
    for t in range(FRAMES):
        means = torch.stack([x[y % 4 == d, t].mean(0) for d in range(4)])
        assert (means - means.mean(0)).abs().max() < 5 / (len(x) / 4) ** 0.5  # five standard errors of deviation 1


def test_every_image_moves_in_every_direction_and_is_in_the_split_that_digits_has_it_in(clips: Resident) -> None:
    digits = load("digits", seed=0)
    assert (clips.input, clips.classes, clips.name) == ((1, 4, 16, 16), 20, "digits-video")
    for split in SPLITS:
        assert clips.sizes[split] == 4 * digits.sizes[split]
        named = Counter(digits.labels[split].remainder(5).tolist())
        assert Counter(clips.labels[split].tolist()) == {4 * c + d: named[c] for c in range(5) for d in range(4)}
        ink = clips.images[split].flatten(1).sum(1) // (1 if split == "train" else FRAMES)
        once = digits.images[split].flatten(1).sum(1)
        assert torch.equal(ink.sort().values, once.repeat_interleave(4).sort().values)
    raw = {bytes(image.numpy().tobytes()) for image in digits.images["train"]}
    assert {bytes(image.numpy().tobytes()) for image in clips.images["train"]} == raw


def test_places_are_fresh_in_training_and_fixed_in_validation(clips: Resident) -> None:
    def epoch(seed: int, number: int) -> tuple[Tensor, Tensor]:
        batches = list(clips.epoch(64, seed=seed, epoch=number))
        return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    torch.manual_seed(1)
    first = epoch(0, 1)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, epoch(0, 1), strict=True))
    for x, y in (epoch(0, 2), epoch(1, 1)):
        assert torch.equal(first[1].sort().values, y.sort().values)
        order, other = (z.sum((1, 2, 3, 4)).argsort(stable=True) for z in (first[0], x))
        assert (first[0][order] != x[other]).flatten(1).any(1).float().mean() > 0.9
    again = load("digits-video", seed=0)
    for split in SPLITS:
        a, b = (torch.cat([x for x, _ in d.batches(split, n)]) for d, n in ((clips, 100), (again, 33)))
        assert torch.equal(a, b)
    assert not torch.equal(clips.images["val"], load("digits-video", seed=1).images["val"])


def test_clips_are_normalised_and_have_a_fingerprint_of_their_own(clips: Resident) -> None:
    x = torch.cat([x for x, _ in clips.epoch(64, seed=0, epoch=1)])
    assert x.dtype == torch.float32
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-3
    prints = [load(name, seed=seed).fingerprint for name in ("digits", "digits-video") for seed in (0, 1)]
    assert clips.fingerprint == prints[2]
    assert len(set(prints)) == 4
