"""Statistics agree with brute force on stored activations, and what is planted is found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.inspect import text
from pruning.edges import maps
from pruning.exact import remove_dead
from pruning.pairs import drawn
from pruning.places import PruneError
from pruning.report import HEAD, Channel, Layer, Report, Thresholds
from pruning.statistics import inspect
from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Flatten,
    Linear,
    Norm,
    Shuffle,
    SqueezeExcite,
)
from searchspace.network import Network

Make = Callable[..., Network]
Kill = Callable[..., None]
EVERYWHERE = 10**9  # positions: no place is left out
HEADS = (AdaptivePool(), Flatten(), Linear(3))


def inputs(*size: int, batches: int = 3, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(8, *size, generator=rng) for _ in range(batches)]


def inspected(module: nn.Module, data: Iterable[Tensor], **options: object) -> Report:
    """`inspect`, after checking what it promises of any module."""
    before = {name: t.clone() for name, t in module.state_dict().items()}
    report = inspect(module, data, **options)  # type: ignore[arg-type]
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    json.dumps(report.to_json())
    assert all(len(row) == len(HEAD) for row in report.rows())
    assert report.samples == sum(map(len, data))
    return report


def only(report: Report, name: str) -> Layer:
    return next(layer for layer in report.layers if layer.name == name)


def channel(report: Report, name: str, number: int) -> Channel:
    return only(report, name).channels[number]


def stored(module: nn.Module, data: Iterable[Tensor], name: str) -> tuple[Tensor, Tensor]:
    """(inputs, outputs) of a submodule over all batches, in float32."""
    seen: list[tuple[Tensor, Tensor]] = []
    plain = copy.deepcopy(module).float().eval()
    plain.get_submodule(name).register_forward_hook(lambda _, x, y: seen.append((x[0].clone(), y.clone())))
    with torch.no_grad():
        for x in data:
            plain(x)
    return torch.cat([x for x, _ in seen]), torch.cat([y for _, y in seen])


def brute(layer: nn.Module, x: Tensor) -> Tensor:
    """(filters, inputs / groups): each correlation from the whole map of its contribution."""
    assert isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear)
    y = layer(x).double().transpose(0, 1).flatten(1)
    groups = getattr(layer, "groups", 1)
    found = torch.zeros(layer.weight.shape[:2])
    for o in range(len(found)):
        for c in range(found.shape[1]):
            column = o // (len(found) // groups) * found.shape[1] + c
            part, kernel = x[:, column : column + 1], layer.weight[o : o + 1, c : c + 1]
            if isinstance(layer, nn.Linear):
                made = F.linear(part, kernel)
            else:
                convolve = F.conv2d if isinstance(layer, nn.Conv2d) else F.conv3d
                made = convolve(part, kernel, None, layer.stride, layer.padding, layer.dilation)  # type: ignore[arg-type]
            both = torch.stack([made.double().flatten(), y[o]])
            found[o, c] = torch.corrcoef(both)[0, 1].nan_to_num(0.0)  # of a constant
    return found


# closed forms and brute force


def chain(dims: int) -> nn.Sequential:
    torch.manual_seed(0)
    conv, norm, pool = (
        (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d)
        if dims == 2
        else (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d)
    )
    return nn.Sequential(
        *(conv(2, 6, 3, padding=1), norm(6), nn.ReLU()),
        *(conv(6, 8, 3, stride=2, padding=2, dilation=2, groups=2), nn.ReLU()),
        *(conv(8, 8, 3, padding=1, groups=8), nn.ReLU6(), conv(8, 5, 1), nn.SiLU()),
        *(pool(1), nn.Flatten(), nn.Linear(5, 3)),
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_every_number_equals_brute_force_on_stored_activations(dims: int) -> None:
    module, data = chain(dims), inputs(2, *(7 for _ in range(dims)))
    report = inspected(module, data, positions=EVERYWHERE)
    after = {"0": "2", "3": "4", "5": "6", "7": "8", "11": "11"}
    assert [layer.name for layer in report.layers] == list(after)
    for name, follows in after.items():
        layer, (_, y) = only(report, name), stored(module, data, follows)
        flat = y.transpose(0, 1).flatten(1)
        assert [c.mean for c in layer.channels] == pytest.approx(flat.mean(1).tolist(), abs=1e-6)
        assert [c.deviation for c in layer.channels] == pytest.approx(flat.std(1, correction=0).tolist(), abs=1e-6)
        if name == "11":
            assert layer.apoz == []
            assert layer.activation == ""
        else:
            assert layer.apoz == pytest.approx((flat == 0).double().mean(1).tolist(), abs=1e-12)
            assert layer.activation.startswith(f"{follows}: ")
        inner = module.get_submodule(name)
        if name == "5":  # depthwise: one input a filter
            assert layer.weak is None
            continue
        x, _ = stored(module, data, name)
        with torch.no_grad():
            assert torch.allclose(layer.matrices[name], brute(inner, x), atol=1e-5)
        assert layer.weak is not None
        assert sum(layer.weak.histogram) == layer.matrices[name].numel()
        groups = getattr(inner, "groups", 1)
        whole = layer.matrix()
        assert whole is not None
        assert whole.shape == (len(layer.channels), x.shape[1])
        assert int(whole.isnan().sum()) == whole.numel() - whole.numel() // groups


def test_some_places_give_nearly_the_same_correlations_and_always_the_same_ones() -> None:
    module, data = chain(2), inputs(2, 24, 24, batches=8)
    all_, some, again, other = (
        only(inspected(module, data, **how), "3")
        for how in ({"positions": EVERYWHERE}, {"positions": 4096}, {"positions": 4096}, {"positions": 4096, "seed": 1})
    )
    assert all_.weak is not None
    assert some.weak is not None
    assert (all_.weak.positions, some.weak.positions) == (64 * 12 * 12, 4096)
    assert torch.equal(some.matrices["3"], again.matrices["3"])
    assert not torch.equal(some.matrices["3"], other.matrices["3"])
    assert (all_.matrices["3"] - some.matrices["3"]).abs().max() < 0.08  # 5 standard deviations of 1 / sqrt(4096)


def test_places_are_drawn_without_repetition_in_every_sample() -> None:
    sample, place = drawn(5, 100, 30, torch.Generator().manual_seed(0))
    assert sample.tolist() == [n for n in range(5) for _ in range(30)]
    assert all(len(set(place[sample == n].tolist())) == 30 for n in range(5))
    assert sorted(place.tolist()) != place.tolist()
    assert drawn(2, 3, 30, torch.Generator())[1].tolist() == [0, 1, 2, 0, 1, 2]


def test_apoz_is_the_share_of_zeros_over_all_samples() -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 1, 1))
    with torch.no_grad():
        module[0].weight[:] = torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1, 1)
        module[0].bias[:] = torch.tensor([0.0, 0.0, -10.0])
    ramp = torch.arange(-3.0, 7.0).view(1, 1, 2, 5)  # 4 of 10 at most 0, 7 at least 0
    report = inspected(module, [ramp, ramp + 0.0, ramp])
    assert only(report, "0").apoz == [0.4, 0.7, 1.0]
    dead = channel(report, "0", 2)
    assert (dead.zero, dead.dead, dead.removable, dead.cause) == (True, "everywhere", True, "zero on all 3 samples")
    assert channel(report, "0", 0).live_for == ("2",)


# what is planted is found


class Wired(nn.Module):
    """A split of ways: a sum, a gate spelled out, a concatenation of one map with another of the same channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.side, self.side_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.ghost = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.left, self.right = nn.Conv2d(16, 4, 1), nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        side = self.side_norm(self.side(x))
        side = side * torch.sigmoid(side)
        both = torch.cat([side, F.relu(self.ghost(side))], 1)
        left, right = F.relu(self.left(both)), self.right(x)
        return self.head(torch.cat([left, right], 1).mean((2, 3)))


