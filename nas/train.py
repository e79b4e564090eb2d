"""Training: one network on one dataset, up to an epoch, from and to a checkpoint.

AdamW with a short linear warm-up and a cosine to zero, label smoothing, and auxiliary heads where the architecture
has them; Lightning Fabric places it on a device and sets the precision. Before every evaluation the statistics of
BatchNorm are taken anew: running ones lag behind the weights, most of all in the short epochs that rungs compare.
All randomness of an epoch is a function of
(seed, epoch), so on a CPU two runs agree to the bit, and so do a resumed run and an uninterrupted one. It knows nothing
of search: no Ray, no Optuna. A function with the signature of `train` can take its place in a sweep.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.data import Data, Split, mix
from nas.hanging import epoch_begins
from nas.results import Epoch
from nas.training import Precision, Training, TrainingError
from searchspace.network import Network

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FORMAT = "training/1"
CALIBRATION_SEED = 0xCA1
CALIBRATION_BATCHES = 8  # of training images, to take the statistics of BatchNorm from
SAVE_EVERY_S = 20.0  # a lost worker costs this much training at most


class TrainingFailed(RuntimeError):
    """A training that ended early, by a loss that is not finite or for lack of memory. `curve` is what it had done."""

    def __init__(self, message: str, curve: tuple[Epoch, ...] = ()) -> None:
        super().__init__(message)
        self.curve = curve

    @property
    def epoch(self) -> int:
        return len(self.curve)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training did: the last epoch reached, the curve from epoch 1 on, seconds of wall time of this call.

    In the curve, `train_loss` is the smoothed loss of the main head over the epoch's batches as they passed. `note`
    says what a person should know: a checkpoint that could not be used.
    """

    epoch: int
    curve: tuple[Epoch, ...]
    seconds: float
    note: str | None = None


class Train(Protocol):
    """The signature of `train`, for those who bring their own."""

    def __call__(
        self,
        network: Network,
        data: Data,
        training: Training,
        *,
        seed: int,
        until: int | None = None,
        checkpoint: Path | None = None,
        device: str = "auto",
    ) -> Trained: ...


def train(
    network: Network,
    data: Data,
    training: Training,
    *,
    seed: int,
    until: int | None = None,
    checkpoint: Path | None = None,
    device: str = "auto",
) -> Trained:
    """Train `network` in place to epoch `until` (all `training.epochs` where None), leaving it in evaluation mode.

    Goes on from `checkpoint` where that file exists, and from the start where it is damaged; the schedule is that of
    `training.epochs` either way. The file is replaced whole, at the end and every `SAVE_EVERY_S` seconds. `device` is
    "auto" or a torch device.
    Raises `TrainingError` for what cannot start and `TrainingFailed` for a loss that is not finite or lack of memory.
    """
    until = training.epochs if until is None else until
    if not 1 <= until <= training.epochs:
        raise TrainingError(f"`until` must be in 1..epochs, but got ({until=}, epochs={training.epochs}).")
    _check_fit(network, data)
    start = time.perf_counter()
    curve: list[Epoch] = []
    with _memory_guard(curve):
        run = _Run(network, data, training, seed, device)
        note = None
        if checkpoint is not None and checkpoint.exists():
            try:
                curve += run.load(checkpoint)
            except _Damaged as error:
                note = f"{checkpoint} is damaged, so the training started over ({error})."
            if len(curve) > until:
                raise TrainingError(f"{checkpoint} must not be past {until=}, but is at epoch {len(curve)}.")
        saved_epoch, saved_at = len(curve), time.monotonic()
        for epoch in range(len(curve) + 1, until + 1):
            epoch_begins()
            curve.append(run.epoch(epoch))
            if not math.isfinite(curve[-1].train_loss) or not math.isfinite(curve[-1].val_loss):
                point = curve.pop()
                raise TrainingFailed(
                    f"The loss must stay finite, but in epoch {epoch} it was {point.train_loss} in training and "
                    f"{point.val_loss} in validation. Try a lower learning rate.",
                    tuple(curve),
                )
            if checkpoint is not None and time.monotonic() - saved_at > SAVE_EVERY_S:
                run.save(checkpoint, curve)
                saved_epoch, saved_at = epoch, time.monotonic()
        if checkpoint is not None and saved_epoch < until:
            run.save(checkpoint, curve)
        network.eval()
    return Trained(epoch=until, curve=tuple(curve), seconds=time.perf_counter() - start, note=note)


