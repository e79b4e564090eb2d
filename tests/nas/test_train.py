"""Training: it learns, repeats to the bit, resumes to the bit, and fails in words."""

import math
import os
import zipfile
from dataclasses import asdict
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from nas import train as train_module
from nas.data import Resident, load, mix
from nas.train import (
    CALIBRATION_BATCHES,
    CALIBRATION_SEED,
    Trained,
    Training,
    TrainingError,
    TrainingFailed,
    evaluate,
    out_of_memory,
    resized,
    schedule,
    train,
)
from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    Chain,
    Conv,
    Dropout,
    Flatten,
    Linear,
    Norm,
    Tap,
)
from searchspace.network import Network, build


def block(width: int, stride: int = 1, low: int = 0) -> Chain:
    return Chain((Conv(width, 3, stride, low=low), Norm(), Activation()))


def head(classes: int) -> Chain:
    return Chain((AdaptivePool(), Dropout(0.1), Flatten(), Linear(classes)))


def architecture(
    size: tuple[int, ...] = (1, 16, 16), width: int = 8, classes: int = 10, tap: float | None = None, low: int = 0
) -> Architecture:
    taps = [] if tap is None else [Tap(head(classes), tap)]
    stages = [block(width), *taps, block(2 * width, 2, low), block(4 * width, 2)]
    return Architecture(size, Chain((*stages, head(classes))))


@pytest.fixture(scope="module")
def digits() -> Resident:
    return load("digits")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run(
    data: Resident, training: Training, *, of: Architecture | None = None, seed: int = 0, **options: object
) -> tuple[Network, Trained]:
    network = build(of or architecture(), seed)
    return network, train(network, data, training, seed=seed, device="cpu", **options)  # type: ignore[arg-type]


def same(a: Network, b: Network) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_eight_epochs_learn_the_digits(digits: Resident) -> None:
    network, trained = run(digits, Training())
    assert trained.epoch == len(trained.curve) == 8
    assert [point.epoch for point in trained.curve] == list(range(1, 9))
    assert trained.curve[-1].val_accuracy > 0.75
    assert trained.curve[-1].train_loss < trained.curve[0].train_loss
    loss, accuracy = evaluate(network, digits, "val", device="cpu")
    assert accuracy == trained.curve[-1].val_accuracy
    assert math.isclose(loss, trained.curve[-1].val_loss, rel_tol=1e-5)
    assert abs(evaluate(network, digits, "test", device="cpu")[1] - accuracy) < 0.15


@pytest.mark.parametrize("low", [0, 8])
def test_two_runs_of_one_seed_agree_to_the_bit_and_another_seed_does_not(digits: Resident, low: int) -> None:
    training, of = Training(epochs=2), architecture(low=low)
    torch.manual_seed(1)
    first, a = run(digits, training, of=of)
    torch.manual_seed(2)
    second, b = run(digits, training, of=of)
    assert same(first, second)
    assert a.curve == b.curve
    assert run(digits, training, of=of, seed=1)[1].curve != a.curve


@pytest.mark.parametrize("tap", [None, 0.3])
def test_stopping_and_resuming_is_training_straight_to_the_bit(
    digits: Resident, tmp_path: Path, tap: float | None
) -> None:
    training, of = Training(epochs=5), architecture(tap=tap)
    straight, whole = run(digits, training, of=of, checkpoint=tmp_path / "straight")
    _, part = run(digits, training, of=of, checkpoint=tmp_path / "rungs", until=2)
    assert (part.epoch, part.curve) == (2, whole.curve[:2])
    torch.manual_seed(99)
    resumed, rest = run(digits, training, of=of, checkpoint=tmp_path / "rungs", until=5)
    assert rest.curve == whole.curve
    assert same(straight, resumed)
    a, b = (torch.load(tmp_path / name, weights_only=True)["optimizer"] for name in ("straight", "rungs"))
    assert a["param_groups"] == b["param_groups"]
    for key, state in a["state"].items():
        assert all(torch.equal(value, b["state"][key][name]) for name, value in state.items())


