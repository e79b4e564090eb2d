"""Pruned modules of others on disk: to the bit and back, trained and pruned again, whole or refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign_modules import Wired
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pruning.checkpoint import FORMAT, load, load_all, save
from pruning.regroup import regroup
from searchspace.checkpoint import CheckpointError
from searchspace.factory import Factory
from searchspace.layers import Select

WIRED = Factory(name="foreign_modules:wired", arguments={"width": 12})


def data(batch: int = 4, dims: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, 3, *(8, 7, 5)[:dims], generator=torch.Generator().manual_seed(1)).to(dtype)


def trained(module: Wired, steps: int = 3) -> Wired:
    """`module` after a few steps, so that statistics and weights are nobody's first values."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        step(module, optimizer, data(dims=module.stem.weight.dim() - 2, dtype=module.stem.weight.dtype))
    return module.eval()


def step(module: Wired, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    module.train()
    optimizer.zero_grad()
    logits, auxiliary = module(x)
    (logits.square().mean() + auxiliary.square().mean()).backward()
    optimizer.step()
    module.eval()


def narrowed(module: Wired, keep: list[int]) -> Wired:
    """A copy with the hidden channels `keep`, an even number; runnable, not the same function."""
    module = copy.deepcopy(module)
    stem, conv, mix, width = module.stem, module.block[0], module.mix, len(keep)

    def cut(owner: nn.Module, name: str, tensor: Tensor) -> None:
        old = getattr(owner, name)
        is_parameter = isinstance(old, nn.Parameter)
        setattr(owner, name, nn.Parameter(tensor.clone(), old.requires_grad) if is_parameter else tensor.clone())

    cut(stem, "weight", stem.weight.detach()[keep])
    stem.out_channels = width
    stem.bias = nn.Parameter(torch.linspace(-1, 1, width, dtype=stem.weight.dtype))  # it had none
    for norm in (module.norm, module.block[1]):
        for name in ("weight", "bias", "running_mean", "running_var"):
            cut(norm, name, getattr(norm, name).detach()[keep])
        norm.num_features = width
    cut(conv, "weight", conv.weight.detach()[keep][:, keep])
    cut(mix, "weight", mix.weight.detach()[keep][:, : width // 2])
    cut(mix, "bias", mix.bias.detach()[keep])
    for part in (conv, mix):
        part.in_channels = part.out_channels = width
    module.shuffle = Select((*range(1, width), 0), width)
    module.head.weight = module.aux.weight = nn.Parameter(module.head.weight.detach()[:, keep].clone())
    module.head.in_features = module.aux.in_features = width
    return module


def assert_same(module: Wired, back: nn.Module, x: Tensor) -> None:
    """Tensors, settings and outputs equal to the bit, in evaluation and in training mode."""
    assert repr(module) == repr(back)
    assert type(module) is type(back)
    one, other = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (module, back))
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
        assert (one[name].dtype, one[name].stride(), one[name].requires_grad) == (
            other[name].dtype, other[name].stride(), other[name].requires_grad
        ), name  # fmt: skip
    with torch.no_grad():
        assert torch.equal(module(x), back(x))
        for m in (module, back):
            m.train()
        for a, b in zip(module(x), back(x), strict=True):
            assert torch.equal(a, b)


KEEP = [0, 1, 2, 3, 5, 6, 8, 11]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_narrowed_module_comes_back_to_the_bit(tmp_path: Path, dims: int, dtype: torch.dtype) -> None:
    factory = Factory(name="foreign_modules:Wired", arguments={"width": 12, "dims": dims})
    module = narrowed(trained(factory.make().to(dtype)), KEEP)  # type: ignore[arg-type]
    module.mix.weight.requires_grad_(False)
    save(tmp_path / "a" / "net", module, factory)
    back = load(tmp_path / "a" / "net")
    assert back.again is back.block
    assert back.aux.weight is back.head.weight
    assert not any(part.training for part in back.modules())
    assert_same(module, back, data(dims=dims, dtype=dtype))


def test_it_trains_on_as_if_it_had_never_been_saved(tmp_path: Path) -> None:
    module = narrowed(trained(WIRED.make()), KEEP)  # type: ignore[arg-type]
    save(tmp_path / "net", module, WIRED)
    back = load(tmp_path / "net")
    for net in (module, back):
        step(net, torch.optim.SGD(net.parameters(), lr=0.1), data())
    assert_same(module, back, data())
    assert len(list(back.parameters())) == len(list(module.parameters()))


def test_what_was_loaded_is_narrowed_and_saved_again(tmp_path: Path) -> None:
    save(tmp_path / "one", narrowed(trained(WIRED.make()), KEEP), WIRED, {"proof": "1e-16"}, (3, 8, 7))  # type: ignore[arg-type]
    first = load_all(tmp_path / "one")
    assert (first.factory, first.input, first.metadata) == (WIRED, (3, 8, 7), {"proof": "1e-16"})
    again = narrowed(trained(first.module), [0, 2, 4, 7])  # type: ignore[arg-type]
    save(tmp_path / "two", again, first.factory)
    assert_same(again, load(tmp_path / "two"), data())
    assert again.stem.out_channels == 4


def test_a_module_without_edits_and_a_frozen_channels_last_one(tmp_path: Path) -> None:
    module = trained(WIRED.make()).to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[arg-type, call-overload]
    save(tmp_path / "net", module, WIRED)
    back = load(tmp_path / "net")
    assert back.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert_same(module, back, data())
    assert json.loads(record(tmp_path / "net")["pruned"])["edits"] == {}


def test_a_regrouped_convolution_that_runs_twice_comes_back(tmp_path: Path) -> None:
    module = trained(WIRED.make())  # type: ignore[arg-type]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    blocks = torch.block_diag(*[torch.ones(3, 3)] * 4)[order][:, order.flip(0)]
    with torch.no_grad():
        module.block[0].weight *= blocks[..., None, None]
    regrouped = regroup(module, data(), ["block.0"]).network
    save(tmp_path / "net", regrouped, WIRED)
    back = load(tmp_path / "net")
    inner = [part for part in back.block[0] if isinstance(part, nn.Conv2d)]
    assert [part.groups for part in inner] == [4]
    assert_same(regrouped, back, data())


def record(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


# What a file cannot hold is refused when it is saved -------------------------------------------------------------


def grown(net: Wired) -> None:
    net.shuffle = nn.Softmax(1)  # type: ignore[assignment]


def added(net: Wired) -> None:
    net.extra = nn.ReLU()


def dropped(net: Wired) -> None:
    del net.aux


def unbiased(net: Wired) -> None:
    net.mix.bias = None


def parted(net: Wired) -> None:
    net.again = copy.deepcopy(net.block)
    net.again[2].inplace = True


def retyped(net: Wired) -> None:
    net.stem.out_channels = "twelve"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (grown, "only a Select or a Sequential may stand .* but shuffle is now a Softmax"),
        (added, "extra is now a ReLU"),
        (dropped, r"every tensor must be there, but aux\.bias is not"),
        (unbiased, r"every tensor must be there, but mix\.bias is not"),
        (parted, r"inplace of block\.2 was True, now it is False"),
        (retyped, "out_channels of stem was 12, now it is 'twelve'"),
    ],
)
def test_what_edits_cannot_say_is_not_saved(tmp_path: Path, change: Callable[[Wired], None], message: str) -> None:
    module = WIRED.make()
    change(module)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=message) as caught:
        save(tmp_path / "net", module, WIRED)
    assert "must be what foreign_modules:wired(width=12) makes" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_another_factorys_module_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the module is now a Linear"):
        save(tmp_path / "net", nn.Linear(2, 2), WIRED)


