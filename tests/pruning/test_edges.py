"""Dead edges are counted, block-diagonal layers regrouped into the most groups, and the function stays."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from math import gcd

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import pruning.regroup
from experiments.edges import record, text
from pruning.edges import Edges, edges, maps
from pruning.packing import most_groups, pack
from pruning.proof import PruneError
from pruning.regroup import Regrouped, regroup
from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Architecture,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Flatten,
    Leaf,
    Linear,
    Norm,
    Select,
    Shuffle,
    SqueezeExcite,
    Tap,
)
from searchspace.checkpoint import load, save
from searchspace.cost import trace_flops
from searchspace.layers import OctaveConv
from searchspace.network import Network, build, read_architecture

Make = Callable[..., Network]

HEAD = (AdaptivePool(), Flatten(), Linear(3))
SIZE = (2, 6, 6)


def plant(layer: nn.Module, groups: int, seed: int = 0) -> None:
    """Zero the edges of a convolution but for `groups` equal blocks of channels drawn at random."""
    rng = torch.Generator().manual_seed(seed)
    group: dict[tuple[str, range], Tensor] = {}
    with torch.no_grad():
        for part in maps(layer):  # type: ignore[arg-type]
            for end, span in (("in", part.columns), ("out", part.rows)):
                drawn = torch.arange(len(span))[torch.randperm(len(span), generator=rng)] % groups
                group.setdefault((end, span), drawn)
            same = group["out", part.rows][:, None] == group["in", part.columns][None]
            assert part.groups == 1
            part.module.weight[~same] = 0


def regrouped(module: nn.Module, example: Tensor | None = None, **options: object) -> Regrouped:
    """`regroup` of a float64 module, after checking what it promises of any."""
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    result = regroup(module, example, **options)  # type: ignore[arg-type]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    size = module.architecture.input if isinstance(module, Network) else tuple(example.shape[1:])  # type: ignore[union-attr]
    x = torch.randn(5, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        wanted, got = copy.deepcopy(module).eval()(x), copy.deepcopy(result.network).eval()(x)
    assert (wanted - got).abs().max() <= 1e-12 * wanted.abs().max()
    assert result.proof.relative_error <= 1e-12
    assert all(change.relative_error <= 1e-12 for change in result.changed)
    assert result.cost_after.params <= result.cost_before.params
    assert result.cost_after.flops <= result.cost_before.flops
    old, new = module.state_dict(), result.network.state_dict()
    changed = [module.get_submodule(change.name) for change in result.changed]
    places = tuple(n and f"{n}." for n, m in module.named_modules(remove_duplicate=False) if m in changed)
    rest = [[name for name in state if not name.startswith(places)] for state in (old, new)]
    assert rest[0] == rest[1]  # nothing else changed
    assert all(torch.equal(old[name], new[name]) for name in rest[0])
    if isinstance(module, Network):
        assert isinstance(result.network, Network)
        assert read_architecture(result.network) == result.network.architecture
        again = build(result.network.architecture).double().eval()
        again.load_state_dict(new)
        with torch.no_grad():
            assert torch.equal(again(x), copy.deepcopy(result.network).eval()(x))
    if "names" not in options:
        assert regroup(result.network, example).changed == ()
    return result


def only(layers: list[Edges], name: str) -> Edges:
    return next(layer for layer in layers if layer.name == name)


# what is live


def test_zero_negligible_and_live_edges_are_told_apart() -> None:
    conv = nn.Conv2d(4, 3, (1, 3), bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.weight[0, 0] = 0
        conv.weight[1, :, :, 0] = 0  # a tap is no edge
        conv.weight[2] = 1e-4
        conv.weight[2, 3] = 0
    (exact,) = edges(conv)
    assert (exact.edges, exact.zero, exact.negligible, exact.live) == (12, 2, 0, 10)
    assert (exact.in_degree, exact.out_degree) == ((3, 4, 3), (2, 3, 3, 2))
    (about,) = edges(conv, tolerance=1e-3)
    assert (about.edges, about.zero, about.negligible, about.live) == (12, 2, 3, 7)
    assert (about.in_degree, about.out_degree) == ((3, 4, 0), (1, 2, 2, 2))
    assert about.live_share == 7 / 12


def test_edges_at_the_tolerance_are_negligible_and_the_smallest_number_is_live() -> None:
    layer = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.25]]))
    assert edges(layer, tolerance=0.25)[0].negligible == 1
    assert edges(layer, tolerance=0.2499)[0].negligible == 0
    with torch.no_grad():
        layer.weight[0, 1] = 5e-324
    assert edges(layer)[0].live == 2
    for tolerance in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            edges(layer, tolerance)


def test_edges_between_groups_are_none_and_every_convolution_is_counted(make: Make) -> None:
    network = make(
        SIZE, Conv(8, 3, groups=2), Depthwise(3), SqueezeExcite(4), Conv(6, low=2), Norm(), Depthwise(3), *HEAD
    )
    found = edges(network)
    assert [(e.name, e.groups, e.edges) for e in found] == [
        ("body.0", 2, 8),
        ("body.1", 8, 8),
        ("body.2.squeeze", 1, 32),
        ("body.2.expand", 1, 32),
        ("body.3", 1, 48),
        ("body.5.high", 4, 4),
        ("body.5.low", 2, 2),
        ("body.8", 1, 18),
    ]
    assert all(e.live == e.edges and e.groups_supported == e.groups for e in found)
    assert found[0].components == 2
    assert found[1].components == 8
    assert len(found[4].in_degree) == 6


def test_a_large_dense_layer_is_seen_in_parts() -> None:
    layer = nn.Linear(4000, 600, bias=False)
    with torch.no_grad():
        layer.weight[:, 2000:] = 0
        layer.weight[300:] = 0
    (found,) = edges(layer)
    assert found.live == 2000 * 300
    assert found.components == 1
    conv = nn.Conv2d(1500, 1500, 1, bias=False)  # more edges than one part holds, and they meet only across parts
    with torch.no_grad():
        conv.weight[torch.rand(1500, 1500, 1, 1, generator=torch.Generator().manual_seed(0)) > 0.001] = 0
        conv.weight[:750, 750:] = 0
        conv.weight[750:, :750] = 0
        conv.weight[0, :750] = 1
        conv.weight[1499, 750:] = 1
    (found,) = edges(conv)
    assert found.groups_supported == 2
    assert found.components == 2


# the most groups


def partitions(items: list[int], size: int) -> Iterator[list[set[int]]]:
    """Every way to split `items` into sets of `size`."""
    if not items:
        yield []
        return
    first, *others = items
    for chosen in combinations(others, size - 1):
        for more in partitions([i for i in others if i not in chosen], size):
            yield [{first, *chosen}, *more]


def most_by_trying(live: Tensor) -> int:
    """The most groups for (outputs, inputs) live edges, by trying every choice of equal groups of inputs."""
    outputs, inputs = live.shape
    readers = [set(row.nonzero().flatten().tolist()) for row in live]
    for groups in range(gcd(outputs, inputs), 1, -1):
        if gcd(outputs, inputs) % groups:
            continue
        for parts in partitions(list(range(inputs)), inputs // groups):
            homes = [[i for i, part in enumerate(parts) if read <= part] for read in readers]
            free = sum(len(home) == groups for home in homes)  # outputs that read nothing
            counts = [sum(home == [i] for home in homes) for i in range(groups)]
            room = outputs // groups
            if all(homes) and all(c <= room for c in counts) and sum(room - c for c in counts) == free:
                return groups
    return 1


@st.composite
def planted(draw: st.DrawFn) -> Tensor:
    """(outputs, inputs) live edges: blocks of unequal sizes, some without inputs or outputs, under permutations."""
    inputs, outputs = draw(st.sampled_from([(4, 4), (6, 4), (6, 6), (8, 4), (4, 8), (8, 8), (6, 12), (9, 6)]))
    count = draw(st.integers(1, 9))
    owner_in = torch.tensor(draw(st.lists(st.integers(0, count), min_size=inputs, max_size=inputs)))
    owner_out = torch.tensor(draw(st.lists(st.integers(0, count), min_size=outputs, max_size=outputs)))
    live = (owner_out[:, None] == owner_in[None]) & (owner_in > 0)[None]
    thinned = torch.rand(live.shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) < 0.8
    return live & thinned


@given(live=planted())
@settings(max_examples=60, deadline=None)
def test_the_most_groups_are_found_and_the_function_stays(live: Tensor) -> None:
    conv = nn.Conv2d(live.shape[1], live.shape[0], 3, padding=1).double()
    with torch.no_grad():
        conv.weight[~live] = 0
    (found,) = edges(conv)
    assert found.groups_supported == most_by_trying(live)
    assert found.blocks.certain
    result = regrouped(conv, torch.zeros(1, live.shape[1], 5, 4))
    if found.groups_supported > 1:
        assert result.changed[0].groups_after == found.groups_supported
        assert result.cost_after.params < result.cost_before.params


def test_unequal_components_share_groups() -> None:
    live = torch.block_diag(torch.ones(3, 1), torch.ones(1, 3), torch.ones(2, 2), torch.ones(2, 2)) > 0
    shuffled = live[torch.randperm(8)][:, torch.randperm(8)]
    conv = nn.Conv2d(8, 8, 1).double()
    with torch.no_grad():
        conv.weight[~shuffled] = 0
    (found,) = edges(conv)
    assert (found.components, found.groups_supported) == (4, 2)  # {3x1, 1x3} and {2x2, 2x2}: each 4 x 4
    regrouped(conv, torch.zeros(1, 8, 4, 4))


def test_groups_can_be_split_further_and_across(make: Make) -> None:
    network = make(SIZE, Conv(12), Activation(), Conv(12, 3, groups=2), *HEAD)
    with torch.no_grad():  # each group of 6 falls into 4 + 2, and thirds of 4 hold them
        for half in network.get_parameter("body.2.weight").view(2, 6, 6, 3, 3):
            half[:4, 4:], half[4:, :4] = 0, 0
    result = regrouped(network)
    assert [(c.name, c.groups_before, c.groups_after) for c in result.changed] == [("body.2", 2, 3)]


def test_a_packing_that_takes_too_long_is_cut_short_and_says_so() -> None:
    rng = torch.Generator().manual_seed(0)
    sizes = [tuple(row) for row in torch.randint(1, 40, (60, 2), generator=rng).tolist()]
    total = [sum(size[d] for size in sizes) for d in (0, 1)]
    bins, certain = pack(sizes, (-(-total[0] // 12), -(-total[1] // 12)), 12, steps=200)
    assert bins is None
    assert not certain
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1] * 2).numpy()  # 3, 3, 2, 2 and 2 of either span
    spans = (range(12), range(12, 24))
    for steps, found in ((50, (2, True)), (1, (1, False))):
        blocks = most_groups(labels, spans, steps=steps)
        assert (blocks.groups, blocks.certain) == found


def test_many_channels_are_packed_at_once() -> None:
    conv = nn.Conv2d(2048, 2048, 1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[torch.randperm(2048), torch.randperm(2048)] = 1
    (found,) = edges(conv)
    assert (found.components, found.groups_supported, found.blocks.certain) == (2048, 2048, True)


# where it is regrouped


@pytest.mark.parametrize(
    ("size", "conv"),
    [
        (SIZE, Conv(8, 3, bias=True)),
        (SIZE, Conv(8, 1, stride=2)),
        (SIZE, Conv(8, 3, stride=2, dilation=2)),
        (SIZE, Conv(8, 5, padding=1)),
        ((2, 4, 6, 6), Conv(8, 3)),
        ((2, 4, 6, 6), Conv(12, (3, 1, 1), stride=(2, 1, 1))),
    ],
)
def test_a_convolution_in_a_network_becomes_selections_and_a_grouped_one(
    make: Make, size: tuple[int, ...], conv: Conv
) -> None:
    network = make(size, Conv(8), Norm(), Activation(), conv, Norm(), Activation(), *HEAD)
    plant(network.get_submodule("body.3"), 4)
    result = regrouped(network)
    architecture = result.network.architecture
    assert isinstance(architecture, Architecture)
    chain = architecture.body.items[3]
    assert isinstance(chain, Chain)
    assert [type(item) for item in chain.items] == [Select, Conv, Select]
    assert chain.items[1] == replace(conv, groups=4)
    before, after = result.cost_before, result.cost_after
    assert before.params - after.params == network.get_parameter("body.3.weight").numel() * 3 // 4
    assert after.flops == trace_flops(result.network.float(), size)


def test_blocks_in_their_natural_order_need_no_selection(make: Make) -> None:
    network = make(SIZE, Conv(8), Activation(), Conv(12, 3), Norm(), *HEAD)
    with torch.no_grad():
        weight = network.get_parameter("body.2.weight")
        weight.mul_(torch.block_diag(*[torch.ones(3, 2)] * 4)[..., None, None])
        weight[:, 5] = 0  # a channel that nothing reads stays where it is
    result = regrouped(network)
    assert result.network.architecture.body.items[2] == Conv(12, 3, groups=4)
    assert not result.changed[0].inputs_moved
    assert not result.changed[0].outputs_moved


def test_one_end_in_its_natural_order_needs_one_selection(make: Make) -> None:
    for moved, kinds in ((0, [Conv, Select]), (1, [Select, Conv])):
        network = make(SIZE, Conv(8), Activation(), Conv(8, 3), Norm(), *HEAD)
        live = torch.block_diag(*[torch.ones(2, 2)] * 4).index_select(moved, torch.tensor([2, 7, 0, 4, 1, 6, 5, 3]))
        with torch.no_grad():
            network.get_parameter("body.2.weight").mul_(live[..., None, None])
        chain = regrouped(network).network.architecture.body.items[2]
        assert [type(item) for item in chain.items] == kinds


@pytest.mark.parametrize(
    ("before", "conv"),
    [
        (Conv(8, low=4), Conv(8, 3, low=4)),
        (Conv(12, low=4), Conv(8, 3, low=4, bias=True)),
        (Conv(12, low=4), Conv(16, 3, low=4, stride=2)),
        (Conv(8), Conv(12, 3, low=4)),
        (Conv(8, low=4), Conv(8, 3, bias=True)),
        (Conv(8, low=8), Conv(8, 3, low=4)),
        (Conv(8, low=8), Conv(8, 3, low=8)),
        (Conv(8), Conv(8, 3, low=8)),
    ],
)
@pytest.mark.parametrize("size", [SIZE, (2, 3, 5, 6)])
def test_an_octave_convolution_is_regrouped_frequency_by_frequency(
    make: Make, size: tuple[int, ...], before: Leaf, conv: Conv
) -> None:
    network = make(size, before, Activation(), conv, Norm(), Activation("silu"), *HEAD)
    layer = network.get_submodule("body.2")
    assert isinstance(layer, OctaveConv)
    plant(layer, 4)
    result = regrouped(network)
    assert [(c.name, c.groups_before, c.groups_after) for c in result.changed] == [("body.2", 1, 4)]
    assert any(site.leaf == replace(conv, groups=4) for site in result.network.architecture.sites)


def test_an_octave_convolution_whose_paths_disagree_stays(make: Make) -> None:
    network = make(SIZE, Conv(8, low=4), Activation(), Conv(8, 3, low=4), *HEAD)
    layer = network.get_submodule("body.2")
    assert isinstance(layer, OctaveConv)
    for path in (layer.hh, layer.ll, layer.hl):
        assert path is not None
        plant(path, 4)
    assert regrouped(network).changed == ()  # low to high joins them all


def test_branches_joins_shuffles_and_heads_keep_their_wiring(make: Make) -> None:
    network = make(
        SIZE,
        Conv(8, 3),
        Add((Chain(), Conv(8, 3), Chain((Norm(), Conv(8), Depthwise(3))))),
        Tap(Chain((Conv(8), *HEAD))),
        Concat((Conv(4), Chain((Conv(8, 3, bias=True), Activation())))),
        Shuffle(4),
        SqueezeExcite(4),
        Conv(8, 3),
        Norm(),
        *HEAD,
    )
    names = ["body.1.1", "body.1.2.1", "body.2.0.0", "body.3.0", "body.3.1.0", "body.6"]
    for seed, name in enumerate(names):
        plant(network.get_submodule(name), 2 + 2 * (seed % 2), seed)
    result = regrouped(network)
    assert [c.name for c in result.changed] == names
    assert [c.groups_after for c in result.changed] == [2, 4, 2, 4, 2, 4]
    network.train(), result.network.train()
    for net in (network, result.network):
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    x = torch.randn(3, *SIZE, dtype=torch.float64)
    (main, heads), (main_after, heads_after) = network(x), result.network(x)
    assert (main - main_after).abs().max() <= 1e-12
    assert (heads[0] - heads_after[0]).abs().max() <= 1e-12


def test_a_regrouped_network_is_saved_loaded_and_trained(make: Make, tmp_path: object) -> None:
    network = make(SIZE, Conv(8, 3), Norm(), Activation(), Conv(8, 3), Norm(), Activation(), *HEAD).float().train()
    network.get_parameter("body.3.weight").requires_grad_(False)
    plant(network.get_submodule("body.3"), 2)
    result = regroup(network)
    assert result.network.training
    assert all(module.training for module in result.network.modules())
    assert not result.network.get_parameter("body.3.1.weight").requires_grad
    assert result.network.get_parameter("body.3.1.weight").dtype == torch.float32
    path = tmp_path / "n.safetensors"  # type: ignore[operator]
    save(path, result.network)  # type: ignore[arg-type]
    x = torch.randn(4, *SIZE)
    assert torch.equal(load(path)(x), result.network.eval()(x))
    result.network.train()(x).square().sum().backward()
    assert result.network.get_parameter("body.0.weight").grad is not None


# modules of others


class Split(nn.Module):
    """Split, transform one half, concatenate, shuffle by reshaping; an auxiliary head in training; a shared layer."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.stem = conv(3, 16, 3, padding=1)
        self.branch = nn.Sequential(conv(8, 8, 1, bias=False), norm(8), nn.ReLU(), conv(8, 8, 3, padding=1, groups=8))
        self.twice = self.again = conv(16, 16, 3, padding=1, padding_mode="circular")
        self.aux = nn.Sequential(conv(16, 8, 1), nn.Dropout(0.5))
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], dim=1)
        x = x.unflatten(1, (2, 8)).transpose(1, 2).flatten(1, 2)
        x = self.again(self.twice(x).relu())
        y: Tensor = self.out(x.flatten(2).mean(2))
        return (y, self.aux(x)) if self.training else y


