"""Foreign modules of every wiring: what must leave leaves, the function stays, the module given is untouched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import small_modules as small
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_modules import Drawn, planted
from small_modules import conv, norm, unit
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm

from pruning.exact import Pruned, remove_dead
from pruning.places import PruneError, tensors

Make = Callable[[int], nn.Module]
Widths = tuple[int, int, int]

ZERO, HIGH, LOW = 0.0, 0.3, -1.0  # what dead norms are shifted to; a relu makes a zero of the last
ALL: Widths = (8, 8, 8)  # of 12 channels, 4 of which are dead
CARRIED: Widths = (8, 9, 8)  # one constant stays past zero padding
ZEROS: Widths = (8, 12, 8)  # constants other than 0 stay

# What is left of each layer's 12 channels after its norm's channels 1, 4, 7, 10 were killed with each shift. What is
# not named keeps its width.
CASES: dict[str, tuple[Make, dict[str, Widths]]] = {
    "plain": (small.Plain, {"stem.0": CARRIED, "mix.0": ALL}),
    "bias": (partial(small.Plain, bias=True), {"stem.0": CARRIED, "mix.0": ALL}),
    "grouped": (partial(small.Plain, groups=2), {"stem.0": (8, 10, 8), "mix.0": ALL}),
    "dilated": (partial(small.Plain, dilation=2, padding=2, stride=2), {"stem.0": CARRIED, "mix.0": ALL}),
    "depthwise": (partial(small.Plain, groups=12), {"stem.0": ALL, "mix.0": ALL}),
    "pointwise": (partial(small.Plain, kernel=1), {"stem.0": ALL, "mix.0": ALL}),
    "replicated border": (partial(small.Plain, padding_mode="replicate"), {"stem.0": ALL, "mix.0": ALL}),
    "circular border": (partial(small.Plain, padding_mode="circular"), {"mix.0": ALL}),
    "split, concat, shuffle": (
        small.SplitShuffle,  # the second shuffle ties what is dead in one half to what lives in the other
        {f"units.{i}.{j}": (4, 4, 4) for i in (0, 1) for j in ("0.0", "1")} | {"last.0": (16, 16, 16)},
    ),
    "split, concat, shuffle by modules": (
        partial(small.SplitShuffle, by_module=True),
        {f"units.{i}.{j}": (4, 4, 4) for i in (0, 1) for j in ("0.0", "1", "3.0")}
        | {"last.0": (16, 16, 16), "stem.0": ALL},
    ),
    "shuffle, grouped reader": (small.Shuffled, {"stem.0": ALL, "before.0": ALL, "after.0": ALL}),
    "shuffle, dense reader": (partial(small.Shuffled, reader=1), {"stem.0": ALL, "before.0": ALL, "after.0": ALL}),
    "shuffle of 3, reader of 2": (
        partial(small.Shuffled, groups=3),  # 3 must leave of the one, an even number of the other
        {"stem.0": (9, 9, 9), "after.0": ALL},
    ),
    "auxiliary head": (
        small.Auxiliary,
        dict.fromkeys(("stem.0", "one.0", "three.1.0", "pooled.0", "last.0", "aux.0.0"), ALL) | {"three.0.0": CARRIED},
    ),
    "gate by linear layers": (small.SqueezeExcite, {"stem.0": ZEROS, "up": ZEROS, "mix.0": ALL}),
    "gate by convolutions": (
        partial(small.SqueezeExcite, by_linear=False),
        {"stem.0": ZEROS, "up": ZEROS, "mix.0": ALL},
    ),
    "dense concatenation": (small.DenseConcat, {"stem.0": CARRIED, "layers.0.2": ALL, "layers.1.2": ALL}),
    "flattened": (small.Flat, {"stem.0": ALL}),
    "flattened by a computed number": (partial(small.Flat, how="computed"), {"stem.0": ALL}),
    "flattened by a number written down": (partial(small.Flat, how="hard-coded"), {}),
    "flattened channels last": (partial(small.Flat, how="last"), {"stem.0": ALL}),
    "pre-activation, padded channels": (small.PreActivation, {"first.2.0": CARRIED, "second.2.0": CARRIED}),
    "residual": (
        small.Residual,
        dict.fromkeys(("stem.0", "blocks.0.0.0", "blocks.0.1", "blocks.1.0.0", "blocks.1.1"), CARRIED),
    ),
    "residual, pointwise": (
        partial(small.Residual, kernel=1),
        dict.fromkeys(("stem.0", "blocks.0.0.0", "blocks.0.1", "blocks.1.0.0", "blocks.1.1"), ALL),
    ),
    "separable": (
        small.Separable,
        {"stem.0": ALL, "expand.0": (16, 16, 16), "depth.0": (16, 16, 16), "project.0": ALL},
    ),
    "octave": (
        small.Octave,
        {"stem.0": CARRIED, "low.0": CARRIED} | dict.fromkeys(("hh", "hl", "lh", "ll", "last.0"), ALL),
    ),
    "scales, gates, slopes": (
        small.Scaled,
        {"stem.0": ALL, "gamma": ALL, "mix.0": ZEROS, "gate": ZEROS, "again.0": ALL},
    ),
    "values of places": (small.Positioned, {}),
    "reused and tied": (small.Reused, {"stem.0": ZEROS, "block.0": ZEROS, "last.0": ALL}),
    "U-Net": (small.UNet, {"down.0": CARRIED, "merge.0": ALL}),
    "split into fixed sizes": (
        small.FixedSplit,
        {"parts.1.0": (3, 3, 3), "mix.0": CARRIED, "last.0": ALL},
    ),
    "slices": (small.Sliced, {"stem.0": (9, 9, 9), "last.0": ALL}),
    "slices in place": (partial(small.Sliced, in_place=True), {"last.0": ALL}),
    "attention over channels": (small.OverChannels, {"stem.0": CARRIED, "last.0": ALL}),
    "group norm": (partial(small.OtherNorms, kind="group"), {"stem.0": CARRIED, "last.0": ALL}),
    "instance norm": (partial(small.OtherNorms, kind="instance"), {"stem.0": CARRIED, "last.0": ALL}),
    "tracked instance norm": (partial(small.OtherNorms, kind="tracked"), {"stem.0": CARRIED, "last.0": ALL}),
    "local norm": (partial(small.OtherNorms, kind="local"), {"stem.0": CARRIED, "last.0": ALL}),
    "layer norm, permuted": (small.ConvNeXt, {"last.0": ALL}),
    "larger of two": (small.Largest, {"stem.0": CARRIED, "left.0": ALL, "right.0": ALL, "last.0": ALL}),
    "padded by hand": (small.PaddedByHand, {"stem.0": ZEROS, "mix.0": ALL}),
    "replicated by hand": (partial(small.PaddedByHand, mode="replicate"), {"stem.0": ALL, "mix.0": ALL}),
    "standardised weights": (small.Standardised, {"last.0": ALL}),
    "nested outputs": (small.Nested, {"stem.0": ALL}),
    "features come out": (small.Features, {"stem.0": CARRIED}),
    "whole numbers": (small.Counting, {"stem.0": CARRIED, "last.0": ALL}),
    "a norm of its own": (small.OwnNorm, {"stem.0": CARRIED, "last.0": ALL}),
    "without gradients": (small.NoGrad, {"stem.0": CARRIED, "mix.0": ALL}),
    "attention over places": (small.ChannelsLast, {"stem.0": CARRIED, "last.0": ALL}),
    "writes into its input": (small.InPlaceInput, {"stem.0": ALL}),
}
ONLY = {"pixels": (small.PixelShuffled, {"stem.0": CARRIED}, 2)} | {
    "video": (small.Video, {"space.0": CARRIED, "time.0": CARRIED, "frames.0": ALL}, 3)
}
LISTED = [(name, *case, dims) for name, case in CASES.items() for dims in (2, 3)] + [(n, *c) for n, c in ONLY.items()]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def made(make: Callable[[], nn.Module], shift: float | None = None) -> nn.Module:
    """A module in float64 with random statistics; with `shift`, channels 1, 4, ... of each norm are dead."""
    module = make().double().eval()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 1.5)
                part.weight.normal_(1, 0.3)
                part.bias.normal_(0, 0.5)
                if shift is not None:
                    part.weight[1::3], part.bias[1::3] = 0.0, shift
    return module


def size_of(dims: int, extent: int = 8) -> tuple[int, ...]:
    return (3, *[extent] * dims)


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Whatever happens within, the module is bit-identical after, with its modes, hooks and the RNG as before."""

    def state() -> dict[str, Tensor]:
        return {**dict(module.named_parameters()), **dict(module.named_buffers())}

    tensors_before = state()
    values = {name: t.detach().clone() for name, t in tensors_before.items()}
    modes = {name: part.training for name, part in module.named_modules()}
    rng = torch.get_rng_state()
    try:
        yield
    finally:
        after = state()
        assert all(after[name] is t for name, t in tensors_before.items())
        assert all(torch.equal(after[name], value) for name, value in values.items())
        assert not any(vars(t) for t in after.values())
        assert {name: part.training for name, part in module.named_modules()} == modes
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
        assert torch.equal(torch.get_rng_state(), rng)


