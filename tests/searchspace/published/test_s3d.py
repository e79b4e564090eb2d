"""S3D: separable kernels throughout, on clips and images of any size."""

import pytest

from searchspace.architecture import ArchitectureError, Conv, Pool, axes
from searchspace.cost import cost, trace_flops
from searchspace.network import build
from searchspace.published import NETWORKS

s3d = NETWORKS["s3d"]


def test_every_kernel_is_in_space_or_in_time():
    kernels = {axes(s.leaf.kernel, 3) for s in s3d().sites if isinstance(s.leaf, Conv)}
    assert kernels == {(1, 1, 1), (1, 3, 3), (3, 1, 1), (1, 7, 7), (7, 1, 1)}


def test_modules_are_as_wide_as_googlenets():
    def widths(network):
        shapes = {s.path[1]: s.before.channels for s in reversed(network.sites) if s.path[1:]}
        return {name: channels for name, channels in shapes.items() if name in ("3b", "4a", "4b", "4e", "5a", "5b")}

    assert widths(s3d()) == widths(NETWORKS["googlenet"]()) == {
        "3b": 256, "4a": 480, "4b": 512, "4e": 528, "5a": 832, "5b": 832,
    }  # fmt: skip


@pytest.mark.parametrize("frames", [1, 2, 5, 13])
@pytest.mark.parametrize("image", [(8, 8), (17, 40), (64, 48)])
def test_windows_shrink_to_short_clips_and_small_images(frames, image):
    network = s3d(classes=7, input=(1, frames, *image))
    assert network.output.channels == 7
    assert cost(network).params == cost(s3d(classes=7, input=(1, 64, 224, 224))).params


def test_a_short_small_clip_traces_to_the_cost_of_its_leaves():
    network = s3d(classes=5, input=(3, 3, 24, 20))
    assert trace_flops(build(network, 0), network.input) == cost(network).flops


def test_the_last_window_slides_where_the_clip_is_long():
    pool = [s for s in s3d().sites if isinstance(s.leaf, Pool)][-1]
    assert (pool.leaf.kernel, pool.before.space, pool.after.space) == ((2, 7, 7), (8, 7, 7), (7, 1, 1))


def test_images_are_refused():
    with pytest.raises(ArchitectureError, match=r"must be \(channels, frames, height, width\)"):
        s3d(input=(3, 224, 224))