@pytest.mark.parametrize("dims", [2, 3])
def test_a_module_of_another_maker_is_regrouped_in_place(dims: int) -> None:
    module = Split(dims).double()
    for seed, layer in enumerate((module.branch[0], module.twice, module.aux[0])):
        plant(layer, (4, 8, 2)[seed], seed)
    result = regrouped(module, torch.zeros(1, 3, *[6] * dims))
    assert type(result.network) is Split
    assert [(c.name, c.groups_after) for c in result.changed] == [("branch.0", 4), ("twice", 8), ("aux.0", 2)]
    assert result.network.twice is result.network.again
    conv = next(m for m in result.network.twice if isinstance(m, nn.Conv2d | nn.Conv3d))
    assert (conv.groups, conv.padding_mode, conv.weight.shape[:2]) == (8, "circular", (16, 2))
    assert result.cost_before.params - result.cost_after.params == 48 + 16 * 14 * 3**dims + 64
    assert "4 groups" not in result.words
    assert result.words.startswith("Regrouped 3 convolutions: ")


def test_depthwise_and_multiplied_depthwise_layers_stay() -> None:
    module = nn.Sequential(nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 12, 3, groups=12))
    with torch.no_grad():
        module[1].weight[3] = 0
    assert [e.groups_supported for e in edges(module)] == [6, 12]
    assert regrouped(module.double(), torch.zeros(1, 6, 8, 8)).changed == ()


