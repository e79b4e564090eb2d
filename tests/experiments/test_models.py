"""MODEL on the command line: every form of it, weights of every kind, and one clear line for what is wrong."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign_modules import Wired
from safetensors.torch import save_file
from safetensors.torch import save_model as save_tied
from torch import nn

from experiments.cli import main
from experiments.models import Model, ModelError, open_model, read_weights, save_model
from experiments.named import find
from nas.folder import weights, write_json
from nas.results import Result, Worker
from nas.sweep import SweepError
from searchspace.architecture import AdaptivePool, Architecture, ArchitectureError, Chain, Conv, Flatten, Linear
from searchspace.checkpoint import CheckpointError, save
from searchspace.factory import Factory, FactoryError
from searchspace.layers import Select
from searchspace.network import Network, build
from searchspace.notation import to_json

OWN = Architecture((3, 16, 16), Chain((Conv(8, 3), Conv(16, 3, low=8), AdaptivePool(), Flatten(), Linear(5))))
WIRED = "foreign_modules:wired"
SIZE = "3x9x7"


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Forms ----------------------------------------------------------------------------------------------------------


def test_a_published_network_takes_settings_and_an_input() -> None:
    model = open_model("resnet", ["depth=18", "classes=10"], input="1x32x32")
    assert isinstance(model.module, Network)
    assert model.module.architecture == find("resnet", ["depth=18", "classes=10"], "1x32x32")
    assert (model.name, model.input, model.classes, model.factory) == ("resnet", (1, 32, 32), 10, None)
    assert not model.module.training
    assert model.example.shape == (2, 1, 32, 32)


def test_files_of_ours_hold_all_of_their_network(tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(json.dumps(to_json(OWN)))
    network = build(OWN, 7)
    save(tmp_path / "net.safetensors", network)
    drawn, stored = (open_model(str(tmp_path / f"net.{kind}")) for kind in ("json", "safetensors"))
    assert same(stored.module, network)
    assert same(drawn.module, build(OWN, 0))
    assert (drawn.input, drawn.classes, stored.input) == (OWN.input, 5, OWN.input)
    weighted = open_model(str(tmp_path / "net.json"), weights=tmp_path / "net.safetensors")
    assert same(weighted.module, network)


def test_a_member_of_a_front_is_opened_by_its_number(tmp_path: Path) -> None:
    rows = [
        Result(trial=n, digest=OWN.digest, architecture=to_json(OWN), epoch=1, final=True, state="complete",
               values={"accuracy": 0.5}, seconds=1.0, worker=Worker(node="a", pid=1, device="cpu"), seed=0)
        for n in (3, 4)
    ]  # fmt: skip
    (tmp_path / "results.jsonl").write_text("".join(f"{json.dumps(row.to_json())}\n" for row in rows))
    write_json(tmp_path / "front.json", {"format": "front/1", "members": [rows[0].to_json()]})
    network = build(OWN, 9)
    save(weights(tmp_path, 3), network)
    model = open_model(str(tmp_path), trial=3)
    assert same(model.module, network)
    assert model.name == f"{tmp_path} trial 3"
    for trial, message in ((4, "must be on the front, whose weights are kept .got 4; front: 3"), (5, "is not there")):
        with pytest.raises(SweepError, match=message):
            open_model(str(tmp_path), trial=trial)


def test_a_factory_is_called_with_settings_and_draws_the_same_weights_each_time() -> None:
    before = torch.get_rng_state()
    one, other = (open_model(WIRED, ["width=16"], input=SIZE) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert one.factory == Factory(name=WIRED, arguments={"width": 16})
    assert isinstance(one.module, Wired)
    assert one.module.stem.out_channels == 16
    assert same(one.module, other.module)
    assert (one.input, one.classes) == ((3, 9, 7), 3)


def test_a_setting_without_an_annotation_is_read_as_json_or_as_a_word() -> None:
    words = ["kind=fast", "a=3", "b=0.5", "c=none", "d=True", "e=[1, [2]]", "f=NaN", "g=3x3", "h="]
    given = open_model("foreign_modules:kind", words, input=SIZE).module.given
    assert given == {
        "kind": "fast", "a": 3, "b": 0.5, "c": None, "d": True, "e": (1, (2,)), "f": "NaN", "g": "3x3", "h": ""
    }  # fmt: skip


def test_a_factory_that_makes_a_network_of_ours_gives_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ours_by_hand.py").write_text(
        "from searchspace.network import build\nfrom experiments.named import find\n"
        "def small(): return build(find('resnet', ['depth=18', 'classes=3'], '3x32x32'))\n"
    )
    model = open_model("ours_by_hand:small")
    assert (model.factory, model.input, model.classes) == (None, (3, 32, 32), 3)
    with pytest.raises(ModelError, match="a network says its input, here 3x32x32"):
        open_model("ours_by_hand:small", input="3x8x8")


def test_what_was_changed_is_saved_and_opened_again(tmp_path: Path) -> None:
    model = open_model(WIRED, ["width=16"], input=SIZE)
    assert isinstance(model.module, Wired)
    model.module.shuffle = Select((*range(8, 16), *range(8)), 16)  # type: ignore[assignment]
    save_model(tmp_path / "cut.safetensors", model, model.module, {"proof": "0"})
    back = open_model(str(tmp_path / "cut.safetensors"))
    assert (back.factory, back.input) == (model.factory, (3, 9, 7))
    assert torch.equal(model.module(model.example), back.module(back.example))
    assert open_model(str(tmp_path / "cut.safetensors"), input="3x5x5").input == (3, 5, 5)
    own = open_model("resnet", ["depth=18", "classes=3"], input="3x32x32")
    save_model(tmp_path / "own.safetensors", own, own.module)
    assert same(open_model(str(tmp_path / "own.safetensors")).module, own.module)


def test_the_weights_keep_their_precision(tmp_path: Path) -> None:
    save(tmp_path / "net.safetensors", build(OWN, 0).double())
    assert open_model(str(tmp_path / "net.safetensors")).example.dtype == torch.float64


# Weights --------------------------------------------------------------------------------------------------------


def made(seed: int) -> Wired:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Wired()


def test_weights_come_from_every_plain_form_and_what_was_done_is_said(tmp_path: Path) -> None:
    source = made(5)
    state = source.state_dict()
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    forms: dict[str, tuple[object, list[str]]] = {
        "plain.pt": (state, []),
        "plain.pth": (state, []),
        "key.pt": ({"epoch": 3, "state_dict": state}, ["those under 'state_dict'"]),
        "model.pt": ({"model": state, "optimizer": {"lr": 0.1}}, ["those under 'model'"]),
        "parallel.pt": (wrapped, ["without the 'module.'"]),
        "both.pt": ({"state_dict": wrapped}, ["those under 'state_dict'", "without the 'module.'"]),
    }
    for name, (content, said) in forms.items():
        torch.save(content, tmp_path / name)
        model = open_model("foreign_modules:Wired", weights=tmp_path / name, input=SIZE)
        assert same(model.module, source), name
        assert len(model.notes) == len(said)
        assert all(words in note for words, note in zip(said, model.notes, strict=True))
    save_tied(source, str(tmp_path / "tied.safetensors"))  # leaves out what is tied
    model = open_model("foreign_modules:Wired", weights=tmp_path / "tied.safetensors", input=SIZE)
    assert same(model.module, source)
    assert model.notes == ()
    assert isinstance(model.module, Wired)
    assert model.module.aux.weight is model.module.head.weight


def test_old_files_lack_a_count_and_other_precisions_are_said(tmp_path: Path) -> None:
    state = made(5).state_dict()
    torch.save({n: t.double() for n, t in state.items() if not n.endswith("num_batches_tracked")}, tmp_path / "old.pt")
    model = open_model("foreign_modules:Wired", weights=tmp_path / "old.pt", input=SIZE)
    assert torch.equal(model.module.state_dict()["mix.weight"], state["mix.weight"])
    assert model.notes == (f"{tmp_path / 'old.pt'}: weights were changed from float64 to float32.",)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = made(5).state_dict()
    wrong = {n: t for n, t in state.items() if not n.startswith("norm.")}
    wrong |= {"extra.weight": torch.ones(2), "stem.weight": torch.ones(4, 3, 3, 3)}
    torch.save(wrong, tmp_path / "w.pt")
    with pytest.raises(ModelError) as caught:
        open_model("foreign_modules:Wired", weights=tmp_path / "w.pt", input=SIZE)
    said = str(caught.value)
    assert "of 24 tensors: 4 missing (norm.weight, norm.bias, norm.running_mean, ...)" in said
    assert "1 unexpected (extra.weight)" in said
    assert "1 of another shape (stem.weight is 4x3x3x3 in the file, 8x3x3x3 in the model)" in said


class Trap:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    for name, content in {"trap.pt": {"a": Trap(tmp_path / "ran")}, "module.pt": made(0)}.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(
            ModelError,
            match=r"it holds .*loading could run any code\. .*state_dict.*or as safetensors",
        ) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.deprecated_call():
        torch.jit.script(nn.ReLU()).save(str(tmp_path / "script.pt"))
    with pytest.raises(ModelError, match=r"tensors alone, but RuntimeError: Cannot use .*TorchScript archives"):
        read_weights(tmp_path / "script.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    with pytest.raises(ModelError):
        read_weights(tmp_path / "raw.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", {}, "but it has nothing"),
        ("w.pt", torch.ones(2), "but it has a Tensor"),
        ("w.pt", {"weights": {"a": torch.ones(1)}}, "'state_dict' or 'model', but it has 'weights', a dict"),
        ("w.pt", {"state_dict": {"a": 3}}, "but it has 'a', a int"),
        ("w.pt", b"", "w.pt: must"),
        ("w.pt", b"not a checkpoint", "w.pt: must"),
        ("w.pt", b"PK\x03\x04" + bytes(50), "tensors alone, but RuntimeError"),
        ("w.safetensors", b"not a checkpoint", "must be a safetensors file, but"),
        ("w.bin", b"", r"weights must be a \.safetensors, \.pt or \.pth file"),
    ],
)
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, name: str, content: object, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(ModelError, match=message) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="there is none"):
        read_weights(tmp_path / "nowhere.pt")


# What is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnte"], r"MODEL must be a published network .*got 'resnte'; did you mean 'resnet'"),
        (["foreign_module:wired"], "no foreign_module; did you mean 'foreign_modules'"),
        (["no.such.thing:wired"], "no.such.thing must be a module that Python can import, but there is no no"),
        (["foreign_modules:wierd"], "must have wierd, but it has none; did you mean 'wired'"),
        (["foreign_modules:Wired.forwards"], "must have Wired.forwards, .* did you mean 'forward'"),
        (["foreign_modules:kept"], "must be a function or a class .* but it is a int"),
        (["foreign_modules:instance"], "but it is a Linear. Write a function"),
        ([":wired"], "must be named package.module:function"),
        (["foreign_modules:"], "must be named package.module:function"),
        (["foreign_modules:broken"], "must make a module, but it raised KeyError: 'no such file of settings"),
        (["foreign_modules:leaving"], "must make a module, but it raised SystemExit: 3"),
        (["foreign_modules:nothing"], "must make a torch.nn.Module, but it returned NoneType"),
        (["foreign_modules:needs"], "foreign_modules:needs needs width|must make a module.*width"),
        ([WIRED, "widht=8"], "must be one of width, classes .got 'widht'; did you mean 'width'"),
        ([WIRED, "width=wide"], "`width` of foreign_modules:wired must be a whole number .got 'wide'"),
        ([WIRED, "width"], "must be NAME=VALUE"),
        ([WIRED, "width=7"], "foreign_modules:wired.width=7. must make a module, but it raised ValueError"),
        ([WIRED, "--input="], "what it reads is not known: say it by --input, such as 3x224x224"),
        ([WIRED, "--input=3x0x2"], "--input must be sizes such as 3x224x224"),
        ([WIRED, "--input=9x9"], "--input must be sizes such as 3x224x224"),
        ([WIRED, "--input=4x9x9"], "must run on a batch of 2x4x9x9 .--input says it., but: RuntimeError: Given groups"),
        (["foreign_modules:tensorless"], "must return a tensor, or several, but it returned str"),
        (["foreign_modules:broken", "--trial=1"], "--trial says all of its network"),
        (["nowhere.json"], "nowhere.json: must be a readable file"),
        (["nowhere.safetensors"], "there must be a network file here, but there is none"),
        (["nowhere/at/all"], "must be a readable file"),
        (["weights.pt"], "holds weights alone: name what makes the model"),
        ([".", "--input="], "is a folder: a sweep's folder needs --trial"),
        (["timm:resnet18"], "timm must be installed for timm:NAME"),
    ],
)
def test_the_first_thing_wrong_is_said_in_a_line_and_the_exit_code_is_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    sizes = [word for word in words if word.startswith("--input")] or ["--input=" + SIZE]
    given = [word for word in words if not word.startswith("--input")] + [word for word in sizes if word != "--input="]
    code, said = exported(monkeypatch, capsys, tmp_path, given)
    assert code == 2
    last = said.splitlines()[-1]
    assert last.startswith("nas: ")
    assert re.search(message, last), last
    assert list(tmp_path.iterdir()) == []


def exported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: Path, words: list[str]
) -> tuple[int, str]:
    """The exit code of `nas export`, and what it said."""
    monkeypatch.setattr(sys, "argv", ["nas", "export", *words, "--out", str(out / "net.pt2")])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as left:
        main()
    code = left.value.code
    return code if isinstance(code, int) else 0, capsys.readouterr().err


def test_a_file_says_its_model_alone(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save(path, build(OWN, 0))
    with pytest.raises(ModelError, match="--set goes with a name"):
        open_model(str(path), ["depth=3"])
    with pytest.raises(ModelError, match="here 3x16x16: another --input does not go with it"):
        open_model(str(path), input="3x8x8")


def test_files_that_are_no_model_or_of_a_newer_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    for metadata, message in {
        None: "format must be 'network/1', but got None",
        "network/2": "format must be 'network/1', but got 'network/2'; another version of this package reads it",
        "pruned/9": "format must be 'pruned/1', but got 'pruned/9'; another version of this package reads it",
    }.items():
        save_file({"x": torch.ones(1)}, path, None if metadata is None else {"format": metadata})
        with pytest.raises(CheckpointError, match=message):
            open_model(str(path))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="must be a network file of this format"):
        open_model(str(path))
    (tmp_path / "net.json").write_text('{"format": "architecture/99"}')
    with pytest.raises(ArchitectureError, match="architecture/99"):
        open_model(str(tmp_path / "net.json"))


def test_a_model_without_factory_is_not_saved(tmp_path: Path) -> None:
    model = Model(name="mine", module=nn.Linear(2, 2), example=torch.ones(2, 2), classes=2, factory=None)
    with pytest.raises(ModelError, match="or be made by a factory"):
        save_model(tmp_path / "net", model, model.module)


# Libraries ------------------------------------------------------------------------------------------------------


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(FactoryError, match=f"{library} must be installed .*pip install --no-deps {library}"):
            open_model(f"{library}:resnet18")
    with pytest.raises(ModelError, match=r"got 'resnet18'.*; not installed: torchvision, timm"):
        open_model("resnet18")


@pytest.mark.slow
def test_torchvisions_models_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        model = open_model("torchvision:resnet18", ["num_classes=7"])
    except FactoryError as error:
        pytest.skip(str(error))
    assert (model.input, model.classes) == ((3, 224, 224), 7)
    monkeypatch.setitem(sys.modules, "timm", None)
    assert open_model("resnet18", input="3x64x64").name == "torchvision:resnet18"
    assert open_model("torchvision:googlenet", input="3x64x64").classes == 1000
    video = open_model("torchvision:r3d_18", input="3x4x32x32")
    save_model(tmp_path / "video.safetensors", video, video.module)
    back = open_model(str(tmp_path / "video.safetensors"))
    assert torch.equal(back.module(back.example), video.module(video.example))
    for text, settings, size, message in (
        ("torchvision:resnte18", [], None, "did you mean 'resnet18'"),
        ("torchvision:r3d_18", [], None, "say it by --input"),
        ("torchvision:resnet18", ["weights=DEFAULT"], None, "cannot be set: weights come from a file"),
        ("torchvision:resnet18", ["nmu_classes=7"], None, "must make a module, but it raised TypeError"),
    ):
        with pytest.raises((ModelError, FactoryError), match=message):
            open_model(text, settings, input=size)