# Files that are not whole, or whose factory changed --------------------------------------------------------------


SOURCE = """
from torch import nn
def make() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
"""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 16, 3)", "weight of 0 was 8x3x3x3, now it is 16x3x3x3"),
        ("nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, 3, stride=2)", r"stride of 0 was \[1, 1\], now it is \[2, 2\]"),
        ("nn.ReLU()", "nn.ReLU(), nn.Tanh()", "class of 2 was torch.*Flatten, now it is torch.*Tanh"),
        (", nn.Flatten()", "", r"2 \(torch.*Flatten\) is gone"),
        ("nn.ReLU()", "None.nothing", "must make a module, but it raised AttributeError"),
        ("def make", "def made", "must have make, but it has none; did you mean 'made'"),
        ("from torch", "from troch", "must be importable, but it raised ModuleNotFoundError: No module named 'troch'"),
    ],
)
def test_a_factory_that_changed_is_named_with_the_first_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, message: str
) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "maker_of_layers.py").write_text(SOURCE)
    factory = Factory(name="maker_of_layers:make")
    try:
        save(tmp_path / "net", factory.make(), factory)
        (tmp_path / "maker_of_layers.py").write_text(SOURCE.replace(before, after))
        forget("maker_of_layers")
        with pytest.raises(CheckpointError, match=message) as caught:
            load(tmp_path / "net")
    finally:
        forget("maker_of_layers")
    assert str(tmp_path / "net") in str(caught.value)
    assert "\n" not in str(caught.value)


