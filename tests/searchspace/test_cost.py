"""Costs: the closed forms of the papers, and equality with a trace of the built network, to the unit."""

from fractions import Fraction
from math import comb, prod
from random import Random

import pytest
import torch
from hypothesis import given, settings
from strategies import architectures, random_architecture, random_site
from torch import nn

from searchspace.architecture import (
    AdaptivePool,
    Add,
    Architecture,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Flatten,
    Linear,
    Norm,
    Shape,
    SqueezeExcite,
    Tap,
)
from searchspace.blocks import factorized
from searchspace.cost import cost, leaf_cost, trace_flops
from searchspace.network import build, leaf_module

# M inputs, N outputs, K kernel, space of the map.
SIZES = [(M, N, K, space) for M, N, K in ((3, 8, 3), (16, 24, 5), (12, 6, 7)) for space in ((14, 11), (4, 9, 8))]
ALPHAS = [Fraction(a, 8) for a in (0, 1, 2, 4, 6, 7, 8)]


def of(leaf, channels, space, low=0):
    before = Shape(channels, space, low)
    return leaf_cost(leaf, before, leaf.after(before))


@pytest.mark.parametrize(("M", "N", "K", "space"), SIZES)
class TestClosedForms:
    def test_standard_convolution(self, M, N, K, space):
        c = of(Conv(N, K, bias=True), M, space)
        volume = K ** len(space)
        assert c.params == N * (M * volume + 1)
        assert c.macs == c.flops == M * prod(space) * volume * N
        assert c.activations == N * prod(space)
        assert c.interactions == N * comb(M, 2)

    def test_pointwise_convolution(self, M, N, K, space):
        c = of(Conv(N, bias=True), M, space)
        assert (c.params, c.macs) == (N * (M + 1), M * prod(space) * N)

    @pytest.mark.parametrize("G", [1, 2, 3])
    def test_grouped_convolution(self, M, N, K, space, G):
        M, N = M * 6, N * 6
        c = of(Conv(N, K, groups=G, bias=True), M, space)
        volume = K ** len(space)
        assert c.params == N * (M * volume // G + 1)
        assert c.macs == prod(space) * volume * M * N // G
        assert c.interactions == N * comb(M // G, 2)

    def test_depthwise_convolution(self, M, N, K, space):
        c = of(Depthwise(K, bias=True), M, space)
        volume = K ** len(space)
        assert (c.params, c.macs, c.interactions) == (M * (volume + 1), M * prod(space) * volume, 0)

    def test_depthwise_separable_convolution(self, M, N, K, space):
        dw, pw = of(Depthwise(K, bias=True), M, space), of(Conv(N, bias=True), M, space)
        volume = K ** len(space)
        assert dw.params + pw.params == M * volume + N * M + M + N
        assert dw.macs + pw.macs == M * prod(space) * (volume + N)
        ratio = Fraction(dw.macs + pw.macs, of(Conv(N, K), M, space).macs)
        assert ratio == Fraction(1, N) + Fraction(1, volume)

    def test_a_stride_divides_the_work(self, M, N, K, space):
        out = tuple(-(-n // 2) for n in space)
        assert of(Conv(N, K, 2), M, space).macs == M * N * K ** len(space) * prod(out)


@pytest.mark.parametrize("space", [(8, 12), (3, 8, 12)])
@pytest.mark.parametrize("K", [1, 3])
class TestOctaveClosedForms:
    @pytest.mark.parametrize("a", ALPHAS)
    @pytest.mark.parametrize("b", ALPHAS)
    def test_convolution_saves_by_both_shares(self, K, space, a, b):
        M, N = 16, 24
        plain, octave = of(Conv(N, K), M, space), of(Conv(N, K, low=int(b * N)), M, space, int(a * M))
        assert octave.params == plain.params
        assert octave.macs == plain.macs * (1 - Fraction(3, 4) * (1 - (1 - a) * (1 - b)))
        assert octave.interactions == plain.interactions

    @pytest.mark.parametrize("a", ALPHAS)
    def test_groups_save_alike(self, K, space, a):
        G = 2
        plain, octave = of(Conv(16, K, groups=G), 16, space), of(Conv(16, K, groups=G, low=int(a * 16)), 16, space)
        assert octave.macs == plain.macs * (1 - Fraction(3, 4) * a)

    @pytest.mark.parametrize("a", ALPHAS)
    def test_depthwise_and_memory_save_three_quarters_of_alpha(self, K, space, a):
        plain, octave = of(Depthwise(K), 16, space), of(Depthwise(K), 16, space, int(a * 16))
        for name in ("macs", "activations"):
            assert getattr(octave, name) == getattr(plain, name) * (1 - Fraction(3, 4) * a)
        assert octave.params == plain.params
        assert Shape(16, space, int(a * 16)).elements == 16 * prod(space) * (1 - Fraction(3, 4) * a)


def test_the_octave_papers_table():
    """Chen et al. 2019, table 1: cost and memory in percent at alpha 0 .. 1 on both sides."""
    full = of(Conv(64, 3), 64, (28, 28))
    got = [of(Conv(64, 3, low=int(a * 64)), 64, (28, 28), int(a * 64)) for a in ALPHAS]
    assert [round(100 * c.macs / full.macs) for c in got] == [100, 82, 67, 44, 30, 26, 25]
    assert [100 * c.activations / full.activations for c in got] == [100, 90.625, 81.25, 62.5, 43.75, 34.375, 25]


def pieces(kernel, kind, dims):
    leaves = [Conv(32, k, s) for k, s in factorized(kernel, 1, dims, kind, False)]
    return sum(of(leaf, 32, (9, 8) if dims == 2 else (4, 9, 8)).macs for leaf in leaves)


def test_two_3x3_for_one_5x5_save_28_percent():
    assert Fraction(pieces(5, "stacked", 2), pieces(5, "none", 2)) == 1 - Fraction(28, 100)
    assert Fraction(pieces(7, "stacked", 2), pieces(7, "none", 2)) == Fraction(27, 49)


@pytest.mark.parametrize("n", [3, 5, 7])
def test_an_asymmetric_pair_saves_one_minus_two_over_n(n):
    assert 1 - Fraction(pieces(n, "asymmetric", 2), pieces(n, "none", 2)) == 1 - Fraction(2, n)


@pytest.mark.parametrize("factor", [2, 3])
def test_the_width_multiplier_is_squared_and_the_resolution_multiplier_too(factor):
    base = of(Conv(8, 3), 8, (8, 8)).macs
    assert of(Conv(8 * factor, 3), 8 * factor, (8, 8)).macs == factor**2 * base
    assert of(Conv(8, 3), 8, (8 * factor, 8 * factor)).macs == factor**2 * base


def test_norm_costs_two_flops_an_element_and_two_params_a_channel():
    c = of(Norm(), 8, (5, 4), 4)
    assert (c.flops, c.macs, c.params, c.activations) == (2 * (4 * 20 + 4 * 6), 0, 16, 0)


def test_squeeze_excite_counts_its_two_layers_and_its_pooling():
    c = of(SqueezeExcite(3), 8, (5, 4))
    assert (c.macs, c.flops, c.params) == (2 * 8 * 3, 2 * 8 * 3 + 8 * 20, 2 * 8 * 3 + 8 + 3)


def test_the_cost_of_a_small_network_by_hand():
    head = (AdaptivePool(), Flatten(), Linear(3))
    aux = Tap(Chain(head))
    block = Add((Chain((Conv(4, 3), Norm())), Chain()))
    a = Architecture((2, 6, 5), Chain((Conv(4), block, aux, Concat((Chain(), Conv(2))), *head)))
    c = cost(a)
    convs = 2 * 4 * 30 + 4 * 4 * 9 * 30 + 4 * 2 * 30
    assert c.macs == convs + 6 * 3
    assert c.flops == c.macs + 2 * 4 * 30 + 6 * 30
    assert c.params == 8 + 144 + 8 + 8 + (6 * 3 + 3) + (4 * 3 + 3)
    assert c.activations == 4 * 30 + 4 * 30 + 2 * 30 + 3
    assert c.interactions == 4 * comb(2, 2) + 4 * comb(4, 2) + 2 * comb(4, 2)
    assert c.peak_activations == 4 * 30 + 4 * 30
    assert c.receptive_field == (3, 3)


# Against the tracer -----------------------------------------------------------------------------------------------


class _Leaf(nn.Module):
    """One leaf on an octave or plain map given as a single tensor, so that the tracer can feed it."""

    def __init__(self, leaf, before):
        super().__init__()
        self.leaf, self.before = leaf_module(leaf, before, leaf.after(before)), before

    def forward(self, x):
        b = self.before
        if not b.low:
            return self.leaf(x)
        axes = tuple(slice(0, n) for n in b.low_space)
        return self.leaf((x[:, : b.high] if b.high else None, x[(slice(None), slice(b.high, None), *axes)]))


def test_2000_leaves_cost_what_their_trace_counts():
    rng = Random(0)
    for _ in range(2000):
        leaf, before = random_site(rng)
        module = _Leaf(leaf, before)
        c = leaf_cost(leaf, before, leaf.after(before))
        assert c.flops == trace_flops(module, (before.channels, *before.space)), (leaf, before)
        assert c.params == sum(p.numel() for p in module.parameters()), (leaf, before)


@given(architectures())
@settings(max_examples=60)
def test_an_architecture_costs_what_its_trace_counts(a):
    network = build(a, 0)
    assert cost(a).flops == trace_flops(network, a.input)
    assert cost(a).params == sum(p.numel() for p in network.parameters())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_1000_architectures_cost_what_their_trace_counts():
    for seed in range(1000):
        a = random_architecture(Random(seed))
        network = build(a, 0)
        assert cost(a).flops == trace_flops(network, a.input), str(a)
        assert cost(a).params == sum(p.numel() for p in network.parameters()), str(a)


@given(architectures())
@settings(max_examples=30)
def test_activations_are_what_convolutions_and_linear_layers_put_out(a):
    network, counted = build(a, 0).eval(), []

    def count(module, inputs, output):
        counted.append(sum(x.numel() for x in (output if isinstance(output, tuple) else (output,)) if x is not None))

    for site in a.sites:
        module = network.get_submodule(site.name)
        if isinstance(site.leaf, Conv | Depthwise | Linear) and not site.auxiliary:
            module.register_forward_hook(count)
        if isinstance(site.leaf, SqueezeExcite):
            module.squeeze.register_forward_hook(count)
            module.expand.register_forward_hook(count)
    network(torch.randn(1, *a.input))
    assert sum(counted) == cost(a).activations


def test_tracing_leaves_the_network_as_it_was():
    network = build(Architecture((3, 8, 8), Chain((Conv(4, low=2), Norm()))), 0).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    trace_flops(network, (3, 8, 8))
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