def test_a_finished_training_is_not_trained_again(digits: Resident, tmp_path: Path) -> None:
    training = Training(epochs=1)
    first, a = run(digits, training, checkpoint=tmp_path / "file")
    written = (tmp_path / "file").stat().st_mtime_ns
    second, b = run(digits, training, checkpoint=tmp_path / "file")
    assert same(first, second)
    assert a.curve == b.curve
    assert (tmp_path / "file").stat().st_mtime_ns == written
    assert os.listdir(tmp_path) == ["file"]


def test_mixed_precision_trains_float32_weights(digits: Resident) -> None:
    network, trained = run(digits, Training(epochs=2, precision="bf16-mixed"))
    assert trained.curve[-1].val_accuracy > 0.15
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_training_leaves_the_global_generator_alone(digits: Resident) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(digits, Training(epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_auxiliary_heads_train_by_their_weight(digits: Resident) -> None:
    def moved(weight: float) -> bool:
        of, name = architecture(tap=weight), "body.1.0.3.weight"
        before = {name: p.clone() for name, p in build(of, 0).named_parameters()}
        network, _ = run(digits, Training(epochs=1, weight_decay=0), of=of)
        return not torch.equal(network.get_parameter(name), before[name])

    assert moved(0.3)
    assert not moved(0.0)


def test_statistics_are_the_mean_over_calibration_images_not_a_running_one(digits: Resident) -> None:
    """Of the first norm of an octave network with an auxiliary head, from its own input; every norm has new ones."""
    network, _ = run(digits, Training(epochs=1), of=architecture(low=8, tap=0.3))
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 4
    assert {norm.momentum for norm in norms} == {0.1}
    assert {int(norm.num_batches_tracked) for norm in norms} == {CALIBRATION_BATCHES}
    batches = islice(digits.epoch(64, seed=mix(0, CALIBRATION_SEED), epoch=1), CALIBRATION_BATCHES)
    with torch.no_grad():
        first = [network.body[0][0](x) for x, _ in batches]
    assert torch.allclose(norms[0].running_mean, torch.stack([x.mean((0, 2, 3)) for x in first]).mean(0), atol=1e-5)
    assert torch.allclose(norms[0].running_var, torch.stack([x.var((0, 2, 3)) for x in first]).mean(0), rtol=1e-4)


def test_calibrating_changes_no_weight_and_draws_nothing(digits: Resident, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights() -> list[torch.Tensor]:
        network, _ = run(digits, Training(epochs=2), of=architecture(tap=0.3))
        return [p.detach() for p in network.parameters()]

    calibrated = weights()
    monkeypatch.setattr(train_module._Run, "_calibrate", lambda self, number: None)
    assert all(map(torch.equal, calibrated, weights()))


def test_a_loss_that_is_not_finite_fails_with_the_curve_so_far(digits: Resident) -> None:
    with pytest.raises(TrainingFailed, match=r"must stay finite, but in epoch 1 .*lower learning rate") as failed:
        run(digits, Training(epochs=2, learning_rate=1e30))
    assert (failed.value.epoch, failed.value.curve) == (0, ())


def test_an_image_larger_than_memory_fails_as_out_of_memory(digits: Resident) -> None:
    with pytest.raises(TrainingFailed, match=r"Out of memory in epoch 1 .*smaller batch size"):
        run(digits, Training(), of=architecture((1, 4_000_000, 4_000_000)))


def test_every_way_of_saying_out_of_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(2**60)
    assert out_of_memory(cpu.value)
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not out_of_memory(RuntimeError("shapes do not match"))
    assert not out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", True),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -0.1),
        ("label_smoothing", 1.0),
        ("warmup_epochs", 8),
        ("precision", "32"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(field: str, value: object) -> None:
    with pytest.raises(TrainingError, match=f"`{field}` must be .*, but got {value!r}"):
        Training(**{field: value})  # type: ignore[arg-type]


def test_the_schedule_rises_to_the_peak_and_falls_towards_zero() -> None:
    training, steps = Training(epochs=8, warmup_epochs=0.5), 10
    rates = [schedule(i / steps, 1 / steps, training) for i in range(8 * steps)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1.0
    assert all(a > b for a, b in pairwise(rates[5:]))
    assert 0 < rates[-1] < 0.001
    assert all(0 < schedule(i / 3, 1 / 3, Training(epochs=1, warmup_epochs=0.0)) <= 1 for i in range(3))


def test_a_network_of_another_resolution_sees_resized_images(digits: Resident) -> None:
    network, trained = run(digits, Training(epochs=4), of=architecture((1, 12, 12)))
    assert trained.curve[-1].val_accuracy > 0.3
    assert evaluate(network, digits, "val", device="cpu")[1] == trained.curve[-1].val_accuracy


def test_resizing_keeps_a_constant_and_halves_by_smoothing() -> None:
    assert torch.allclose(resized(torch.ones(2, 3, 16, 16), (10, 7)), torch.ones(2, 3, 10, 7))
    board = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).float()[None, None]
    assert (resized(board, (8, 8))[..., 1:-1, 1:-1] - 0.5).abs().max() < 0.05  # without antialiasing it is 0 or 1
    clip = torch.arange(8.0)[None, None, :, None, None].expand(2, 1, 8, 6, 6)
    assert resized(clip, (4, 3, 3))[0, 0, :, 0, 0].tolist() == pytest.approx([0, 2, 5, 7])


def test_a_video_network_trains(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.normal(size=(60, 1, 4, 8, 8)) + labels[:, None, None, None, None]
    np.savez(tmp_path / "clips.npz", images=images, labels=labels)
    data = load(str(tmp_path / "clips.npz"))
    _, trained = run(data, Training(epochs=6, batch_size=8), of=architecture((1, 4, 8, 8), width=4, classes=2))
    assert trained.curve[-1].val_accuracy > 0.9


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (architecture((3, 16, 16)), "channels and axes, but reads .*3, 16, 16. where digits has .1, 16, 16."),
        (architecture((1, 4, 16, 16)), "channels and axes"),
        (architecture(classes=7), "each of the 10 classes of digits, but ends in 7"),
    ],
)
def test_a_network_for_other_data_is_refused(digits: Resident, of: Architecture, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        run(digits, Training(), of=of)


def test_the_checkpoint_of_another_training_is_refused_by_name(digits: Resident, tmp_path: Path) -> None:
    path, training = tmp_path / "file", Training(epochs=2)
    run(digits, training, checkpoint=path)
    with pytest.raises(TrainingError, match=r"must not be past until=1, but is at epoch 2"):
        run(digits, training, checkpoint=path, until=1)
    with pytest.raises(TrainingError, match=r"its seed is 0, not 1\. Delete it"):
        run(digits, training, checkpoint=path, seed=1)
    with pytest.raises(TrainingError, match="its architecture is"):
        run(digits, training, of=architecture(width=4), checkpoint=path)
    with pytest.raises(TrainingError, match="its training is"):
        run(digits, Training(epochs=3), checkpoint=path)
    with pytest.raises(TrainingError, match="its data is"):
        run(load("digits", seed=1), training, checkpoint=path)


def test_a_damaged_checkpoint_is_said_and_the_training_starts_over(digits: Resident, tmp_path: Path) -> None:
    path, training = tmp_path / "file", Training(epochs=2)
    _, whole = run(digits, training, checkpoint=path)
    flipped = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        weights = archive.read(max(archive.infolist(), key=lambda part: part.file_size))
    flipped[flipped.index(weights) + len(weights) // 2] ^= 0xFF
    for damaged in (b"", b"garbage", path.read_bytes()[:1000], bytes(flipped)):
        path.write_bytes(damaged)
        _, again = run(digits, training, checkpoint=path)
        assert f"{path} is damaged, so the training started over" in str(again.note)
        assert again.curve == whole.curve
    assert run(digits, training, checkpoint=path)[1].note is None


@pytest.mark.parametrize("until", [0, 9])
def test_until_must_be_within_the_epochs(digits: Resident, until: int) -> None:
    with pytest.raises(TrainingError, match=rf"in 1..epochs, but got \(until={until}, epochs=8\)"):
        run(digits, Training(), until=until)


def test_a_checkpoint_with_code_inside_is_not_run(digits: Resident, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    torch.save({"identity": Trap()}, tmp_path / "file")
    assert "started over" in str(run(digits, Training(epochs=1), checkpoint=tmp_path / "file")[1].note)
    assert not (tmp_path / "trapped").exists()


def test_settings_survive_a_round_trip_through_plain_values() -> None:
    training = Training(epochs=3, learning_rate=0.02)
    assert Training(**asdict(training)) == training