def test_channels_are_followed_through_gates_concatenations_and_branches() -> None:
    module, data = Wired(), inputs(1, 9, 9)
    with torch.no_grad():
        module.left.weight[:, [5, 13]] = 0  # channel 5 of side and of ghost
        module.right.weight[:, 2] = 0
        module.head.weight[:, 9] = 0
    report = inspected(module, data, positions=EVERYWHERE)
    named = {layer.name: layer.activation for layer in report.layers}
    assert named == {
        "stem": "forward: relu",
        "side": "forward: mul",
        "ghost": "forward: relu",
        "left": "forward: relu",
        "right": "",
        "head": "",
    }
    x, norms = stored(module, data, "norm")[1].relu(), stored(module, data, "side_norm")[1]
    ghost = stored(module, data, "ghost")[1].relu()
    assert only(report, "stem").apoz == pytest.approx((x == 0).double().mean((0, 2, 3)).tolist())
    assert [c.mean for c in only(report, "side").channels] == pytest.approx(
        F.silu(norms).mean((0, 2, 3)).tolist(), abs=1e-6
    )
    assert only(report, "ghost").apoz == pytest.approx((ghost == 0).double().mean((0, 2, 3)).tolist())
    for name in ("side", "ghost"):
        assert (channel(report, name, 5).dead_for, channel(report, name, 4).live_for) == (("left",), ("left",))
    some = channel(report, "stem", 2)
    assert (some.dead, some.dead_for, some.live_for) == ("for some", ("right",), ("side",))
    assert channel(report, "right", 5).dead == "everywhere"
    assert channel(report, "head", 0).live_for == ("the output",)
    assert "dead      stem: channel 2: for right, not for side" in text(report)


