"""Weights of a foreign module give the same function, or an error that names the first layer that differs.

The foreign modules are written as other libraries write theirs: names of their own, layers registered in another
order than they run in, functions for what has no weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Architecture,
    ArchitectureError,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Dropout,
    Flatten,
    Linear,
    Node,
    Norm,
    Pool,
    SqueezeExcite,
    Tap,
)
from searchspace.foreign import load_foreign
from searchspace.network import Network, build

RELU = Activation()
HEAD = (AdaptivePool(), Flatten(), Linear(5))


def architecture(*nodes: Node, input: tuple[int, ...] = (3, 9, 9)) -> Architecture:
    return Architecture(input, Chain((*nodes, *HEAD)))


class Classifier(nn.Module):
    """Global pooling and a linear layer, registered first, after the `features` that subclasses say."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(2).mean(2))


class Downsampled(Classifier):
    """A projection that is registered before the branch and runs after it; sums and activations in place."""

    def __init__(self) -> None:
        super().__init__(8)
        self.downsample = nn.Sequential(nn.Conv2d(3, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(3, 8, 3, 2, 1, bias=False)

    def features(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y += self.bn2(self.conv2(y))  # over what the convolution has read
        y += self.downsample(x)
        return F.relu(y, inplace=True)


class Branched(Classifier):
    """Branches of one input side by side, one of them pooled."""

    def __init__(self) -> None:
        super().__init__(10)
        self.pooled = nn.Conv2d(3, 4, 1)
        self.wide, self.tall = nn.Conv2d(3, 3, (1, 7), padding=(0, 3)), nn.Conv2d(3, 3, (7, 1), padding=(3, 0))

    def features(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([self.wide(x), self.tall(x), self.pooled(F.avg_pool2d(x, 3, 1, 1))], 1))


class Squeezed(Classifier):
    """Squeeze-excite on a depthwise convolution, between grouped ones."""

    def __init__(self) -> None:
        super().__init__(4)
        self.fc1, self.fc2 = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False)
        self.expand, self.project = nn.Conv2d(3, 6, 1, groups=3), nn.Conv2d(6, 4, 1, groups=2)

    def features(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.depthwise(F.relu6(self.expand(x))))
        return self.project(x * F.hardsigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1))))))


class Dense(Classifier):
    """Layers that read all maps before them."""

    def __init__(self) -> None:
        super().__init__(9)
        self.convs = nn.ModuleList([nn.Conv2d(3 + 2 * i, 2, 3, padding="same", bias=False) for i in range(3)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(3 + 2 * i, eps=1e-3) for i in range(3)])

    def features(self, x: Tensor) -> Tensor:
        maps = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            maps.append(conv(F.relu(norm(torch.cat(maps, 1)))))
        return torch.cat(maps, 1)


class Volumes(Classifier):
    """A spatial, then a temporal convolution, and a strided projection of the input, in 3D."""

    def __init__(self) -> None:
        super().__init__(6)
        self.projection = nn.Conv3d(3, 6, 1, 2, bias=False)
        self.time = nn.Conv3d(7, 6, (3, 1, 1), (2, 1, 1), (1, 0, 0), bias=False)
        self.space, self.norm = nn.Conv3d(3, 7, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False), nn.BatchNorm3d(7)

    def features(self, x: Tensor) -> Tensor:
        return self.time(F.relu(self.norm(self.space(x)))) + self.projection(x)


class Outputs(NamedTuple):
    logits: Tensor
    auxiliary: Tensor


class Auxiliary(Classifier):
    """An auxiliary head with dropout that runs in training mode alone, and a drop path that draws and always keeps."""

    def __init__(self) -> None:
        super().__init__(4)
        self.head, self.dropout = nn.Linear(4, 5), nn.Dropout(0.5)
        self.second, self.first = nn.Conv2d(4, 4, 3, padding="valid"), nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor | Outputs:
        x = F.relu(self.first(x))
        if self.training:
            x = x * (torch.rand(len(x), 1, 1, 1) >= 0)
        auxiliary = self.head(self.dropout(x.mean((2, 3)))) if self.training else None
        logits = self.classifier(self.second(x).mean((2, 3)))
        return logits if auxiliary is None else Outputs(logits, auxiliary)


TAP = Tap(Chain((AdaptivePool(), Flatten(), Dropout(0.5), Linear(5))))
TAPPED = architecture(Conv(4, 3, padding=0, bias=True), RELU, TAP, Conv(4, 3, padding=0, bias=True))

