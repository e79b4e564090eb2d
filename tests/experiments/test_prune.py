"""`nas prune dead` and `nas prune edges` of any model: files that open again, proof beside them, bad input by rule."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from experiments.cli import main
from experiments.models import open_model
from searchspace.architecture import Activation, AdaptivePool, Architecture, Chain, Conv, Flatten, Linear, Norm
from searchspace.checkpoint import save
from searchspace.network import build

Nas = Callable[..., tuple[int, str, str]]

FACTORY = '''
import torch
from torch import nn


class Small(nn.Module):
    """Three dead channels of eight in its first norm, and a convolution of two blocks."""

    def __init__(self, width: int = 8, dead: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.mix = nn.Conv2d(width, width, 1)
        self.head = nn.Linear(width, 3)
        with torch.no_grad():
            self.norm.weight[:dead] = 0
            self.norm.bias[:dead] = 0.4
            self.mix.weight[: width // 2, width // 2 :] = 0
            self.mix.weight[width // 2 :, : width // 2] = 0

    def forward(self, x):
        return self.head(self.mix(self.norm(self.conv(x)).relu()).relu().flatten(2).mean(2))


def lively() -> nn.Module:
    return Small(dead=0)


def broken() -> nn.Module:
    raise ValueError("no such weights")


def unsaid(width=8):
    return Small(width)


class Grouped(Small):
    """Nothing is followed through its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 8)
