"""Exported files compute what the model does, at any batch size, or are not there."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.cli import main
from experiments.export import ExportError, export
from experiments.models import Model, ModelError, open_model
from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    Chain,
    Conv,
    Flatten,
    Linear,
    Norm,
    Select,
    Shuffle,
)
from searchspace.checkpoint import save
from searchspace.network import build

OCTAVE = Architecture(
    (3, 12, 12),
    Chain((Conv(8, 3, low=4), Norm(), Activation("relu"), Conv(6, 3), Shuffle(2), Select((5, 0, 3)), AdaptivePool(),
           Flatten(), Linear(5))),
)  # fmt: skip
VIDEO = Architecture((2, 4, 8, 8), Chain((Conv(4, 3, stride=2), Norm(), AdaptivePool(), Flatten(), Linear(3))))
WIRED = "foreign_modules:wired"


def of(module: nn.Module, size: tuple[int, ...], name: str = "mine") -> Model:
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    return Model(
        name=name, module=module.eval(), example=torch.randn(2, *size, dtype=dtype), classes=None, factory=None
    )


def run(path: Path, x: Tensor) -> list[Tensor]:
    """What a file puts out, by the runtime of its kind."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return [torch.from_numpy(y) for y in session.run(None, {"input": x.numpy()})]
    with torch.no_grad():
        y = torch.export.load(path).module()(x)
    return list(y) if isinstance(y, tuple) else [y]


@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.parametrize("which", ["octave", "video", "foreign"])
def test_a_file_computes_what_the_model_does_at_a_batch_size_never_traced(
    tmp_path: Path, which: str, form: str
) -> None:
    model = {
        "octave": lambda: of(build(OCTAVE, 0), OCTAVE.input),
        "video": lambda: of(build(VIDEO, 0), VIDEO.input),
        "foreign": lambda: open_model(WIRED, input="3x9x7"),
    }[which]()
    path = tmp_path / "a" / f"net.{form}"
    exported = export(model, path)
    x = torch.randn(3, *model.input).to(model.example.dtype)
    (got,) = run(path, x)
    with torch.no_grad():
        wanted = model.module(x)
    eps = torch.finfo(x.dtype).eps
    assert float((got - wanted).abs().max() / wanted.abs().max()) <= 100 * eps
    assert got.dtype == wanted.dtype
    assert set(exported.relative_errors) == {1, 4}
    assert max(exported.relative_errors.values()) <= (0 if form == "pt2" else 100 * eps)
    assert exported.size_bytes == path.stat().st_size
    record = json.loads((tmp_path / "a" / f"net.{form}.json").read_text())
    assert (record["format"], record["input"], set(record["relative_errors"])) == (
        "export/1", list(model.input), {"1", "4"}
    )  # fmt: skip
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.json"]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return y, y.mean((2, 3))


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_every_output_is_compared_and_the_batch_is_named(tmp_path: Path, form: str) -> None:
    model = of(Two(), (3, 6, 6))
    assert export(model, tmp_path / f"net.{form}").outputs == 2
    if form == "onnx":
        (input,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").get_inputs()
        assert (input.name, input.shape) == ("input", ["batch", 3, 6, 6])
    else:
        with zipfile.ZipFile(tmp_path / "net.pt2") as file:  # no example is pickled into it
            assert [i.file_size for i in file.infolist() if "sample_inputs" in i.filename] == [0]


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, training=True)


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


class Foreign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x).real


class Undefined(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x) / (x - x)


@pytest.mark.parametrize(
    ("module", "form", "message"),
    [
        (Noisy(), "onnx", r"outputs must be the model's to 0\.0001 of the greatest, but at batch=1 they are .* apart"),
        (Noisy(), "pt2", "No file is left"),
        (Fixed(), "onnx", "mine must be traceable for any batch size, but: UserError: Constraints violated"),
        (Foreign(), "onnx", "mine must have an ONNX form, but: .*aten.linalg_eig"),
        (Undefined(), "pt2", "they are nan apart"),
    ],
    ids=["noisy onnx", "noisy pt2", "fixed batch", "no onnx form", "nan"],
)
def test_what_cannot_be_exported_is_said_and_files_stay_as_they_were(
    tmp_path: Path, module: nn.Module, form: str, message: str
) -> None:
    path = tmp_path / f"net.{form}"
    path.write_text("what was here before")
    with pytest.raises(ExportError, match=message) as caught:
        export(of(module, (3, 4, 4)), path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "what was here before"
    assert list(tmp_path.iterdir()) == [path]


def test_double_precision_has_a_file_of_torchs_own_form_alone(tmp_path: Path) -> None:
    model = of(build(VIDEO, 0).double(), VIDEO.input)
    with pytest.raises(ModelError, match=r"float32 weights, but got float64: write a \.pt2 file"):
        export(model, tmp_path / "net.onnx")
    assert export(model, tmp_path / "net.pt2").relative_errors == {1: 0.0, 4: 0.0}


def test_the_form_must_be_known_and_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = of(nn.ReLU(), (3, 4, 4))
    with pytest.raises(ModelError, match=r"--out must end in \.onnx or \.pt2"):
        export(model, tmp_path / "net.pb")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(
        ModelError, match=r"need onnxscript, which is not installed: pip install 'convsearch\[export\]'"
    ):
        export(model, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_how_far_the_file_is_from_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "net.safetensors", build(OCTAVE, 0))
    words = ["nas", "export", str(tmp_path / "net.safetensors"), "--out", str(tmp_path / "net.pt2")]
    for extra, code in ((["--json"], 0), ([], 0), (["--input", "3x5x5"], 2)):
        monkeypatch.setattr(sys, "argv", [*words, *extra])
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as left:
            main()
        assert (left.value.code or 0) == code
        said = capsys.readouterr().out
        if extra == ["--json"]:
            assert json.loads(said) == json.loads((tmp_path / "net.pt2.json").read_text())
        elif code == 0:
            assert said.splitlines()[1:] == [
                f"  batch of {n}: outputs differ by 0.0e+00 of the greatest" for n in (1, 4)
            ]