def apart(module: nn.Module, other: nn.Module, x: Tensor) -> float:
    """The largest relative difference of any output."""
    with torch.no_grad():
        pairs = list(zip(tensors(module(x.clone())), tensors(other(x.clone())), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-300)) for a, b in pairs if a.is_floating_point())


def consistent(module: nn.Module) -> None:
    """Layers say the widths that their tensors have."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d):
            assert part.weight.shape[:2] == (part.out_channels, part.in_channels // part.groups)
            assert part.bias is None or len(part.bias) == part.out_channels
        if isinstance(part, nn.Linear):
            assert part.weight.shape == (part.out_features, part.in_features)
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            assert part.running_mean is not None
            assert len(part.weight) == len(part.running_mean) == part.num_features


def trains(module: nn.Module, x: Tensor) -> None:
    """A training step changes the weights."""
    module.train()
    before = [p.detach().clone() for p in module.parameters()]
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    loss = torch.stack([y.square().mean() for y in tensors(module(x)) if y.requires_grad]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    module.eval()


def pruned_of(module: nn.Module, *sizes: tuple[int, ...]) -> Pruned:
    """What comes out for inputs of the first size, after checking what is promised of any module in float64."""
    with untouched(module):
        pruned = remove_dead(module, example=torch.zeros(1, *sizes[0], dtype=torch.float64))
    assert pruned.proof.relative_error <= 1e-12
    for size in sizes:
        x = torch.randn(3, *size, dtype=torch.float64)
        assert apart(module, pruned.network, x) <= 1e-12
    wanted, got = (tensors(copy.deepcopy(m).train()(x.clone())) for m in (module, pruned.network))
    assert [y.shape for y in wanted] == [y.shape for y in got]  # heads that run in training among them
    consistent(pruned.network)
    return pruned


def widths(module: nn.Module) -> dict[str, int]:
    return {name.removesuffix(".weight"): len(p) for name, p in module.named_parameters() if p.dim() > 1}


@pytest.mark.parametrize(("name", "make", "left", "dims"), LISTED, ids=[f"{c[0]} {c[3]}D" for c in LISTED])
def test_what_is_dead_leaves_and_the_function_stays(name: str, make: Make, left: dict[str, Widths], dims: int) -> None:
    fixed = name in ("values of places",)
    for place, shift in enumerate((ZERO, HIGH, LOW) if dims == 2 else (HIGH,)):
        module = made(lambda: make(dims), shift)
        wanted = widths(module) | {layer: each[place if dims == 2 else 1] for layer, each in left.items()}
        pruned = pruned_of(module, size_of(dims), *() if fixed else (size_of(dims, 12),))
        assert widths(pruned.network) == wanted
        if shift == HIGH:
            assert remove_dead(pruned.network, example=torch.zeros(1, *size_of(dims))).removed == {}
            if name != "whole numbers":
                trains(pruned.network, torch.randn(4, *size_of(dims), dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_precision_given_comes_back(dtype: torch.dtype) -> None:
    module = made(lambda: small.Residual(2), HIGH).to(dtype)
    with untouched(module):
        pruned = remove_dead(module, example=torch.zeros(1, 3, 8, 8))
    assert {p.dtype for p in pruned.network.parameters()} == {dtype}
    assert pruned.network.get_parameter("stem.0.weight").shape[0] == 9
    if dtype == torch.float32:
        assert apart(module, pruned.network, torch.randn(4, 3, 8, 8)) < 1e-5


def test_a_graph_of_torch_fx_is_a_module_like_any_other() -> None:
    module = torch.fx.symbolic_trace(made(lambda: nn.Sequential(unit(2, 3), unit(2), nn.Flatten(2)), ZERO))
    assert widths(pruned_of(module, size_of(2)).network) == {"0.0": 8, "1.0": 12}


# kinds of death


def test_zero_filters_leave_with_the_bias_that_they_are() -> None:
    for bias in (0.0, 0.7, -2.0):
        module = made(lambda: nn.Sequential(conv(2, 3, 12, bias=True), nn.ReLU(), conv(2, 12, 4, 1, bias=True)))
        with torch.no_grad():
            module.get_parameter("0.weight")[[2, 5]] = 0
            module.get_parameter("0.bias")[[2, 5]] = bias
        pruned = pruned_of(module, size_of(2), size_of(2, 11))
        assert [c.channel for c in pruned.removed["0"]] == [2, 5]
        assert {c.value for c in pruned.removed["0"]} == {max(bias, 0.0)}


def test_what_is_dead_on_data_alone_leaves_with_the_data_alone() -> None:
    module = made(lambda: small.Plain(2))
    with torch.no_grad():
        module.get_parameter("stem.1.bias")[[0, 3, 8]] = -50.0
    data = [torch.randn(8, 3, 8, 8).double() for _ in range(2)]
    kept = [x.clone() for x in data]
    assert remove_dead(module, example=data[0]).removed == {}
    with untouched(module):
        pruned = remove_dead(module, data, example=data[0])
    assert [c.channel for c in pruned.removed["stem.0"]] == [0, 3, 8]
    assert all(torch.equal(a, b) for a, b in zip(data, kept))
    assert apart(module, pruned.network, torch.cat(data)) <= 1e-12
    assert apart(module, pruned.network, 100 * data[0]) > 1e-3  # no input like these was seen


def test_weights_that_a_module_holds_itself_are_cut_and_take_no_constants_without_a_bias() -> None:
    for shift, left in ((ZERO, 8), (HIGH, 12)):
        module = made(lambda: small.Functional(2))
        with torch.no_grad():
            module.get_parameter("scale")[1::3], module.get_parameter("shift")[1::3] = 0.0, shift
        pruned = pruned_of(module, size_of(2), size_of(2, 9))
        assert {n: len(pruned.network.state_dict()[n]) for n in ("first", "mu", "scale")} == dict.fromkeys(
            ("first", "mu", "scale"), left
        )
        assert pruned.network.get_parameter("second").shape == (12, left, 1, 1)


def test_a_constant_before_a_padded_average_is_folded_before_it_not_into_the_norm_behind() -> None:
    class Averaged(small.Headed):
        def __init__(self) -> None:
            super().__init__(2)
            self.mix, self.norm = conv(2, 12, 12, 1), norm(2)

        def body(self, x: Tensor) -> Tensor:
            return self.norm(torch.add(F.avg_pool2d(self.mix(x), 3, 1, padding=1), x, alpha=2)).relu()

    module = made(Averaged)
    with torch.no_grad():
        module.get_parameter("stem.1.weight")[1::3], module.get_parameter("stem.1.bias")[1::3] = 0.0, HIGH
    pruned_of(module, size_of(2), size_of(2, 9))


def test_what_is_turned_is_not_equal_to_what_is_not() -> None:
    class Turned(small.Headed):
        def __init__(self) -> None:
            super().__init__(2)
            self.last = unit(2, 24, 12)

        def body(self, x: Tensor) -> Tensor:
            return self.last(torch.cat((x, x.transpose(2, 3)), 1))

    module = made(Turned)
    assert pruned_of(module, size_of(2)).removed == {}
    double(module, "stem", 0, 5)
    assert [c.cause for c in pruned_of(module, size_of(2)).removed["stem.0"]] == ["equals channel 5 of stem.0"]


# equal channels


def double(module: nn.Module, name: str, one: int, other: int) -> None:
    """Filter `other` of the unit `name`, and its norm, becomes a copy of `one`."""
    with torch.no_grad():
        tensors_of = module.get_submodule(name).state_dict()
        for tensor in tensors_of.values():
            if tensor.dim():
                tensor[other] = tensor[one]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("make", "unit_of", "pair", "gone"),
    [
        (small.Plain, "stem", (2, 7), {"stem.0": [7]}),
        (partial(small.Plain, groups=2), "stem", (2, 7), {}),  # in two groups of the reader
        (partial(small.Plain, groups=2), "stem", (1, 3), {}),  # the other group would keep more
        (partial(small.Plain, groups=12), "stem", (2, 7), {}),  # each has its own filter
        (small.Residual, "stem", (2, 7), {}),  # what is added to them is not equal
        (small.Residual, "blocks.0.0", (2, 7), {"blocks.0.0.0": [7]}),
        (small.Flat, "stem", (2, 7), {"stem.0": [7]}),
        (partial(small.Flat, how="last"), "stem", (2, 7), {"stem.0": [7]}),
        (small.Octave, "low", (2, 7), {"low.0": [7]}),
        (small.Auxiliary, "one", (2, 7), {"one.0": [7]}),
        (small.Auxiliary, "stem", (2, 7), {"stem.0": [7]}),
        (small.SqueezeExcite, "stem", (2, 7), {}),  # their gates are not equal
        (small.OverChannels, "mix", (2, 7), {}),  # a mean counts them both
    ],
)
def test_of_two_equal_channels_one_leaves_where_every_reader_can_do_with_one(
    make: Make, unit_of: str, pair: tuple[int, int], gone: dict[str, list[int]], dims: int
) -> None:
    module = made(lambda: make(dims))
    double(module, unit_of, *pair)
    pruned = pruned_of(module, size_of(dims))
    found = {name: [c.channel for c in listed] for name, listed in pruned.removed.items()}
    assert {name: [max({pair[1]} & {*here} or {*pair})] for name, here in found.items()} == gone
    assert all(len(here) == 1 for here in found.values())


def test_equal_channels_of_every_group_are_merged_group_by_group() -> None:
    module = made(lambda: small.Plain(2, groups=2))
    double(module, "stem", 1, 3)
    double(module, "stem", 6, 11)
    pruned = pruned_of(module, size_of(2))
    assert pruned.network.get_parameter("stem.0.weight").shape[0] == 10
    assert pruned.network.get_parameter("mix.0.weight").shape[1] == 5


# refusals, and what a failure leaves behind


class Failing(small.Plain):
    """Runs `left` times."""

    left = 3

    def forward(self, x: Tensor) -> Tensor:
        Failing.left -= 1
        if Failing.left < 0:
            raise RuntimeError("no more")
        return super().forward(x)


class WritesWeights(small.Plain):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.head.weight.data = self.head.weight.data / self.head.weight.data.norm()
        return super().forward(x)


class NeedsLabels(small.Plain):
    """A head that asks for labels in training."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.aux = nn.Linear(12, 5)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:  # type: ignore[override]
        x = self.stem(x)
        if self.training:
            assert labels is not None, "labels, please"
            return F.cross_entropy(self.aux(x.mean((2, 3))), labels)
        return self.head(self.body(x).mean((2, 3)))