def evaluate(
    network: Network, data: Data, split: Split, *, device: str = "auto", batch_size: int = 512
) -> tuple[float, float]:
    """(mean cross-entropy in nats, accuracy 0-1) of `network` on a split, in evaluation mode and float32.

    The network is moved to `device` and left in the mode it was in.
    """
    _check_fit(network, data)
    place = _fabric(device, "32-true").device
    training = network.training
    try:
        return _evaluate(network.to(place), network.architecture.input[1:], data.to(place), split, batch_size)
    finally:
        network.train(training)


class _Damaged(ValueError):
    """A checkpoint that cannot be read."""


class _Run:
    """A network with its optimizer on a device: what a checkpoint holds, and one epoch of work on it."""

    def __init__(self, network: Network, data: Data, training: Training, seed: int, device: str) -> None:
        self.network, self.training, self.seed = network, training, seed
        self.space = network.architecture.input[1:]
        fabric = self.fabric = _fabric(device, training.precision)
        self.data = data.to(fabric.device)
        if len(self.space) == 2:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.to(fabric.device)
        self.optimizer = _optimizer(network, training, fused=fabric.device.type in ("cpu", "cuda"))
        self.model, self.stepper = fabric.setup(network, self.optimizer)

    def epoch(self, number: int) -> Epoch:
        """Train for one epoch (numbered from 1) and evaluate; the device is waited for once, not at every step."""
        training, device = self.training, self.fabric.device
        steps = self.data.steps(training.batch_size)
        loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        self.model.train()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(mix(self.seed, number))
            for i, (x, y) in enumerate(self.data.epoch(training.batch_size, seed=self.seed, epoch=number)):
                for group in self.optimizer.param_groups:
                    group["lr"] = training.learning_rate * schedule((number - 1) + i / steps, 1 / steps, training)
                output = self.model(resized(x, self.space))
                logits, auxiliary = output if isinstance(output, tuple) else (output, ())
                loss = main = F.cross_entropy(logits, y, label_smoothing=training.label_smoothing)
                for weight, head in zip(self.network.tap_weights, auxiliary, strict=True):
                    loss = loss + weight * F.cross_entropy(head, y, label_smoothing=training.label_smoothing)
                self.fabric.backward(loss)
                self.stepper.step()
                self.stepper.zero_grad()
                loss_sum += main.detach() * len(y)
                correct += (logits.detach().argmax(1) == y).sum()
        self._calibrate(number)
        n = self.data.sizes["train"]
        val_loss, val_accuracy = _evaluate(self.model, self.space, self.data, "val", 4 * training.batch_size)
        return Epoch(
            epoch=number,
            train_loss=loss_sum.item() / n,
            train_accuracy=correct.item() / n,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
        )

    def _calibrate(self, number: int) -> None:
        """Take the statistics of every BatchNorm from training images, as these weights see them: their plain mean."""
        norms = [m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        self.model.train()
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        batches = self.data.epoch(self.training.batch_size, seed=mix(self.seed, CALIBRATION_SEED), epoch=number)
        with torch.no_grad():
            for x, _ in islice(batches, CALIBRATION_BATCHES):
                self.model(resized(x, self.space))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _identity(self) -> dict[str, object]:
        """What must be the same for a checkpoint to be this run's."""
        return {
            "format": FORMAT,
            "architecture": self.network.architecture.digest,
            "data": self.data.fingerprint,
            "training": asdict(self.training),
            "seed": self.seed,
        }

    def save(self, path: Path, curve: list[Epoch]) -> None:
        """Write to a temporary name, then rename: the file that is there is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        record = {
            "identity": self._identity(),
            "curve": [asdict(point) for point in curve],
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(record, buffer)  # to a file, it would not say why a write failed
        try:
            temporary.write_bytes(buffer.getbuffer())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def load(self, path: Path) -> list[Epoch]:
        """Take over the state in `path`, read without running any code in it; its curve. Raises `_Damaged`."""
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load checks no sums
                if (part := archive.testzip()) is not None:
                    raise ValueError(f"the sum of {part} is wrong")
            record = torch.load(path, map_location=self.fabric.device, weights_only=True)
            identity, curve = record["identity"], [Epoch(**point) for point in record["curve"]]
        except (
            OSError,
            EOFError,
            RuntimeError,
            KeyError,
            TypeError,
            ValueError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
        ) as error:
            if out_of_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise _Damaged(reason) from None
        for key, value in self._identity().items():
            if identity.get(key) != value:
                raise TrainingError(
                    f"{path} must be a checkpoint of this training, but its {key} is {identity.get(key)!r}, "
                    f"not {value!r}. Delete it to start again."
                )
        self.network.load_state_dict(record["network"])
        self.optimizer.load_state_dict(record["optimizer"])
        return curve


def schedule(epoch: float, step: float, training: Training) -> float:
    """Share of the peak learning rate for the step that begins at `epoch` (fractional, from 0) and lasts `step`.

    It rises linearly to 1 over the warm-up, then falls by a cosine that would reach 0 at the end of the last epoch.
    """
    if epoch < training.warmup_epochs:
        return min(1.0, (epoch + step) / training.warmup_epochs)
    progress = (epoch - training.warmup_epochs) / (training.epochs - training.warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * progress))


def resized(images: Tensor, space: tuple[int, ...]) -> Tensor:
    """Images (batch, channels, *any) at `space`: bilinear with antialiasing; of a video, evenly chosen frames."""
    if tuple(images.shape[2:]) == tuple(space):
        return images
    if images.ndim == 4:
        return F.interpolate(images, list(space), mode="bilinear", antialias=True, align_corners=False)
    n, channels, frames = images.shape[:3]
    if frames != space[0]:
        chosen = torch.linspace(0, frames - 1, space[0], device=images.device).round().long()
        images = images.index_select(2, chosen)
    flat = images.transpose(1, 2).flatten(0, 1)
    return resized(flat, space[1:]).reshape(n, space[0], channels, *space[1:]).transpose(1, 2).contiguous()


def _optimizer(network: nn.Module, training: Training, *, fused: bool) -> torch.optim.AdamW:
    """AdamW that decays kernels only, neither biases nor norms."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=training.learning_rate, fused=fused)


def _evaluate(
    model: Callable[[Tensor], Tensor], space: tuple[int, ...], data: Data, split: Split, batch_size: int
) -> tuple[float, float]:
    assert isinstance(model, nn.Module)
    model.eval()
    losses, correct, n = [], [], data.sizes[split]
    with torch.inference_mode():
        for x, y in data.batches(split, batch_size):
            logits = model(resized(x, space)).float()
            losses.append(F.cross_entropy(logits, y, reduction="sum"))
            correct.append((logits.argmax(1) == y).sum())
    return torch.stack(losses).sum().item() / n, torch.stack(correct).sum().item() / n


def _fabric(device: str, precision: Precision) -> Fabric:
    from lightning_fabric import Fabric

    kind, _, index = device.partition(":")
    return Fabric(accelerator=kind, devices=[int(index)] if index else 1, precision=precision)


def _check_fit(network: Network, data: Data) -> None:
    """Refuse a network for other data; its space may differ (images are resized), not its axes, channels or classes."""
    architecture = network.architecture
    wanted, given = architecture.input, data.input
    if wanted[0] != given[0] or len(wanted) != len(given):
        raise TrainingError(
            f"The network must read the data's channels and axes, but reads (channels, *space)={wanted} "
            f"where {data.name} has {given}."
        )
    if architecture.output.space or architecture.output.channels != data.classes:
        raise TrainingError(
            f"The network must end in one value for each of the {data.classes} classes of {data.name}, "
            f"but ends in {architecture.output}."
        )


@contextmanager
def _memory_guard(curve: list[Epoch]) -> Iterator[None]:
    """Turn every way torch and Python have of saying "out of memory" into `TrainingFailed`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingFailed(
            f"Out of memory in epoch {len(curve) + 1} ({str(error).splitlines()[0] if str(error) else 'MemoryError'}). "
            "Try a smaller batch size, or fewer trials at a time.",
            tuple(curve),
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory", "alloc_cpu")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