def test_what_is_removable_is_what_leaves_and_causes_are_told_apart() -> None:
    module, data = Wired(), inputs(1, 9, 9)
    with torch.no_grad():
        module.norm.weight[[1, 2]], module.norm.bias[1], module.norm.bias[2] = 0, -1, 0.5
        module.norm.bias[3] = -50  # dies on data alone
        module.side.weight[4] = 0
        module.stem.weight[7], module.stem.bias[7] = module.stem.weight[6], module.stem.bias[6]
        module.right.weight[0] = 0
    report = inspected(module, data)
    stem = only(report, "stem").channels
    assert (stem[1].value, stem[1].cause) == (0, "norm scale 0")
    assert (stem[2].value, stem[2].cause) == (0.5, "norm scale 0")
    assert (stem[3].value, stem[3].cause, stem[3].apoz) == (0, "zero on all 24 samples", 1.0)
    assert channel(report, "side", 4).cause in ("zero filter", "norm of a constant")
    assert channel(report, "right", 0).constant
    (pair,) = only(report, "stem").equal
    assert (pair.first, pair.second, pair.correlation) == (("stem", 6), ("stem", 7), None)
    assert only(report, "stem").close == ()
    removed = remove_dead(module, data, example=data[0]).removed
    for layer in report.layers:
        if layer.name != "ghost":  # its channels are those of side
            assert [c.channel for c in layer.channels if c.removable] == [
                c.channel for c in removed.get(layer.name, ())
            ]


def test_a_constant_in_a_sum_stays_with_its_reason(make: Make, kill: Kill) -> None:
    block = Add((Chain((Conv(8, 3), Norm(), Activation(), Conv(8, 3), Norm())), Chain(())))
    network = make((2, 8, 8), Conv(8, 3), Norm(), Activation(), block, Activation(), *HEADS).float()
    name = next(name for name, m in reversed(list(network.named_modules())) if isinstance(m, nn.BatchNorm2d))
    kill(network, name, [3], 0.25)
    report = inspected(network, inputs(2, 8, 8))
    layer = next(layer for layer in report.layers if layer.summed)
    found = layer.channels[3]
    assert (found.value, found.cause, found.removable) == (0.25, "norm scale 0", False)
    assert found.reason == "is added to a channel that varies"
    assert found.apoz is not None
    assert found.apoz < 1  # of the sum
    assert f"stays     {layer.name}: channel 3: is added to a channel that varies" in text(report)