class Hiding(small.Plain):
    """Returns an object of its own."""

    def forward(self, x: Tensor) -> object:  # type: ignore[override]
        return super().forward(x), iter([x])


class Keeping(small.Plain):
    """Keeps what it made."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.stem(x)
        return super().forward(x)


def keeping() -> nn.Module:
    module = Keeping(2).double()
    module(torch.zeros(1, 3, 8, 8).double())
    return module


class OfMapping(small.Plain):
    def forward(self, x: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(x["image"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: small.Checked(2), "must run as the one given does, but: .*: Expected 12 channels, but got 8"),
        (lambda: small.NoGrad(2, inference=True), "must not run under torch.inference_mode"),
        (lambda: WritesWeights(2), "must not write into its parameters as it runs, but it writes head.weight"),
        (lambda: NeedsLabels(2), "must run in training mode if only then it reads aux.bias, but: .*: labels, please"),
        (lambda: Hiding(2), "must return tensors, in lists, tuples, mappings or dataclasses, but there is a list_iter"),
        (lambda: OfMapping(2), r"must run on inputs of \(2, 3, 8, 8\) in float64, but"),
        (lambda: small.Plain(3), r"must run on inputs of \(2, 3, 8, 8\) in float64, but"),
        (lambda: spectral_norm(nn.Conv2d(3, 4, 3)), "must have no hooks, but it has"),
        (lambda: nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))), "but 0 is parametrized"),
        (lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))), "but 0 is parametrized"),
        (keeping, "must be one that copy.deepcopy copies, but"),
        (lambda: torch.compile(small.Plain(2)), "must be plain Python, but it is compiled: give the original"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning", "ignore::DeprecationWarning")
def test_what_cannot_be_followed_is_refused_by_name_and_left_alone(make: Callable[[], nn.Module], words: str) -> None:
    module = made(make, ZERO)
    hooks = [(part, len(part._forward_pre_hooks)) for part in module.modules()]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(PruneError, match=words):
        remove_dead(module, example=torch.zeros(1, 3, 8, 8))
    assert [(part, len(part._forward_pre_hooks)) for part in module.modules()] == hooks
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("script", [torch.jit.script, partial(torch.jit.trace, example_inputs=torch.zeros(1, 3, 8, 8))])
def test_a_script_is_refused(script: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(PruneError, match="must be plain Python, but it is compiled"):
        remove_dead(script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())), example=torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("runs", range(11))
def test_wherever_a_module_fails_it_is_as_before(runs: int) -> None:
    module = made(lambda: Failing(2), ZERO)
    Failing.left = runs
    x = torch.ones(2, 3, 8, 8)
    with untouched(module), pytest.raises(PruneError, match="no more"):
        remove_dead(module, example=x)
    assert torch.equal(x, torch.ones(2, 3, 8, 8))
    assert not vars(x)


@pytest.mark.parametrize("seconds", [0.0, 1e-3, 0.03])
def test_time_runs_out_and_nothing_has_changed(seconds: float) -> None:
    module = made(lambda: small.Separable(3), ZERO).train()
    with untouched(module), pytest.raises(PruneError, match="within its time limit"):
        remove_dead(module, example=torch.zeros(1, *size_of(3, 24)), seconds=seconds)


def test_what_is_written_into_an_input_stays_out_of_what_was_given() -> None:
    module = made(lambda: small.InPlaceInput(2), HIGH)
    data = [torch.randn(4, 3, 8, 8).double()]
    before = data[0].clone()
    pruned = remove_dead(module, data, example=data[0], proof_inputs=data)
    assert {c.channel for c in pruned.removed["stem.0"]} >= {1, 4, 7, 10}
    assert torch.equal(data[0], before)


# at random

STEPS = st.lists(st.tuples(st.integers(0, 999), *[st.integers(-1, 999)] * 3), min_size=1, max_size=10)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, dims=st.sampled_from((2, 2, 3)), seed=st.integers(0, 10**6))
def test_random_modules_stay_what_they_compute(steps: list[tuple[int, int, int, int]], dims: int, seed: int) -> None:
    torch.manual_seed(seed)
    module = Drawn(steps, dims).double().eval()
    planted(module, seed)
    with untouched(module):
        pruned = remove_dead(module, example=torch.zeros(1, *size_of(dims)))
    for extent in (8, 12):
        x = torch.randn(2, *size_of(dims, extent), dtype=torch.float64)
        try:
            with torch.no_grad():
                module(x)
        except RuntimeError:  # not of this size
            continue
        assert apart(module, pruned.network, x) <= 1e-12
    consistent(pruned.network)
    assert remove_dead(pruned.network, example=torch.zeros(1, *size_of(dims))).removed == {}