TWINS: dict[str, tuple[Architecture, Callable[[], nn.Module]]] = {
    "residual": (
        architecture(
            Add(
                (
                    Chain((Conv(8, 3, 2), Norm(), RELU, Add((Chain((Conv(8, 3), Norm())), Chain())))),
                    Chain((Conv(8, 1, 2), Norm())),
                )
            ),
            RELU,
        ),
        Downsampled,
    ),
    "branches": (
        architecture(
            Concat(
                (
                    Conv(3, (1, 7), bias=True),
                    Conv(3, (7, 1), bias=True),
                    Chain((Pool("average", 3, 1), Conv(4, bias=True))),
                )
            ),
            RELU,
        ),
        Branched,
    ),
    "squeeze-excite": (
        architecture(
            Conv(6, groups=3, bias=True),
            Activation("relu6"),
            Depthwise(3, 2),
            Activation("hardswish"),
            SqueezeExcite(2, gate="hardsigmoid"),
            Conv(4, groups=2, bias=True),
        ),
        Squeezed,
    ),
    "dense": (
        architecture(*(Concat((Chain(), Chain((Norm(1e-3), RELU, Conv(2, 3))))) for _ in range(3))),
        Dense,
    ),
    "3D": (
        architecture(
            Add((Chain((Conv(7, (1, 3, 3), (1, 2, 2)), Norm(), RELU, Conv(6, (3, 1, 1), (2, 1, 1)))), Conv(6, 1, 2))),
            input=(3, 4, 9, 9),
        ),
        Volumes,
    ),
    "auxiliary": (TAPPED, Auxiliary),
}


