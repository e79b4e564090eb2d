"""Networks: what `build` makes, what `read_architecture` reads back, and what it refuses."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from strategies import architectures
from torch import nn
from torch.nn.utils import parametrizations

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
    Norm,
    Pool,
    Shuffle,
    SqueezeExcite,
    Tap,
)
from searchspace.network import build, read_architecture

HEAD = Chain((AdaptivePool(), Flatten(), Linear(3)))


def net(*items, input=(3, 9, 7)):
    return Architecture(input, Chain((*items, HEAD)))


@given(architectures())
@settings(max_examples=60)
def test_every_architecture_runs_trains_and_reads_back(a):
    network = build(a, 0)
    assert read_architecture(network) == a
    x = torch.randn(2, *a.input)
    assert network.eval()(x).shape == (2, 3)
    output = network.train()(x)
    logits, *heads = (output[0], *output[1]) if isinstance(output, tuple) else (output,)
    assert len(heads) == len(network.tap_weights)
    assert all(h.shape == logits.shape == (2, 3) for h in heads)
    sum(h.sum() for h in (logits, *heads)).backward()
    last = network.get_submodule(a.sites[-1].name)
    assert last.weight.grad is not None


@given(architectures())
@settings(max_examples=30)
def test_modules_are_named_by_sites(a):
    network = build(a)
    assert len({site.name for site in a.sites}) == len(a.sites)
    for site in a.sites:
        network.get_submodule(site.name)


def test_a_seed_decides_the_weights_and_leaves_torchs_generator_alone():
    a = net(Conv(8, 3, low=4), Norm())
    state = torch.get_rng_state()
    one, same, other = build(a, 1).state_dict(), build(a, 1).state_dict(), build(a, 2).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


def test_labels_do_not_change_the_names_of_tensors():
    a, b = net(Conv(8, 3), Norm()), net(Conv(8, 3, label="stem"), Norm(label="n"))
    assert build(a).state_dict().keys() == build(b).state_dict().keys()


def test_a_known_chain_of_leaves_is_the_known_torch_model():
    a = net(Conv(8, 3, 2), Norm(1e-3), Activation("relu6"), Depthwise(3), Pool("average", 2, 2), Conv(4, bias=True))
    want = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8, eps=1e-3),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    network = build(a, 0)
    want.load_state_dict(dict(zip(want.state_dict(), network.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 9, 7)
    assert torch.equal(want(x), network(x))


def test_add_and_concat_are_sum_and_cat():
    x = torch.randn(2, 3, 9, 7)
    for join, operation in ((Add, sum), (Concat, lambda parts: torch.cat(list(parts), 1))):
        network = build(Architecture((3, 9, 7), Chain((join((Conv(3, 3), Chain(), Conv(3))),))), 0)
        a, b, c = (network.get_submodule(f"body.0.{i}") for i in range(3))
        torch.testing.assert_close(network(x), operation([a(x), b(x), c(x)]))


def test_auxiliary_heads_run_in_training_only_in_order_with_their_weights():
    heads = [Tap(Chain((AdaptivePool(), Flatten(), Linear(3))), weight=w) for w in (0.3, 0.5)]
    network = build(net(Conv(4), heads[0], Conv(8), heads[1]), 0)
    x = torch.randn(2, 3, 9, 7)
    assert network.tap_weights == (0.3, 0.5)
    assert network.eval()(x).shape == (2, 3)
    _logits, auxiliary = network.train()(x)
    first = network.get_submodule("body.0")(x)
    assert torch.equal(auxiliary[0], network.get_submodule("body.1.0")(first))
    assert len(auxiliary) == 2
    with pytest.raises(RuntimeError, match="only after a forward pass in training mode"):
        network.get_submodule("body.1").take()


# Reading back ---------------------------------------------------------------------------------------------------


def keep(module, kept, *, rows=True, columns=False):
    """Narrow a convolution, a linear layer or a norm to the `kept` outputs or inputs, tensors only."""
    for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if tensor.dim() == 0 or (columns and tensor.dim() == 1):
            continue
        small = tensor.detach()[:, kept] if columns else tensor.detach()[kept]
        if isinstance(tensor, nn.Parameter):
            setattr(module, name, nn.Parameter(small))
        else:
            module.register_buffer(name, small)


@pytest.mark.parametrize("input", [(3, 9, 7), (3, 4, 9, 7)])
def test_widths_are_read_from_tensors_narrowed_by_hand(input):
    def bottleneck(mid, squeeze):
        branch = Chain((Conv(mid), Norm(), Activation(), Conv(8, 3), Norm(), SqueezeExcite(squeeze)))
        return net(Conv(8), Add((branch, Chain())), input=input)

    network = build(bottleneck(6, 4), 0)
    at = network.get_submodule
    kept = [0, 2, 5]
    keep(at("body.1.0.0"), kept)
    keep(at("body.1.0.1"), kept)
    keep(at("body.1.0.3"), kept, columns=True)
    keep(at("body.1.0.5.squeeze"), [1, 3])
    keep(at("body.1.0.5.expand"), [1, 3], columns=True)
    found = read_architecture(network)
    assert found == bottleneck(3, 2)
    assert build(found).load_state_dict(network.state_dict())


def test_the_frequencies_of_an_octave_convolution_are_read_apart():
    network = build(net(Conv(8, 3, low=4), Norm(), Conv(4, 3, low=2)), 0)
    at = network.get_submodule
    keep(at("body.0.hl"), [0, 2, 3])
    keep(at("body.1.low"), [0, 2, 3])
    keep(at("body.2.lh"), [0, 2, 3], columns=True)
    keep(at("body.2.ll"), [0, 2, 3], columns=True)
    assert read_architecture(network) == net(Conv(7, 3, low=3), Norm(), Conv(4, 3, low=2))


def test_hidden_linear_layers_and_depthwise_are_read():
    def mlp(width, hidden):
        items = (Conv(width), Depthwise(3), AdaptivePool(), Flatten(), Linear(hidden), Activation(), Linear(3))
        return Architecture((3, 9, 7), Chain(items))

    network = build(mlp(4, 6), 0)
    at = network.get_submodule
    keep(at("body.0"), [1, 3])
    keep(at("body.1"), [1, 3])
    at("body.1").groups = 2
    keep(at("body.4"), [1, 3], columns=True)
    keep(at("body.4"), [0, 5])
    keep(at("body.6"), [0, 5], columns=True)
    assert read_architecture(network) == mlp(2, 2)


FULL = net(
    Conv(4, 3, 2), Norm(), Activation("leaky_relu"), Dropout(0.25), Pool(), Shuffle(2), Conv(4, 3, low=2), Norm()
)


def _hook(network):
    network.get_submodule("body.1").affine = False


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda n: setattr(n.body, "2", nn.ReLU()), r"body\.2 is ReLU\(\), where LeakyReLU"),
        (lambda n: setattr(n.get_submodule("body.0"), "stride", (1, 1)), r"body\.0 is Conv2d.*where Conv2d"),
        (lambda n: setattr(n.get_submodule("body.0"), "padding", (0, 0)), r"body\.0 is Conv2d"),
        (lambda n: setattr(n.get_submodule("body.0"), "padding_mode", "reflect"), r"body\.0 is Conv2d"),
        (lambda n: setattr(n.get_submodule("body.2"), "negative_slope", 0.3), r"body\.2 is LeakyReLU"),
        (lambda n: setattr(n.get_submodule("body.3"), "p", 0.3), r"body\.3 is Dropout\(p=0.3"),
        (lambda n: setattr(n.get_submodule("body.4"), "kernel_size", (2, 2)), r"body\.4 is MaxPool2d"),
        (lambda n: setattr(n.get_submodule("body.5"), "groups", 4), r"body\.5 is ChannelShuffle"),
        (lambda n: setattr(n.get_submodule("body.6"), "stride", (2, 2)), r"body\.6 is OctaveConv"),
        (lambda n: setattr(n.get_submodule("body.6.hl"), "dilation", (2, 2)), r"body\.6\.hl is Conv2d"),
        (lambda n: setattr(n.get_submodule("body.1"), "eps", 0.1), r"body\.1 is BatchNorm2d"),
        (_hook, r"body\.1 is BatchNorm2d"),
        (lambda n: n.body.add_module("extra", nn.ReLU()), r"body\.extra is ReLU\(\), where None was expected"),
        (lambda n: n.add_module("extra", nn.ReLU()), r"extra is ReLU\(\), where None was expected"),
        (lambda n: n.body.__delitem__(0), "body"),
        (
            lambda n: parametrizations.weight_norm(n.get_submodule("body.0")),
            r"body\.0 is Parametrized|body\.0 is .*Conv2d",
        ),
        (lambda n: n.body.register_buffer("scale", torch.ones(1)), r"body\.scale has shape \(1,\), where None"),
        (
            lambda n: keep(n.get_submodule("body.1"), [0, 1, 2]),
            r"body\.1\.weight has shape \(3,\), where \(4,\) was expected",
        ),
        (
            lambda n: keep(n.get_submodule("body.6.hh"), [0, 1], columns=True),
            r"body\.6\.hh\.weight has shape \(2, 2, 3, 3\), where \(2, 4, 3, 3\)",
        ),
        (
            lambda n: n.get_submodule("body.0").register_parameter("bias", nn.Parameter(torch.ones(3))),
            r"body\.0\.bias has shape \(3,\), where \(4,\) was expected",
        ),
    ],
)
def test_a_network_no_architecture_describes_is_refused_by_module(change, rule):
    network = build(FULL, 0)
    assert read_architecture(network) == FULL
    change(network)
    with pytest.raises(ArchitectureError, match=rule):
        read_architecture(network)


def test_a_module_from_elsewhere_is_refused():
    with pytest.raises(ArchitectureError, match="Only a Network made by `build` can be read back, but got Sequential"):
        read_architecture(nn.Sequential(nn.Conv2d(3, 8, 3)))


def test_copies_moves_and_other_dtypes_read_alike():
    network = build(FULL, 0)
    for other in (copy.deepcopy(network), build(FULL).double(), build(FULL).to(memory_format=torch.channels_last)):
        assert read_architecture(other) == FULL


def test_a_bias_that_was_added_is_read_back():
    network = build(FULL, 0)
    network.get_submodule("body.0").register_parameter("bias", nn.Parameter(torch.ones(4)))
    found = read_architecture(network)
    assert found.body.items[0] == replace(FULL.body.items[0], bias=True)
    build(found, 0).load_state_dict(network.state_dict())
