"""Published networks compute what torchvision's do, with torchvision's weights, loaded by `load_foreign`.

Weights, scales, shifts and running statistics are random, so that nothing hides behind a 0 or a 1.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from searchspace import factory
from searchspace.architecture import ArchitectureError
from searchspace.foreign import load_foreign
from searchspace.network import Network, build
from searchspace.published import NETWORKS

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5  # of the greatest output, in float32

# These leave 2 along every axis before the head: at 1, all but the centre of a kernel of 3 would read padding alone.
# MobileNet v3 has kernels of 5 there and gets 3, the r3d family halves fewer times.
SMALL, WIDE, VIDEO = (3, 64, 64), (3, 96, 96), (3, 16, 32, 32)

# torchvision's function and arguments, ours and its arguments, the input.
TWINS: dict[str, tuple[str, dict[str, object], str, dict[str, object], tuple[int, ...]]] = {
    **{f"resnet{d}": (f"resnet{d}", {}, "resnet", {"depth": d}, SMALL) for d in (18, 34, 50, 101, 152)},
    **{
        name: (name, {}, "resnext", {"depth": depth, "groups": groups, "width_per_group": width}, SMALL)
        for name, depth, groups, width in (
            ("resnext50_32x4d", 50, 32, 4),
            ("resnext101_32x8d", 101, 32, 8),
            ("resnext101_64x4d", 101, 64, 4),
            ("wide_resnet50_2", 50, 1, 128),
        )
    },
    **{
        f"mobilenet_v2 {width}": ("mobilenet_v2", {"width_mult": width}, "mobilenet_v2", {"width": width}, SMALL)
        for width in (1.0, 0.75)
    },
    **{
        f"mobilenet_v3_{size} {width}": (
            f"mobilenet_v3_{size}",
            {"width_mult": width},
            "mobilenet_v3",
            {"size": size, "width": width},
            WIDE,
        )
        for size in ("large", "small")
        for width in (1.0, 0.75)
    },
    **{
        f"squeezenet{version}": (
            f"squeezenet{version.replace('.', '_')}",
            {},
            "squeezenet",
            {"version": version},
            SMALL,
        )
        for version in ("1.0", "1.1")
    },
    **{
        f"googlenet {aux=}": (
            "googlenet",
            {"aux_logits": aux, "init_weights": False},
            "googlenet",
            {"variant": "batch_norm", "aux": aux},
            SMALL,
        )
        for aux in (True, False)
    },
    # The auxiliary head's unpadded windows need the whole 299; without it 107 leaves a map of 2 x 2.
    **{
        f"inception_v3 {aux=}": (
            "inception_v3",
            {"aux_logits": aux, "init_weights": False},
            "inception_v3",
            {"aux": aux},
            (3, size, size),
        )
        for aux, size in ((True, 299), (False, 107))
    },
    **{
        f"vgg{depth}{'_bn' * norm}": (
            f"vgg{depth}{'_bn' * norm}",
            {},
            "vgg",
            {"depth": depth, "batch_norm": norm},
            SMALL,
        )
        for depth in (11, 13, 16, 19)
        for norm in (False, True)
    },
    "alexnet": ("alexnet", {}, "alexnet", {"variant": "one_weird_trick"}, SMALL),
    **{f"densenet{d}": (f"densenet{d}", {}, "densenet", {"depth": d}, SMALL) for d in (121, 161, 169, 201)},
    "r3d_18": ("video.r3d_18", {}, "r3d", {"depth": 18}, VIDEO),
    "mc3_18": ("video.mc3_18", {}, "mixed_convolution", {"depth": 18, "level": 3}, VIDEO),
    "r2plus1d_18": ("video.r2plus1d_18", {}, "r2plus1d", {"depth": 18, "midplanes": "per_block"}, VIDEO),
    # Its last pooling is over 2 x 7 x 7, which no smaller input leaves.
    "s3d": ("video.s3d", {}, "s3d", {}, (3, 13, 209, 209)),
}


@pytest.fixture(scope="module")
def torchvision() -> ModuleType:
    """torchvision, which the full tier installs; with a torch that its compiled part does not fit, too."""
    try:
        return factory.torchvision()
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed; `make test FULL=1` installs it")


def randomized(module: nn.Module, seed: int) -> nn.Module:
    """`module` off the meta device, every parameter and statistic random, at a scale that keeps signals alive."""
    module = module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            for name, tensor in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
                if not tensor.is_floating_point():
                    tensor.fill_(seed)
                elif name == "running_var" or (name == "weight" and tensor.dim() == 1):
                    tensor.uniform_(0.5, 1.5, generator=generator)
                else:
                    spread = sqrt(6 / tensor[0].numel()) if name == "weight" else 0.2
                    tensor.uniform_(-spread, spread, generator=generator)
    return module.eval()


def make(torchvision: ModuleType, name: str, seed: int = 1) -> tuple[Network, nn.Module, Tensor]:
    """Our network, full of NaN, torchvision's with random weights, and two random inputs."""
    function, arguments, ours, choices, size = TWINS[name]
    make_theirs: Callable[..., nn.Module] = torchvision.models
    for part in function.split("."):
        make_theirs = getattr(make_theirs, part)
    with torch.device("meta"):
        theirs = make_theirs(**arguments)
        network = build(NETWORKS[ours](**choices, input=size))
    network = network.to_empty(device="cpu").eval()
    for tensor in network.state_dict().values():
        tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(seed))
    return network, randomized(theirs, seed), x