@pytest.mark.parametrize("size", [(2, 8, 8), (2, 4, 8, 8)], ids=["2d", "3d"])
def test_an_octave_convolution_is_one_layer_with_its_high_channels_first(
    make: Make, kill: Kill, size: tuple[int, ...]
) -> None:
    network = make(
        size,
        Conv(8, 3, low=4),
        Norm(),
        Activation(),
        Conv(12, 3, low=4),
        Norm(),
        Activation(),
        Conv(6),
        Activation(),
        *HEADS,
    )
    network = network.float()
    kill(network, "body.4", [1, 9], -1.0)
    report, data = inspected(network, inputs(*size), positions=EVERYWHERE), inputs(*size)
    layer = only(report, "body.3")
    assert len(layer.channels) == 12
    high, low = (stored(network, data, f"body.5.{part}")[1] for part in ("high", "low"))
    zeros = [(y == 0).double().transpose(0, 1).flatten(1).mean(1) for y in (high, low)]
    assert layer.apoz == pytest.approx(torch.cat(zeros).tolist())
    assert {1, 9} <= {c.channel for c in layer.channels if c.removable}
    assert [c.removable for c in layer.channels] == [c.zero for c in layer.channels] == [a == 1 for a in layer.apoz]
    assert {layer.channels[c].cause for c in (1, 9)} == {"norm scale 0"}
    assert not layer.summed
    whole = layer.matrix()
    assert whole is not None
    assert whole.shape == (12, 8)
    inner = network.get_submodule("body.3")
    parts = {"hh": (slice(0, 8), slice(0, 4)), "ll": (slice(8, 12), slice(4, 8)), "lh": (slice(0, 8), slice(4, 8))}
    for key, place in parts.items():
        x, _ = stored(network, data, f"body.3.{key}")
        with torch.no_grad():
            assert torch.allclose(whole[place], brute(inner.get_submodule(key), x), atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_block_correlated_filters_give_their_group_count(dims: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    module = nn.Sequential(conv(12, 24, 3, padding=1), nn.ReLU(), conv(24, 4, 1))
    inside = torch.randperm(24)[:, None] % 4 == torch.randperm(12)[None] % 4
    with torch.no_grad():
        module[0].weight[~inside] *= 1e-4
    data = inputs(12, *(6 for _ in range(dims)))
    layer = only(inspected(module, data), "0")
    assert layer.weak is not None
    assert layer.weak.groups_supported == 4
    assert layer.weak.share == pytest.approx(0.75)
    assert layer.weak.power < 1e-6
    assert layer.edges is not None
    assert layer.edges.groups_supported == 1  # no weight is zero
    strong = layer.matrix(strong=True)
    assert strong is not None
    assert torch.equal(~strong.isnan(), inside)
    (edges,) = (e for e in (only(inspect(module, data, thresholds=Thresholds(negligible=0.01)), "0").edges,) if e)
    assert (edges.groups_supported, edges.negligible) == (4, 24 * 9)


def test_nearly_doubled_channels_are_found_with_their_sign() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 1))
    with torch.no_grad():
        first = module[0].weight
        first[3] = 2 * first[1] + 1e-3 * torch.randn_like(first[1])
        first[5] = -first[0] + 1e-3 * torch.randn_like(first[1])
    data = inputs(2, 9, 9)
    layer = only(inspected(module, data, positions=EVERYWHERE), "0")
    found = {(pair.first[1], pair.second[1]): pair.correlation for pair in layer.close}
    y = stored(module, data, "0")[1].transpose(0, 1).flatten(1)
    wanted = torch.corrcoef(y.double())
    assert found.keys() == {(1, 3), (0, 5)}
    assert all(r == pytest.approx(float(wanted[pair]), abs=1e-6) for pair, r in found.items())
    assert found[0, 5] is not None
    assert found[0, 5] < -0.99
    assert layer.doubled == 2


def test_coefficients_that_dilute_a_channel_are_counted_by_what_they_contribute() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 3, 1))
    with torch.no_grad():
        module[0].weight[:] = torch.tensor([1.0, 1.0, 1e-4, 1.0]).view(4, 1, 1, 1)
        module[1].weight[:] = torch.tensor([[1.0, 0.5, 1.0, 1e-3], [0.2, 1.0, 1.0, 0.5], [0, 1.0, 1.0, 1e-3]])[
            ..., None, None
        ]
    diluted = only(inspected(module, inputs(1, 6, 6)), "1").diluted
    assert diluted is not None
    assert (diluted.coefficients, diluted.tiny, diluted.inputs) == (11, 5, (2,))


def test_edges_are_those_of_the_edge_report(make: Make) -> None:
    network = make((2, 6, 6), Conv(8, 3), Activation(), Conv(8, 3), Activation(), *HEADS).float()
    (part,) = maps(network.get_submodule("body.2"))  # type: ignore[arg-type]
    with torch.no_grad():
        part.module.weight[:3, :4] = 0
    edges = only(inspected(network, inputs(2, 6, 6)), "body.2").edges
    assert edges is not None
    assert (edges.zero, edges.edges) == (12, 64)