@torch.no_grad()
def randomized(module: nn.Module) -> nn.Module:
    """Every parameter and running statistic random."""
    for tensor in module.state_dict().values():
        tensor.fill_(7) if tensor.dtype == torch.long else tensor.uniform_(0.1, 1).sub_(0.5 * (tensor.dim() > 1))
    return module


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_unchanged(module: nn.Module, before: dict[str, Tensor]) -> None:
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def inputs(network: Network) -> Tensor:
    return torch.randn(4, *network.architecture.input, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("name", TWINS)
def test_outputs_are_equal(name: str) -> None:
    architecture, make = TWINS[name]
    network, theirs = build(architecture, 0).double().eval(), randomized(make()).double().eval()
    x = inputs(network)
    assert not torch.allclose(network(x), theirs(x))
    load_foreign(network, theirs)
    torch.testing.assert_close(network(x), theirs(x), rtol=1e-12, atol=1e-12)


def test_auxiliary_outputs_are_equal() -> None:
    network, theirs = build(TAPPED, 0).double(), randomized(Auxiliary()).double()
    load_foreign(network, theirs)
    for module in (*network.modules(), *theirs.modules()):
        module.training = not isinstance(module, nn.Dropout)
    ((logits, (auxiliary,)), expected) = network(inputs(network)), theirs(inputs(network))
    torch.testing.assert_close((logits, auxiliary), tuple(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", TWINS)
def test_a_stored_state_dict_loads_through_a_module_with_other_weights(name: str, tmp_path: Path) -> None:
    architecture, make = TWINS[name]
    source, module, network = randomized(make()), make(), build(architecture, 0)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    before = state(module)
    load_foreign(network, module, torch.load(tmp_path / "weights.pt", weights_only=True))
    expected = build(architecture, 1)
    load_foreign(expected, source)
    assert_unchanged(network, state(expected))
    assert_unchanged(module, before)


def test_only_the_values_of_the_networks_tensors_change() -> None:
    """Neither dtype nor identity of a tensor, no mode of a module, no random state."""
    network, theirs = build(TAPPED, 0).half(), randomized(Auxiliary())
    network.body.eval()
    tensors, modes, before = list(network.parameters()), [m.training for m in network.modules()], state(theirs)
    random = torch.get_rng_state()
    load_foreign(network, theirs)
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in network.modules()] == modes
    assert all(m.training for m in theirs.modules())
    assert_unchanged(theirs, before)
    assert all(a is b for a, b in zip(tensors, network.parameters(), strict=True))
    assert {tensor.dtype for tensor in tensors} == {torch.half}
    assert torch.equal(network.state_dict()["body.0.weight"], theirs.first.weight.half())
    theirs(torch.randn(2, 3, 9, 9)).logits.sum().backward()  # no hook, no gradient left behind


def test_no_statistic_moves() -> None:
    """Nor does a batch of one, in which a norm in training mode would see one value a channel, end in an error."""
    theirs = randomized(nn.Sequential(nn.Conv2d(3, 4, 9), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5)))
    network, before = build(Architecture((3, 9, 9), Chain((VALID9, Norm(), Flatten(), Linear(5)))), 0), state(theirs)
    load_foreign(network, theirs)
    assert_unchanged(theirs, before)
    assert torch.equal(network.state_dict()["body.1.running_var"], before["1.running_var"])


VALID9 = Conv(4, 9, padding=0, bias=True)

PLAIN = architecture(Conv(4, 3), Norm(), RELU, Conv(4, 3))


def plain(**changes: nn.Module | None) -> nn.Module:
    """The twin of PLAIN, with layers replaced, or left out where None."""
    parts: dict[str, nn.Module | None] = {
        "first": nn.Conv2d(3, 4, 3, padding=1, bias=False),
        "norm": nn.BatchNorm2d(4),
        "relu": nn.ReLU(),
        "second": nn.Conv2d(4, 4, 3, padding=1, bias=False),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "classifier": nn.Linear(4, 5),
    }
    module = nn.Sequential()
    for name, part in (parts | changes).items():
        if part is not None:
            module.add_module(name, part)
    return module


def conv(*arguments: int, bias: bool = False, **settings: object) -> nn.Module:
    return nn.Conv2d(*arguments, bias=bias, **settings)


class Standardized(nn.Conv2d):
    """A convolution that standardizes its weights: the same settings, another function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), padding=1)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()
        self.spare, self.repeats = nn.Linear(2, 2), 1

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.repeats):
            y = self.inner(x)
        return y


def repeated() -> nn.Module:
    module = Twice()
    module.repeats = 2
    return module


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = conv(3, 4, 3, padding=1), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(x).flatten(2).mT
        return self.attention(tokens, tokens, tokens)[0].mean(1)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "width": (
        lambda: plain(second=conv(4, 6, 3, padding=1), classifier=nn.Linear(6, 5)),
        r"body\.3 .* second .*weight",
    ),
    "kernel": (
        lambda: plain(second=conv(4, 4, 1)),
        r"body\.3 .*meets second .*; weight is \(4, 4, 3, 3\) here, \(4, 4, 1, 1\)",
    ),
    "stride": (
        lambda: plain(second=conv(4, 4, 3, 2, padding=1)),
        r"body\.3 .*meets second .*: stride is \(1, 1\) here, \(2, 2\) there",
    ),
    "padding": (lambda: plain(second=conv(4, 4, 3)), r"body\.3 .*meets second .*: padding is \(1, 1\) here, \(0, 0\)"),
    "padding mode": (
        lambda: plain(second=conv(4, 4, 3, padding=1, padding_mode="reflect")),
        r"second .*: padding_mode is zeros here, reflect there",
    ),
    "uneven padding": (
        lambda: plain(second=conv(4, 4, 2, padding="same")),
        r"second .*: padding is \(1, 1\) here, \(0\.5, 0\.5\) there",
    ),
    "dilation": (lambda: plain(second=conv(4, 4, 3, padding=2, dilation=2)), r"second .*: dilation is \(1, 1\) here"),
    "groups": (lambda: plain(second=conv(4, 4, 3, padding=1, groups=2)), r"second .*: groups is 1 here, 2 there"),
    "bias": (
        lambda: plain(second=conv(4, 4, 3, padding=1, bias=True)),
        r"second .*: bias is none here, \(4,\) there",
    ),
    "eps": (lambda: plain(norm=nn.BatchNorm2d(4, eps=1e-3)), r"body\.1 .*norm .*: eps is 1e-05 here, 0\.001 there"),
    "norm without scale": (
        lambda: plain(norm=nn.BatchNorm2d(4, affine=False)),
        r"norm .*: weight is \(4,\) here, none",
    ),
    "norm without statistics": (
        lambda: plain(norm=nn.BatchNorm2d(4, track_running_stats=False)),
        r"norm .*: running_mean is \(4,\) here, none",
    ),
    "kind": (lambda: plain(norm=nn.GroupNorm(2, 4)), r"norm .*: kind is batch normalisation here, GroupNorm there"),
    "classes": (
        lambda: plain(classifier=nn.Linear(4, 6)),
        r"body\.6 .*classifier .*: weight is \(5, 4\) here, \(6, 4\)",
    ),
    "missing": (lambda: plain(second=None), r"body\.3 \(convolution.*meets classifier \(linear.*: kind"),
    "longer": (
        lambda: plain(classifier=nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5))),
        r"classifier\.2 \(linear, .*\) comes after the last layer of the network",
    ),
    "shorter": (lambda: plain(classifier=None), r"body\.6 \(linear, .*\) comes after the last layer of Sequential"),
    "activation": (lambda: plain(relu=nn.ReLU6()), r"body\.3 .*meets second .*: what they read differs by"),
    "join": (lambda: plain(relu=None), r"body\.3 .*meets second .*: what they read differs by"),
    "another function": (
        lambda: plain(second=Standardized(4, 4, 3, padding=1, bias=False)),
        r"body\.6 .*meets classifier .*: what they read differs by",
    ),
    "size": (
        lambda: plain(relu=nn.MaxPool2d(2)),
        r"body\.3 .*meets second .*: they read \(1, 4, 9, 9\) here, \(1, 4, 4, 4\) there",
    ),
    "output": (lambda: nn.Sequential(plain(), nn.Softmax(1)), r"after the last layer, .* the outputs differ by"),
    "unused": (Twice, r"Twice holds weights that it does not use, first those of spare"),
    "repeated": (repeated, r"inner\.first .* runs more than once"),
    "attention": (Attention, r"body\.1 .*meets attention \(MultiheadAttention, .*: kind"),
    "transposed": (
        lambda: plain(second=nn.ConvTranspose2d(4, 4, 3, padding=1, bias=False)),
        r"second .*: kind is convolution here, ConvTranspose2d there",
    ),
    "input": (
        lambda: plain(first=conv(2, 4, 3)),
        r"Sequential must take the weights and run on a batch of 1x3x9x9, but",
    ),
    "not a tensor": (lambda: nn.Sequential(plain(), Text()), r"must return a tensor, or several, but got str"),
}


class Text(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "text"


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", REFUSED)
def test_a_difference_is_named_and_nothing_changes(name: str) -> None:
    make, message = REFUSED[name]
    network, theirs = build(PLAIN, 0), randomized(make())
    before, foreign_before, random = state(network), state(theirs), torch.get_rng_state()
    with pytest.raises(ArchitectureError, match=message):
        load_foreign(network, theirs)
    assert_unchanged(network, before)
    assert_unchanged(theirs, foreign_before)
    assert torch.equal(torch.get_rng_state(), random)
    assert network.training
    assert all(m.training for m in theirs.modules())


def test_the_plain_module_itself_is_not_refused() -> None:
    network, theirs = build(PLAIN, 0), randomized(plain())
    load_foreign(network, theirs)
    torch.testing.assert_close(network.eval()(inputs(network).float()), theirs.eval()(inputs(network).float()))


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        (architecture(Conv(4, 3, padding=0, bias=True), RELU, Conv(4, 3, padding=0, bias=True)), r"meets head \("),
        (architecture(Conv(4, 3, padding=0, bias=True), TAP, RELU, Conv(4, 3, padding=0, bias=True)), "read differs"),
    ],
    ids=["head missing", "head elsewhere"],
)
def test_an_auxiliary_head_must_be_on_both_sides_at_one_place(ours: Architecture, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        load_foreign(build(ours, 0), Auxiliary())


def test_an_octave_network_takes_weights_of_its_like_and_refuses_others() -> None:
    octave = architecture(Conv(4, 3, low=2), Norm(), RELU, Conv(4, 3), input=(3, 8, 8))
    with pytest.raises(ArchitectureError, match=r"body\.0\.hh .*meets first .*: weight is \(2, 3, 3, 3\) here, \(4, 3"):
        load_foreign(build(octave, 0), plain())
    one, other = build(octave, 0), build(octave, 1)
    load_foreign(one, other)
    assert_unchanged(one, state(other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("second.weight"), r'Missing key.*"second\.weight"'),
        (lambda d: d.update(third=torch.zeros(1)), r'Unexpected key.*"third"'),
        (lambda d: d.update({"second.weight": torch.zeros(1)}), r"size mismatch for second\.weight"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_a_state_dict_of_another_module_is_refused(change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    network, weights = build(PLAIN, 0), state(plain())
    before = state(network)
    change(weights)
    with pytest.raises(ArchitectureError, match=f"(?s)Sequential must take the weights .*{message}"):
        load_foreign(network, plain(), weights)
    assert_unchanged(network, before)


def test_what_is_no_network_or_no_module_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="load into a Network made by `build`, but got Sequential"):
        load_foreign(plain(), plain())
    with pytest.raises(ArchitectureError, match="`module` must be the torch module of the weights, but got dict"):
        load_foreign(build(PLAIN, 0), state(plain()))