'''


@pytest.fixture
def nas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nas:
    """nas(*words): (exit code, stdout, stderr)."""

    def ran(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nas", "prune", *words])
        monkeypatch.setattr(sys, "path", [*sys.path])
        code = 0
        try:
            main()
        except SystemExit as left:
            code = int(left.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return ran


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: factories, weights, data, a network of ours."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "prunable", raising=False)
    Path("prunable.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    for name, channels in (("grey", 1), ("colour", 3)):
        images = rng.normal(size=(90, channels, 8, 8)).astype(np.float32)
        np.savez(f"{name}.npz", images=images, labels=np.repeat(np.arange(3), 30))
    body = (Conv(6, 3), Norm(), Activation(), Conv(4, 3), Activation(), AdaptivePool(), Flatten(), Linear(3))
    network = build(Architecture((1, 8, 8), Chain(body)), 0)
    with torch.no_grad():
        network.get_parameter("body.1.weight")[[0, 2]] = 0
        network.get_parameter("body.1.bias")[[0, 2]] = -1
    save(Path("net.safetensors"), network)
    save_file({"conv.weight": torch.zeros(8, 1, 5, 5)}, "other.safetensors")
    return tmp_path


def listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_a_module_of_the_users_is_pruned_into_a_file_that_opens_and_is_pruned_again(nas: Nas, folder: Path) -> None:
    code, out, _ = nas("dead", "prunable:Small", "--input", "1x8x8", "--data", "grey.npz", "--json")
    assert code == 0
    record = json.loads(out)
    assert [c["channel"] for c in record["removed"]["conv"]] == [0, 1, 2]
    assert record["proof"]["relative_error"] <= 1e-12
    assert record["cost_after"]["params"] < record["cost_before"]["params"]
    assert record["val_accuracy_before"] == record["val_accuracy_after"]
    file = Path(record["files"][0])
    assert file == Path("pruned/prunable-Small.safetensors")
    assert json.loads(file.with_suffix(".json").read_text())["proof"] == record["proof"]
    before = open_model("prunable:Small", input="1x8x8").module
    after = open_model(str(file)).module
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(before(x), after(x), atol=1e-6)
    assert after.get_parameter("conv.weight").shape[0] == 5
    code, out, _ = nas("dead", str(file))
    assert code == 0
    assert "Nothing to remove" in out


def test_a_network_gives_its_architecture_too_and_words_for_people(nas: Nas, folder: Path) -> None:
    code, out, _ = nas("dead", "net.safetensors", "--out", "slim.safetensors")
    assert code == 0
    assert "Removed 2 channels from 1 layer" in out
    assert "removed  body.0: 2 channels (norm scale 0)" in out
    assert "relative error" in out
    assert {f"slim.{kind}" for kind in ("safetensors", "json", "architecture.json")} <= listed(folder)
    assert open_model("slim.safetensors").module.get_parameter("body.0.weight").shape[0] == 4


def test_nothing_to_remove_is_said_and_no_file_is_written(nas: Nas, folder: Path) -> None:
    before = listed(folder)
    for model in ("prunable:lively", "prunable:Grouped"):
        code, out, _ = nas("dead", model, "--input", "1x8x8")
        assert code == 0
        assert "Nothing to remove: the network is unchanged" in out
    assert listed(folder) == before


def test_a_dry_run_says_what_would_leave_and_writes_nothing(nas: Nas, folder: Path) -> None:
    before = listed(folder)
    for model in ("net.safetensors", "prunable:unsaid --input 1x8x8"):
        code, out, _ = nas("dead", *model.split(), "--dry-run")
        assert code == 0
        assert "Removed" in out
        assert "wrote" not in out
    assert listed(folder) == before


def test_edges_are_reported_and_regrouped(nas: Nas, folder: Path) -> None:
    code, out, _ = nas("edges", "prunable:lively", "--input", "1x8x8")
    assert code == 0
    assert "Can be regrouped: mix." in out
    code, out, _ = nas("edges", "prunable:lively", "--input", "1x8x8", "--regroup", "--json")
    assert code == 0
    record = json.loads(out)
    assert [(c["name"], c["groups_after"]) for c in record["regrouped"]["changed"]] == [("mix", 2)]
    module = open_model(record["file"]).module
    assert [part.groups for part in module.modules() if isinstance(part, nn.Conv2d)] == [1, 2]
    before = listed(folder)
    code, out, _ = nas("edges", "net.safetensors", "--regroup")
    assert code == 0
    assert "Nothing to regroup" in out
    assert listed(folder) == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("dead prunable:Small", 2, "say it by --input"),
        ("dead prunable:Small --input 3x8x8", 2, "must run on a batch of 2x3x8x8"),
        ("dead prunable:broken --input 1x8x8", 2, "it raised ValueError: no such weights"),
        ("dead prunable:unsaid --input 1x8x8", 2, "annotated as returning one"),
        ("dead prunable:missing --input 1x8x8", 2, "prunable must have missing"),
        ("dead prunable:Small --set width=none --input 1x8x8", 2, "width"),
        ("dead prunable:Small --input 1x8x8 --weights other.safetensors", 2, "the weights must fit the model"),
        ("dead prunable:Small --input 1x8x8 --weights gone.pt", 2, "there must be a file of weights"),
        ("dead prunable:Small --input 1x8x8 --data colour.npz", 2, "must have the channels"),
        ("dead prunable:Small --input 1x8x8 --data gone.npz", 2, "there must be an .npz file"),
        ("dead net.safetensors --data colour.npz", 2, "must have the channels"),
        ("dead net.safetensors --out slim.pt", 2, "must be a .safetensors file"),
        ("dead net.safetensors --trial 3 --out slim.safetensors", 2, "--out does not go with it"),
        ("dead nowhere.safetensors", 2, "there must be"),
        ("dead . ", 2, "a sweep's folder needs --trial"),
        ("edges net.safetensors --out slim.safetensors", 2, "--out goes with --regroup"),
        ("edges net.safetensors --tolerance 2", 2, "tolerance"),
    ],
)
def test_bad_input_is_said_by_its_rule_and_leaves_no_file(
    nas: Nas, folder: Path, words: str, code: int, message: str
) -> None:
    before = listed(folder)
    got, out, err = nas(*words.split())
    said = " ".join((out + err).replace("│", " ").split())
    assert got == code, said
    assert message in said, said
    assert "Traceback" not in said
    assert listed(folder) == before