@torch.no_grad()
def gap(ours: Tensor, theirs: Tensor) -> float:
    """The greatest difference as a share of the greatest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("name", TWINS)
@torch.no_grad()
def test_outputs_equal_torchvisions(torchvision: ModuleType, name: str) -> None:
    network, theirs, x = make(torchvision, name)
    load_foreign(network, theirs)
    assert gap(network(x), theirs(x)) <= TOLERANCE
    if network.tap_weights:
        for module in (network, theirs):
            module.train()
            for part in module.modules():
                if isinstance(part, nn.Dropout | nn.BatchNorm2d):
                    part.eval()
        logits, heads = network(x)
        expected, *expected_heads = theirs(x)
        for ours, other in zip((logits, *heads), (expected, *reversed(expected_heads)), strict=True):
            assert gap(ours, other) <= TOLERANCE


@pytest.mark.parametrize("name", ["resnet18", "googlenet aux=False", "densenet121", "r3d_18"])
@torch.no_grad()
def test_two_layers_weights_swapped_are_seen(torchvision: ModuleType, name: str) -> None:
    network, theirs, x = make(torchvision, name)
    load_foreign(network, theirs)
    convolutions = [m for m in theirs.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    first, second = next(
        (a, b)
        for i, a in enumerate(convolutions)
        for b in convolutions[i + 1 :]
        if a.weight.shape == b.weight.shape and max(a.kernel_size) > 1
    )
    first.weight, second.weight = second.weight, first.weight
    assert gap(network(x), theirs(x)) > 1000 * TOLERANCE


@torch.no_grad()
def test_a_state_dict_loads_by_a_module_with_other_weights(torchvision: ModuleType) -> None:
    network, theirs, x = make(torchvision, "resnet18")
    _, source, _ = make(torchvision, "resnet18", seed=2)
    load_foreign(network, theirs, source.state_dict())
    assert gap(network(x), source(x)) <= TOLERANCE


def test_the_first_layer_that_differs_is_named(torchvision: ModuleType) -> None:
    """The paper's ResNet-50 strides in the 1 x 1 convolution, torchvision's in the 3 x 3 one after it."""
    _, theirs, _ = make(torchvision, "resnet50")
    network = build(NETWORKS["resnet"](depth=50, stride_in="1x1", input=SMALL))
    with pytest.raises(ArchitectureError, match=r"meets layer2\.0\.conv1 .*: stride is \(2, 2\) here, \(1, 1\) there"):
        load_foreign(network, theirs)