class Standardized(nn.Conv2d):
    """A zero in its weight is none in what it computes with."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Exacting(nn.Module):
    """Runs in float64 alone, which no trace in float32 follows, and puts out by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> dict[str, object]:
        return {"y": self.conv(x.double()), "kind": "plain", "none": None}


def test_a_module_that_fvcore_cannot_trace_is_regrouped_with_its_params_counted() -> None:
    module = Exacting().double()
    plant(module.conv, 2)
    result = regroup(module, torch.zeros(1, 4, 4, 4))
    assert result.cost_before.values() == {"params": 20}
    assert result.cost_after.values() == {"params": 12}
    assert result.words.startswith("Regrouped 1 convolution: 20 -> 12 params; relative error")


class Peeking(nn.Module):
    """Reads its layer's weight by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x) * self.conv.weight.norm()
        return y


class Mute(nn.Module):
    """Puts out nothing."""

    def forward(self, x: Tensor) -> None:
        return None


def test_what_cannot_be_regrouped_stays_with_the_reason() -> None:
    tied = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    tied[1].weight = tied[0].weight
    cases = {
        "computes in a way of its own": nn.Sequential(Standardized(4, 4, 1)),
        "its weight is parametrized": nn.Sequential(weight_norm(nn.Conv2d(4, 4, 1))),
        "another layer shares its weight": tied,
        "a linear layer has no groups": nn.Sequential(nn.Linear(4, 4)),
    }
    for reason, module in cases.items():
        weight = module[0].weight if "param" not in reason else module[0].parametrizations.weight.original1
        with torch.no_grad():
            weight[:2, 2:], weight[2:, :2] = 0, 0
        found = edges(module)[0]
        assert found.groups_supported == 2
        assert found.obstacle.endswith(reason)
        with pytest.raises(PruneError, match=rf"0 cannot be regrouped: .*{reason}"):
            regroup(module, torch.zeros(1, 4, 4, 4), ["0"])
        if "linear" not in reason:
            assert regroup(module, torch.zeros(1, 4, 4, 4)).changed == ()


def test_a_squeeze_excite_stays_in_a_network(make: Make) -> None:
    network = make(SIZE, Conv(8), SqueezeExcite(4), *HEAD)
    plant(network.get_submodule("body.1.squeeze"), 2)
    found = only(edges(network), "body.1.squeeze")
    assert found.groups_supported == 2
    assert found.obstacle == "the architecture has no groups here"
    assert regrouped(network).changed == ()


# refusals, tolerance, report


def test_names_choose_and_unknown_or_dense_ones_are_refused(make: Make) -> None:
    network = make(SIZE, Conv(8), Conv(8, 3), Conv(8, 3), *HEAD)
    for name in ("body.1", "body.2"):
        plant(network.get_submodule(name), 2)
    assert [c.name for c in regrouped(network, names=["body.2"]).changed] == ["body.2"]
    assert regrouped(network, names=[]).changed == ()
    with pytest.raises(PruneError, match=r"got 'body.9'. There are: body.0, body.1, body.2, body.5"):
        regroup(network, names=["body.9"])
    with pytest.raises(PruneError, match=r"body.0 cannot be regrouped: its live edges support no more than 1 groups"):
        regroup(network, names=["body.0"])


def test_what_fails_leaves_the_module_as_it_was(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(SIZE, Conv(8), Conv(8, 3), *HEAD)
    plant(network.get_submodule("body.1"), 2)
    peeking = Peeking().double()
    plant(peeking.conv, 2)
    example = torch.zeros(1, 4, 5, 5)
    for module, given_, rule in (
        (peeking, example, "must run on inputs of .*, but: .*weight"),
        (peeking, None, "must come with an example"),
        (peeking, torch.zeros(1, 3, 5, 5), "must run on inputs of"),
    ):
        before, state = module.conv, copy.deepcopy(module.state_dict())
        with pytest.raises(PruneError, match=rule):
            regroup(module, given_)
        assert module.conv is before
        assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
    with pytest.raises(PruneError, match="must have weights of one precision, but got none"):
        regroup(Mute().double(), torch.zeros(1, 3, 2, 2))
    handle = peeking.conv.register_forward_hook(lambda *_: None)
    with pytest.raises(PruneError, match="no hooks, but conv has"):
        regroup(peeking, example)
    handle.remove()
    with torch.no_grad():
        peeking.conv.bias[0] = float("nan")  # type: ignore[index]
    with pytest.raises(PruneError, match=r"finite weights, but conv.bias has not"):
        regroup(peeking, example)

    def wrong(order: Sequence[int]) -> tuple[int, ...]:
        return (*order[1:], order[0])

    state = copy.deepcopy(network.state_dict())
    monkeypatch.setattr(pruning.regroup, "_places", wrong)
    with pytest.raises(PruneError, match="must equal the original to 1e-10"):
        regroup(network)
    with torch.no_grad():
        network.get_parameter("body.4.weight").zero_()  # the network hides what its layers do
    with pytest.raises(PruneError, match="must equal the original to 1e-10"):
        regroup(network)
    network.get_parameter("body.4.weight").data += state["body.4.weight"]
    monkeypatch.setattr(pruning.regroup, "_layer_error", lambda *_: 0.0)
    with pytest.raises(PruneError, match=r"must equal .* to 1e-10"):  # and the whole is measured, too
        regroup(network)
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


def test_with_a_tolerance_the_difference_is_measured_and_said(make: Make) -> None:
    network = make(SIZE, Conv(8), Conv(8, 3), *HEAD)
    weight = network.get_parameter("body.1.weight")
    kept = weight.detach().clone()
    plant(network.get_submodule("body.1"), 4)
    with torch.no_grad():
        weight[weight == 0] = 1e-5 * kept[weight == 0]
    assert regroup(network).changed == ()
    result = regroup(network, tolerance=1e-3)
    assert [c.groups_after for c in result.changed] == [4]
    assert 1e-9 < result.proof.relative_error < 1e-2
    assert "not exact, since edges up to 0.001 of their layer's largest are dropped: relative error" in result.words


def test_the_report_says_what_can_be_and_what_was_regrouped(make: Make) -> None:
    network = make(SIZE, Conv(8), Conv(8, 3), *HEAD)
    assert "Nothing to regroup" in text(edges(network))
    plant(network.get_submodule("body.1"), 4)
    found, result = edges(network), regroup(network)
    said = text(found)
    assert "Can be regrouped: body.1." in said
    line = next(line for line in said.splitlines() if line.lstrip().startswith("body.1 "))
    assert line.split() == ["body.1", "Conv2d", "1", "64", "25.0%", "0", "0", "4", "4", "yes"]
    assert result.words in text(found, regrouped=result)
    plain = json.loads(json.dumps(record(found, regrouped=result)))
    assert plain["layers"][1]["live_share"] == 0.25
    assert plain["layers"][1]["in_degree"] == [2] * 8
    assert plain["regrouped"]["changed"][0] == {
        "name": "body.1",
        "groups_before": 1,
        "groups_after": 4,
        "inputs_moved": True,
        "outputs_moved": True,
        "relative_error": result.changed[0].relative_error,
    }


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_block_structure_in_a_network_is_found(make: Make, data: st.DataObject) -> None:
    dims = data.draw(st.sampled_from([2, 3]))
    size = (2, *[5] * dims)
    low_in, low_out = data.draw(st.sampled_from([(0, 0), (0, 4), (4, 0), (4, 8), (12, 12)]))
    conv = Conv(
        12,
        data.draw(st.sampled_from([1, 3])),
        stride=data.draw(st.sampled_from([1, 2])),
        low=low_out,
        bias=data.draw(st.booleans()),
    )
    network = make(size, Conv(12, low=low_in), Norm(), Activation("tanh"), conv, Norm(), *HEAD)
    groups = data.draw(st.sampled_from([2, 4]))
    plant(network.get_submodule("body.3"), groups, data.draw(st.integers(0, 99)))
    result = regrouped(network)
    assert [(c.name, c.groups_after) for c in result.changed] == [("body.3", groups)]
