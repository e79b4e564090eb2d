"""Every published network builds, runs in evaluation and in training, learns, and traces to the cost of its leaves."""

import pytest
import torch

from searchspace.cost import cost, trace_flops
from searchspace.network import build
from searchspace.published import NETWORKS

IMAGE, VIDEO = (3, 64, 64), (3, 8, 32, 32)

# A network as default, on the smallest input that its strides and windows leave something of; then its other forms.
CASES = [
    ("alexnet", {"input": (3, 67, 67)}),
    ("alexnet", {"input": (3, 63, 63), "variant": "one_weird_trick"}),
    ("vgg", {"input": (3, 32, 32)}),
    ("vgg", {"input": (3, 32, 32), "depth": 11, "batch_norm": True}),
    ("googlenet", {"input": IMAGE}),
    ("googlenet", {"input": IMAGE, "variant": "batch_norm"}),
    ("inception_v3", {"input": (3, 75, 75)}),
    ("squeezenet", {"input": (3, 32, 32)}),
    ("squeezenet", {"input": (3, 32, 32), "version": "1.1"}),
    ("mobilenet_v1", {"input": (3, 32, 32)}),
    ("mobilenet_v2", {"input": (3, 32, 32)}),
    ("mobilenet_v3", {"input": (3, 32, 32)}),
    ("mobilenet_v3", {"input": (3, 32, 32), "size": "small"}),
    ("shufflenet_v1", {"input": (3, 32, 32)}),
    ("shufflenet_v1", {"input": (3, 32, 32), "groups": 1}),
    ("xception", {"input": (3, 71, 71)}),
    ("resnet", {"input": (3, 32, 32)}),
    ("resnet", {"input": (3, 32, 32), "depth": 18}),
    ("resnext", {"input": (3, 32, 32)}),
    ("densenet", {"input": (3, 32, 32)}),
    ("oct_resnet", {"input": IMAGE}),
    ("oct_resnext", {"input": IMAGE}),
    ("oct_mobilenet_v1", {"input": IMAGE}),
    ("oct_mobilenet_v2", {"input": IMAGE}),
    ("dilated_context", {"input": (5, 16, 16), "channels": 5}),
    ("dilated_context", {"input": (5, 16, 16), "channels": 5, "size": "large"}),
    ("resnet3d", {"input": VIDEO}),
    ("csn", {"input": VIDEO}),
    ("csn", {"input": VIDEO, "interactions": "preserved"}),
    ("r3d", {"input": VIDEO}),
    ("mixed_convolution", {"input": VIDEO}),
    ("mixed_convolution", {"input": VIDEO, "reversed": True}),
    ("r2plus1d", {"input": VIDEO}),
    ("s3d", {"input": VIDEO}),
    ("frame_r2d", {"input": VIDEO}),
    ("r2d", {"input": VIDEO, "frames": 8}),
    ("p3d", {"input": VIDEO}),
]


def test_every_network_is_run():
    assert {name for name, _ in CASES} == set(NETWORKS)


def words(name, call):
    return " ".join((name, *(f"{key}={value}" for key, value in call.items() if key != "input")))


@pytest.mark.parametrize(("name", "call"), CASES, ids=[words(*case) for case in CASES])
def test_builds_runs_learns_and_traces(name, call):
    architecture = NETWORKS[name](**call, classes=5)
    network = build(architecture, 0)
    assert trace_flops(network, architecture.input) == cost(architecture).flops
    assert sum(p.numel() for p in network.parameters()) == cost(architecture).params

    x = torch.randn(2, *architecture.input, generator=torch.Generator().manual_seed(0))
    shape = (2, 5, *architecture.output.space)
    with torch.no_grad():
        y = network.eval()(x)
    assert y.shape == shape
    assert y.isfinite().all()

    output = network.train()(x)
    logits, *heads = (output[0], *output[1]) if isinstance(output, tuple) else (output,)
    assert len(heads) == len(network.tap_weights)
    assert all(made.shape == shape for made in (logits, *heads))
    sum(made.square().sum() for made in (logits, *heads)).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert not [name for name, grad in gradients.items() if grad is None or not grad.isfinite().all()]
