"""R3D, mixed convolutions and R2D: which stages see several frames, and how many are left."""

import pytest

from searchspace.architecture import ArchitectureError, Conv, Norm, Pool, axes
from searchspace.cost import cost
from searchspace.published import NETWORKS
from searchspace.transforms import drop, leaf, renorm

SMALL = (3, 8, 32, 32)
STAGES = ("stem", "stage2", "stage3", "stage4", "stage5")


def times(network) -> list[tuple[int, int]]:
    """(longest kernel along time, frames left) of each stage."""
    kernels = dict.fromkeys(STAGES, 1)
    frames = {}
    for site in network.sites:
        label = site.path[0]
        if label in kernels:
            frames[label] = site.after.space[0]
            if isinstance(site.leaf, Conv):
                kernels[label] = max(kernels[label], axes(site.leaf.kernel, 3)[0])
    return [(kernels[label], frames[label]) for label in STAGES]


def test_r3d_is_resnet3d_without_its_pooling():
    for depth in (18, 26, 34, 50, 101, 152):
        base = NETWORKS["resnet3d"](depth=depth, input=SMALL)
        assert NETWORKS["r3d"](depth=depth, input=SMALL) == renorm(drop(base, leaf(Pool)), 1e-5)


@pytest.mark.parametrize(("name", "call", "want"), [
    ("r3d", {}, [(3, 8), (3, 8), (3, 4), (3, 2), (3, 1)]),
    ("mixed_convolution", {"level": 2}, [(3, 8), (1, 8), (1, 8), (1, 8), (1, 8)]),
    ("mixed_convolution", {"level": 3}, [(3, 8), (3, 8), (1, 8), (1, 8), (1, 8)]),
    ("mixed_convolution", {"level": 4}, [(3, 8), (3, 8), (3, 4), (1, 4), (1, 4)]),
    ("mixed_convolution", {"level": 5}, [(3, 8), (3, 8), (3, 4), (3, 2), (1, 2)]),
    ("mixed_convolution", {"level": 2, "reversed": True}, [(1, 8), (3, 8), (3, 4), (3, 2), (3, 1)]),
    ("mixed_convolution", {"level": 3, "reversed": True}, [(1, 8), (1, 8), (3, 4), (3, 2), (3, 1)]),
    ("mixed_convolution", {"level": 4, "reversed": True}, [(1, 8), (1, 8), (1, 8), (3, 4), (3, 2)]),
    ("mixed_convolution", {"level": 5, "reversed": True}, [(1, 8), (1, 8), (1, 8), (1, 8), (3, 4)]),
    ("frame_r2d", {}, [(1, 8)] * 5),
    ("r2d", {}, [(8, 1), (1, 1), (1, 1), (1, 1), (1, 1)]),
])  # fmt: skip
@pytest.mark.parametrize("depth", [18, 50])
def test_stages_that_see_several_frames_halve_them(name, call, want, depth):
    network = NETWORKS[name](depth=depth, input=SMALL, **call)
    assert times(network) == want
    image = {site.path[0]: site.after.space[1:] for site in network.sites}
    assert [image[label] for label in STAGES] == [(16, 16), (16, 16), (8, 8), (4, 4), (2, 2)]


@pytest.mark.parametrize("name", ["r3d", "mixed_convolution", "frame_r2d", "r2d", "r2plus1d"])
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_short_clips_of_any_channels_and_classes(name, frames):
    network = NETWORKS[name](classes=7, input=(1, frames, 17, 12))
    assert (network.input, network.output.channels) == ((1, frames, 17, 12), 7)
    assert network.sites[-1].role == "classifier"


def test_frames_by_themselves_are_so_many_images():
    """The video network of one frame is the ResNet of images without its pooling."""
    image = cost(drop(NETWORKS["resnet"](depth=18, classes=400, input=(3, 32, 32)), leaf(Pool)))
    one, five = (cost(NETWORKS["frame_r2d"](input=(3, frames, 32, 32))) for frames in (1, 5))
    assert (one.params, one.macs) == (image.params, image.macs)
    assert five.macs_without_classifier == 5 * one.macs_without_classifier


def test_norms_are_those_of_each_original():
    eps = {name: {s.leaf.eps for s in NETWORKS[name]().sites if isinstance(s.leaf, Norm)} for name in NETWORKS}
    assert eps["r3d"] == eps["mixed_convolution"] == eps["r2plus1d"] == eps["p3d"] == {1e-5}
    assert eps["resnet3d"] == eps["csn"] == eps["r2d"] == eps["frame_r2d"] == eps["s3d"] == {1e-3}


@pytest.mark.parametrize(("name", "call", "message"), [
    ("mixed_convolution", {"level": 1}, "`level` must be one of 2, 3, 4, 5, but got 1"),
    ("mixed_convolution", {"level": 3.0}, "`level` must be one of 2, 3, 4, 5, but got 3.0"),
    ("r3d", {"depth": 20}, "`depth` must be one of"),
    ("r2d", {"frames": 16}, r"must be those of the input.*\(frames=16, input=\(3, 8, 112, 112\)\)"),
    ("frame_r2d", {"input": (3, 112, 112)}, r"must be \(channels, frames, height, width\)"),
    ("r2d", {"input": 7}, "`input` must be"),
])  # fmt: skip
def test_what_there_is_no_form_for_is_named(name, call, message):
    with pytest.raises(ArchitectureError, match=message):
        NETWORKS[name](**call)
