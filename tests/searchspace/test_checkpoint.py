"""Checkpoints: to the bit and back, whole or refused."""

import json
import os
import threading

import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file
from strategies import architectures

from searchspace.architecture import (
    AdaptivePool,
    Architecture,
    ArchitectureError,
    Chain,
    Conv,
    Depthwise,
    Flatten,
    Linear,
    Norm,
)
from searchspace.checkpoint import FORMAT, CheckpointError, load, load_with_metadata, save
from searchspace.network import build, read_architecture
from searchspace.notation import to_json

NET = Architecture((3, 8, 8), Chain((Conv(8, 3, low=4), Norm(), AdaptivePool(), Flatten(), Linear(3))))


@given(a=architectures())
@settings(max_examples=25)
def test_a_network_comes_back_to_the_bit(a, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    network = build(a, 0)
    network.train()(torch.randn(3, *a.input))  # running statistics move
    save(path, network)
    back = load(path)
    assert back.architecture == a
    assert not back.training
    one, other = network.state_dict(), back.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) and one[k].dtype == other[k].dtype for k in one)
    x = torch.randn(2, *a.input)
    assert torch.equal(network.eval()(x), back(x))


def test_loaded_tensors_lie_aligned_so_that_outputs_are_equal_to_the_bit(tmp_path):
    body = Chain((Conv(12, 1), Depthwise(5, 2, bias=True), AdaptivePool(), Flatten(), Linear(3)))
    network = build(Architecture((5, 3, 6), body), 0).eval()
    save(tmp_path / "net.safetensors", network)
    back = load(tmp_path / "net.safetensors")
    assert [name for name, tensor in back.state_dict().items() if tensor.data_ptr() % 64] == []
    for seed in range(50):
        x = torch.randn(2, 5, 3, 6, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(network(x), back(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_kept(tmp_path, dtype):
    network = build(NET, 0).to(dtype)
    save(tmp_path / "net", network)
    back = load(tmp_path / "net")
    assert all(torch.equal(p, q) and p.dtype == q.dtype for p, q in zip(network.parameters(), back.parameters()))
    assert all(p.requires_grad for p in back.parameters())


def test_a_narrowed_network_is_saved_as_it_is(tmp_path):
    network = build(NET, 0)
    last = network.get_submodule("body.4")
    last.weight, last.bias = torch.nn.Parameter(last.weight[:2]), torch.nn.Parameter(last.bias[:2])
    save(tmp_path / "net", network)
    assert load(tmp_path / "net").architecture == read_architecture(network) != NET


def test_metadata_travels_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "net.safetensors"
    save(path, build(NET, 0), {"trial": "3"})
    _, metadata = load_with_metadata(path)
    assert metadata["trial"] == "3"
    assert os.listdir(path.parent) == ["net.safetensors"]


def test_what_no_architecture_describes_is_not_saved(tmp_path):
    network = build(NET, 0)
    network.body.add_module("extra", torch.nn.ReLU())
    with pytest.raises(ArchitectureError, match=r"body\.extra"):
        save(tmp_path / "net", network)
    assert os.listdir(tmp_path) == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: there must be a network file here, but there is none"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, share):
    path = tmp_path / "net"
    save(path, build(NET, 0))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="net: must be a network file of this format, but"):
        load(path)


@pytest.mark.parametrize("at", [0, 8, 12, 60])
def test_a_corrupt_header_is_refused(tmp_path, at):
    path = tmp_path / "net"
    save(path, build(NET, 0))
    data = bytearray(path.read_bytes())
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="net: must be a network file"):
        load(path)


@pytest.mark.parametrize("content", [b"not a network", b"PK\x03\x04" + bytes(100), bytes(8)])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(CheckpointError, match="must be a network file of this format"):
        load(tmp_path / "net")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="must be a network file of this format"):
        load(tmp_path)


GOOD = json.dumps(to_json(NET))


@pytest.mark.parametrize(
    ("metadata", "rule"),
    [
        (None, "the format must be 'network/1', but got None"),
        ({"format": "network/2"}, "the format must be 'network/1', but got 'network/2'"),
        ({"format": FORMAT}, "must be a network file of this format, but 'architecture'"),
        ({"format": FORMAT, "architecture": "{"}, "must be a network file of this format"),
        ({"format": FORMAT, "architecture": "{}"}, "format 'architecture/1', but got None"),
        ({"format": FORMAT, "architecture": GOOD}, "Missing key"),
    ],
)
def test_a_safetensors_file_of_something_else_is_refused(tmp_path, metadata, rule):
    save_file({"x": torch.ones(2)}, tmp_path / "net", metadata=metadata)
    with pytest.raises(CheckpointError, match=rule):
        load(tmp_path / "net")


def test_only_files_of_its_own_name_appear_while_a_network_is_written(tmp_path):
    """Who tidies the folder meanwhile knows them by that name."""
    network, seen, over = build(NET, 0), set(), threading.Event()

    def watch():
        while not over.is_set():
            seen.update(os.listdir(tmp_path))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        for number in range(100):
            save(tmp_path / f"mine-{number}.safetensors", network)
    finally:
        over.set()
        watching.join()
    assert len(seen) > 50
    assert {name for name in seen if not name.removeprefix(".").startswith("mine-")} == set()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "net"
    save(path, build(NET, 0))
    before = path.read_bytes()

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save(path, build(NET, 1))
    assert path.read_bytes() == before
