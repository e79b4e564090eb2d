"""Digits in places: scikit-learn's 1,797 real digits of 8 x 8 on a larger canvas, still (images) or moving (clips).

Both are split by image, 60/20/20 within each digit, and alike for one seed: no image is in two splits of either.
Places are fresh in every epoch of training and fixed by the seed in validation and test.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nas.resident import Resident, resident, stratified

SIZE = 16  # pixels of the canvas on either axis
FRAMES, STEP = 4, 2  # of a clip; pixels a frame
DIRECTIONS = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])  # (down, right) of: right, left, down, up


def digits(seed: int = 0) -> Resident:
    """A digit anywhere on a canvas of zeros: (1, 16, 16), 10 classes."""
    images, labels = _digits()
    return resident("digits", images, labels, stratified(labels, seed), 10, seed, place)


def digits_video(seed: int = 0) -> Resident:
    """A digit that moves across the canvas: (1, 4, 16, 16), 20 classes, 4 * (digit mod 5) + direction.

    Every image moves in all four directions: right, left, down, up.
    """
    images, labels = _digits()
    parts = np.repeat(stratified(labels, seed), 4)
    named = np.repeat(labels % 5, 4) * 4 + np.tile(np.arange(4), len(labels))
    return resident("digits-video", np.repeat(images, 4, axis=0), named, parts, 20, seed, move)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """(images (1797, 1, 8, 8) of 0-16, digits (1797,))."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64)


def place(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Each of `images` (n, channels, h, w) at its own random place of a canvas of zeros: (n, channels, 16, 16)."""
    return _drawn(images, _places(images, generator)[:, None])[:, :, 0]


def move(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Each of `images` (n, channels, h, w) as a clip (n, channels, 4, 16, 16), moving in direction `labels` mod 4.

    The start is random; a digit that would leave the canvas goes on at its other side, whole. So its place is uniform
    in every frame whatever the direction: only time tells it.
    """
    steps = STEP * torch.arange(FRAMES)[:, None] * DIRECTIONS[labels.cpu() % 4][:, None]
    room = torch.tensor([SIZE - size + 1 for size in images.shape[2:]])
    return _drawn(images, (_places(images, generator)[:, None] + steps) % room)


def _places(images: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 2) of the top and the left where an image lies whole; on the CPU, so the same for every device."""
    n, _, height, width = images.shape
    top = torch.randint(SIZE - height + 1, (n, 1), generator=generator)
    left = torch.randint(SIZE - width + 1, (n, 1), generator=generator)
    return torch.cat([top, left], 1)


def _drawn(images: Tensor, places: Tensor) -> Tensor:
    """Images (n, channels, h, w) at `places` (n, frames, 2) of their clip: (n, channels, frames, 16, 16)."""
    (n, channels, height, width), frames, device = images.shape, places.shape[1], images.device
    rows, columns = ((places[:, :, i, None] + torch.arange(size)).to(device) for i, size in enumerate((height, width)))
    canvas = images.new_zeros(n, frames, SIZE, SIZE, channels)
    clip, frame = torch.arange(n, device=device), torch.arange(frames, device=device)
    canvas[clip[:, None, None, None], frame[:, None, None], rows[..., :, None], columns[..., None, :]] = images.permute(
        0, 2, 3, 1
    )[:, None]
    return canvas.permute(0, 4, 1, 2, 3)
