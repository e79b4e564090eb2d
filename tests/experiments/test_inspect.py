"""`nas prune inspect`: table, JSON, page and matrices of networks and foreign modules; bad input is said by rule."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.cli import main
from experiments.inspect import images
from nas.data import load
from pruning.report import HEAD
from searchspace.architecture import Activation, AdaptivePool, Architecture, Chain, Conv, Flatten, Linear, Norm
from searchspace.checkpoint import save
from searchspace.network import build

Nas = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def nas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nas:
    """nas(*words): (exit code, stdout, stderr)."""

    def ran(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nas", "prune", "inspect", *words])
        monkeypatch.setattr(sys, "path", [*sys.path])
        code = 0
        try:
            main()
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return ran


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with a channel of scale 0, colour and grey images, and a file with one image to train on."""
    path = tmp_path_factory.mktemp("inspect")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    for name, channels in (("grey", 1), ("colour", 3)):
        images = rng.normal(size=(120, channels, 10, 10)).astype(np.float32)
        np.savez(path / f"{name}.npz", images=images, labels=labels)
    pairs = {
        f"{s}_{k}": v for s in ("train", "val", "test") for k, v in (("images", images[:3]), ("labels", labels[::40]))
    }
    pairs |= {"train_images": images[:1], "train_labels": labels[:1]}
    np.savez(path / "one.npz", **pairs)
    network = build(
        Architecture(
            (3, 8, 8),
            Chain((Conv(6, 3), Norm(), Activation(), Conv(8, 3), Activation(), AdaptivePool(), Flatten(), Linear(3))),
        ),
        0,
    )
    with torch.no_grad():
        network.get_parameter("body.1.weight")[2] = 0
    save(path / "net.safetensors", network)
    return path


def test_a_network_gives_a_table_json_a_page_and_matrices(nas: Nas, folder: Path, tmp_path: Path) -> None:
    words = (
        str(folder / "net.safetensors"),
        "--data",
        str(folder / "colour.npz"),
        "--out",
        str(tmp_path / "new" / "out"),
    )
    code, out, _ = nas(*words)
    assert code == 0
    assert out.splitlines()[0].split() == " ".join(HEAD).split()
    (row,) = (line.split() for line in out.splitlines() if line.strip().startswith("body.0 "))
    assert row[1:3] == ["6", "1"]
    assert out.count("wrote ") == 3
    code, out, _ = nas(*words, "--json")
    record = json.loads(out)
    assert record["format"] == "inspect/1"
    assert record["samples"] == 72  # all there are
    assert [layer["name"] for layer in record["layers"]] == ["body.0", "body.3", "body.7"]
    channel = record["layers"][0]["channels"][2]
    assert (channel["cause"], channel["removable"], channel["apoz"], channel["dead"]) == (
        "norm scale 0",
        True,
        1.0,
        "everywhere",
    )
    written = json.loads(Path(record["files"][0]).read_text())
    assert written == {name: value for name, value in record.items() if name in written}
    page = Path(record["files"][1]).read_text()
    assert "72 training images of" in page
    assert "body.3" in page
    with np.load(record["files"][2]) as matrices:
        assert {name: m.shape for name, m in matrices.items()} == {"body.0": (6, 3), "body.3": (8, 6), "body.7": (3, 8)}


def test_a_foreign_module_is_inspected_on_images_brought_to_its_input(nas: Nas, folder: Path) -> None:
    words = ("foreign_modules:wired", "--input", "3x12x12", "--data", str(folder / "colour.npz"), "--samples", "20")
    code, out, _ = nas(*words, "--json")
    record = json.loads(out)
    assert code == 0
    assert (record["samples"], record["files"]) == (20, [])
    assert {layer["name"] for layer in record["layers"]} == {"stem", "block.0", "mix", "head"}


def test_samples_are_chosen_evenly_over_the_training_images(folder: Path) -> None:
    data = load(str(folder / "colour.npz"))
    every = torch.cat([x for x, _ in data.batches("train", 200)])
    seen = list(images(data, 7, (10, 10)))
    assert [len(x) for x in seen] == [3, 3, 1]  # of 72, in batches of 32
    assert torch.equal(torch.cat(seen), every[[0, 12, 24, 36, 47, 59, 71]])
    assert torch.equal(torch.cat(list(images(data, 1000, (10, 10)))), every)
    assert {tuple(x.shape[1:]) for x in images(data, 7, (5, 6))} == {(3, 5, 6)}


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        ("net.safetensors", "Missing option '--data'", 2),
        ("net.safetensors --data gone.npz", "there must be an .npz file here", 2),
        ("net.safetensors --data digit", "did you mean 'digits'?", 2),
        ("net.safetensors --data grey.npz", "must have the channels and axes of the model's input, 3x8x8, but", 2),
        ("net.safetensors --data digits-video", "but 'digits-video' has 1x", 2),
        ("net.safetensors --data colour.npz --samples 1", "greater than or equal to 2", 2),
        ("net.safetensors --data one.npz", "There must be at least 2 images to train on", 2),
        ("net.safetensors --data colour.npz --negligible 1", "less than or equal to 0.999", 2),
        ("gone.safetensors --data colour.npz", "gone.safetensors", 2),
        ("foreign_modules:wired --data colour.npz", "say it by --input", 2),
        ("net.safetensors --data colour.npz --out colour.npz", "File exists", 1),
    ],
)
def test_bad_input_is_refused_with_a_message(
    nas: Nas, folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str, code: int
) -> None:
    monkeypatch.chdir(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    got, out, err = nas(*words.split())
    assert message in " ".join(err.replace("│", " ").split())
    assert (got, out) == (code, "")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
