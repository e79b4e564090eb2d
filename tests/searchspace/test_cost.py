"""Costs: small ones by hand, and equality with a trace of the built network, to the unit.

The closed forms of the papers are in `test_closed_forms`.
"""

from math import comb, prod
from random import Random

import pytest
import torch
from hypothesis import given, settings
from strategies import architectures, random_architecture, random_site
from torch import nn

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Architecture,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Dropout,
    Flatten,
    Linear,
    Norm,
    Shape,
    SqueezeExcite,
    Tap,
)
from searchspace.cost import cost, leaf_cost, trace_flops
from searchspace.network import build, leaf_module


def of(leaf, channels, space, low=0):
    before = Shape(channels, space, low)
    return leaf_cost(leaf, before, leaf.after(before))


@pytest.mark.parametrize("space", [(14, 11), (4, 9, 8)])
def test_a_convolution_counts_no_bias_as_a_flop_and_every_output_as_an_activation(space):
    c = of(Conv(8, 3, bias=True), 6, space)
    assert c.flops == c.macs == 6 * 8 * 3 ** len(space) * prod(space)
    assert c.activations == 8 * prod(space)


@pytest.mark.parametrize("space", [(14, 11), (4, 9, 8)])
def test_a_stride_divides_the_work(space):
    out = tuple(-(-n // 2) for n in space)
    assert of(Conv(8, 3, 2), 6, space).macs == 6 * 8 * 3 ** len(space) * prod(out)


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
    assert c.params_without_bn == c.params - 2 * 4
    assert c.macs_without_classifier == c.macs - 6 * 3


HEAD = (AdaptivePool(), Flatten(), Linear(3))
BLOCK = Add((Chain((Conv(4, 3), Norm())), Chain((Conv(4), Norm()))))


@pytest.mark.parametrize(
    ("items", "classifier"),
    [
        ((Conv(4, 3), *HEAD), 4 * 3),
        ((Conv(4, 3), Chain((Chain(HEAD),)), Dropout()), 4 * 3),
        ((Conv(4, 3), Conv(5), Activation(), AdaptivePool(), Flatten()), 4 * 5 * 30),
        ((Conv(4, 3), Tap(Chain(HEAD)), Norm()), 2 * 4 * 9 * 30),
        ((Conv(4, 3), BLOCK, AdaptivePool(), Flatten()), 0),
        ((Conv(4, 3), BLOCK, *HEAD), 4 * 3),
        ((Norm(),), 0),
    ],
)
def test_the_classifier_is_the_last_weighted_layer_outside_of_branches(items, classifier):
    c = cost(Architecture((2, 6, 5), Chain(items)))
    assert c.macs - c.macs_without_classifier == classifier


@given(architectures())
@settings(max_examples=30)
def test_params_without_bn_are_the_weights_and_biases_that_are_not_a_norms(a):
    network = build(a, 0)
    norms = sum(
        p.numel() for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) for p in m.parameters()
    )
    assert cost(a).params_without_bn == cost(a).params - norms


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