def test_shuffles_gates_and_parallel_branches_of_our_networks(make: Make) -> None:
    branches = Concat((Chain((Conv(6, groups=2), Norm(), Activation())), Chain((Conv(6, 3), Activation()))))
    network = make(
        *((2, 8, 8), Conv(8, 3), Norm(), Activation(), branches, Shuffle(3), Conv(12, groups=3), Norm()),
        *(Depthwise(3), Norm(), Activation(), SqueezeExcite(4), *HEADS),
    ).float()
    report, data = inspected(network, inputs(2, 8, 8)), inputs(2, 8, 8)
    for layer in report.layers:
        if layer.activation:
            _, y = stored(network, data, layer.activation.split(":")[0])
            zeros = (y == 0).double().transpose(0, 1).flatten(1).mean(1).tolist()
            assert layer.apoz == pytest.approx(zeros), layer.name
    assert sum(bool(layer.activation) for layer in report.layers) >= 5
    readers = {layer.name: {n for c in layer.channels for n in c.live_for} for layer in report.layers}
    assert all(readers.values())


@pytest.mark.parametrize("spelled", [True, False], ids=["views", "module"])
def test_readers_are_known_behind_a_shuffle(spelled: bool) -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.left, self.right, self.shuffle = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3), nn.ChannelShuffle(2)
            self.even, self.odd = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([F.relu(self.left(x)), self.right(x)], 1)
            if spelled:
                n, c, h, w = x.shape
                x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
            else:
                x = self.shuffle(x)
            first, second = x.chunk(2, 1)  # left 0, right 0, left 1, right 1; left 2, ...
            return self.even(first) + self.odd(second)

    module = Shuffled()
    with torch.no_grad():
        module.even.weight[:, 3] = 0
    report = inspected(module, inputs(2, 8, 8))
    readers = {layer.name: [c.dead_for + c.live_for for c in layer.channels] for layer in report.layers[:2]}
    halves = [("even",), ("even",), ("odd",), ("odd",)]
    assert readers == {"left": halves, "right": halves}
    assert [c.dead for layer in report.layers[:2] for c in layer.channels] == [""] * 5 + ["everywhere"] + [""] * 2
    assert [c.channel for c in only(report, "right").channels if c.removable] in ([], [1])


def test_a_layer_that_runs_twice_is_measured_over_both_runs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.conv(self.act(self.conv(x))))

    torch.manual_seed(0)
    module, data = Twice(), inputs(3, 6, 6)
    _, y = stored(module, data, "act")
    (layer,) = inspected(module, data).layers
    assert layer.apoz == pytest.approx((y == 0).double().transpose(0, 1).flatten(1).mean(1).tolist())


# what cannot be


def test_a_module_that_cannot_be_pruned_is_inspected_all_the_same() -> None:
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 4, 3)), nn.ReLU(), nn.Conv2d(4, 3, 1))
    report = inspected(module, inputs(2, 6, 6))
    assert "parametrized" in report.refusal
    assert {c.removable for layer in report.layers for c in layer.channels} == {None}
    assert "What is removable is not known: " in text(report)


def test_a_module_whose_operations_depend_on_the_input_is_refused_by_name() -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.some, self.other = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return (self.some if x.dtype == torch.float64 else self.other)(x)

    with pytest.raises(PruneError, match=r"the same operations on every input.*: convolution in some"):
        inspect(Fickle(), inputs(2, 6, 6))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "At least 2 samples must be given to see what varies, but got 0"),
        ([torch.ones(1, 2, 8, 8)], "At least 2 samples must be given to see what varies, but got 1"),
        ([torch.ones(4, 3, 8, 8)], r"A module must run on batches of \(3, 8, 8\), but:"),
        ([torch.ones(4, 2, 8, 8), torch.ones(4, 2, 9, 9)], r"of one shape, but got \(4, 2, 9, 9\)"),
        ([torch.full((4, 2, 8, 8), torch.nan)], "Batches must be finite"),
        (["images"], "Batches must be tensors of .* but got str"),
    ],
)
def test_bad_batches_are_refused_by_rule(data: list[Tensor], message: str) -> None:
    with pytest.raises(PruneError, match=message):
        inspect(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), data)


def test_a_network_refuses_another_size_and_a_module_without_layers_has_nothing_to_inspect(make: Make) -> None:
    with pytest.raises(PruneError, match=r"Each batch must be a tensor of \(batch, 2, 6, 6\), but got \(8, 2, 8, 8\)"):
        inspect(make((2, 6, 6), Conv(4, 3), *HEADS), inputs(2, 8, 8))
    with pytest.raises(PruneError, match="must have a convolution or linear layer that runs"):
        inspect(nn.ReLU(), inputs(2, 8, 8))
    with pytest.raises(ValueError, match="`weak` must be at least 0 and below 1, but got 1"):
        Thresholds(weak=1.0)