def forget(module: str) -> None:
    import sys

    sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("os:mkdir", {"path": "ran"}),
        ("pathlib:Path.mkdir", {"self": "ran"}),
        ("subprocess:call", {"args": ["mkdir", "ran"]}),
        ("torch:load", {"f": "net", "weights_only": False}),
        ("foreign_modules:unsaid", {"path": "ran"}),
    ],
)
def test_a_file_cannot_call_what_does_not_say_that_it_makes_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: dict[str, object]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "net", WIRED.make(), WIRED)
    tensors, header = parts(tmp_path / "net")
    pruned = {**json.loads(header["pruned"]), "factory": name, "arguments": arguments}
    save_file(tensors, tmp_path / "net", {**header, "pruned": json.dumps(pruned)})
    with pytest.raises(CheckpointError, match=f"{name}: a file may name only a torch.nn.Module class, or a function"):
        load(tmp_path / "net")
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_what_a_file_may_not_name_is_not_saved(tmp_path: Path) -> None:
    factory = Factory(name="foreign_modules:unsaid", arguments={"path": str(tmp_path / "ran")})
    with pytest.raises(CheckpointError, match=r"write `-> torch.nn.Module` behind its arguments"):
        save(tmp_path / "net", WIRED.make(), factory)
    assert list(tmp_path.iterdir()) == []


def test_a_factory_that_is_missing_is_named(tmp_path: Path) -> None:
    save(tmp_path / "net", WIRED.make(), WIRED)
    tensors, header = parts(tmp_path / "net")
    pruned = {**json.loads(header["pruned"]), "factory": "nobody_has_this.net:make"}
    save_file(tensors, tmp_path / "net", {**header, "pruned": json.dumps(pruned)})
    with pytest.raises(CheckpointError, match=r"nobody_has_this\.net must be a module that Python can import"):
        load(tmp_path / "net")


def parts(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118


BLOCK = (
    "0.weight",
    *(f"1.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
)
TIES = {"aux.weight": "head.weight", **{f"again.{leaf}": f"block.{leaf}" for leaf in BLOCK}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edits": {"shuffle": {"replace": {"kind": "os.system"}}}}, "must be of a known kind, but got 'os.system'"),
        ({"edits": {"stem": {"set": {"forward": 1}}}}, "forward of stem must be a NoneType, but got 1"),
        ({"edits": {"stem": {"set": {"out_channels": "x"}}}}, "out_channels of stem must be a int, but got 'x'"),
        ({"edits": {"nowhere": {"set": {}}}}, "its record is damaged .*nowhere"),
        ({"edits": []}, "its record is damaged"),
        ({"ties": {**TIES, "aux.weight": "nowhere.weight"}}, "place for the tensor nowhere.weight, but there is none"),
        ({"arguments": {"width": "x"}}, "foreign_modules:wired.width='x'. must make a module, but it raised TypeError"),
        ({"factory": "foreign_modules"}, "A factory must be named package.module:function"),
        ({"factory": None}, "its record is damaged"),
        ({"input": "large"}, "its record is damaged"),
    ],
)
def test_a_record_of_something_else_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    save(tmp_path / "net", WIRED.make(), WIRED)
    tensors, header = parts(tmp_path / "net")
    save_file(tensors, tmp_path / "net", {**header, "pruned": json.dumps({**json.loads(header["pruned"]), **change})})
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "net")


def test_a_tensor_too_few_and_a_tensor_too_many_are_named(tmp_path: Path) -> None:
    save(tmp_path / "net", WIRED.make(), WIRED)
    tensors, header = parts(tmp_path / "net")
    weight = tensors.pop("mix.weight")
    save_file(tensors, tmp_path / "few", header)
    with pytest.raises(CheckpointError, match=r"every tensor must be there, but mix\.weight is not"):
        load(tmp_path / "few")
    save_file({**tensors, "mix.weight": weight, "mix.more": weight.clone()}, tmp_path / "many", header)
    with pytest.raises(CheckpointError, match=r"place for the tensor mix\.more"):
        load(tmp_path / "many")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "pruned/2"}, f"format must be '{FORMAT}', but got 'pruned/2'; another version .* reads it"),
        ({"format": "network/1"}, f"format must be '{FORMAT}', but got 'network/1'"),
        (None, f"format must be '{FORMAT}', but got None"),
        ({"format": FORMAT}, "its record is damaged"),
        ({"format": FORMAT, "pruned": "{"}, "its record is damaged"),
        ({"format": FORMAT, "pruned": "[" * 100_000}, "its record is damaged"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / "net", metadata)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "net")


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_file_of_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(CheckpointError, match="net: must be a network file"):
        load(tmp_path / "net")
    with pytest.raises(CheckpointError, match="there is none"):
        load(tmp_path / "nowhere")


def test_tensors_that_share_memory_are_saved_apart(tmp_path: Path) -> None:
    module = WIRED.make()
    module.norm.running_mean = module.norm.running_var[:]  # type: ignore[index, assignment]
    save(tmp_path / "net", module, WIRED)
    assert torch.equal(load(tmp_path / "net").norm.running_mean, torch.ones(12))
