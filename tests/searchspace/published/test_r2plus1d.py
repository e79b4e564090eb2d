"""R(2+1)D: the widths between its pairs, and depths beyond the golden table."""

import pytest

from searchspace.architecture import ArchitectureError, Conv, axes
from searchspace.cost import cost
from searchspace.published import NETWORKS

SMALL = (3, 8, 32, 32)


def middles(network) -> list[int]:
    """Widths between the pairs, in order."""
    return [s.leaf.out for s in network.sites if isinstance(s.leaf, Conv) and axes(s.leaf.kernel, 3)[1:] != (1, 1)]


def test_the_middle_width_follows_the_convolution_or_its_block():
    """The paper's 288, 576 and 1152 are torchvision's 230, 460 and 921 in the second pair of a widening block."""
    per_conv, per_block = (
        middles(NETWORKS["r2plus1d"](depth=18, midplanes=m, input=SMALL)) for m in ("per_conv", "per_block")
    )
    assert per_conv == [45, *[144] * 4, 230, *[288] * 3, 460, *[576] * 3, 921, *[1152] * 3]
    assert per_block == [45, *[144] * 4, 230, 230, 288, 288, 460, 460, 576, 576, 921, 921, 1152, 1152]


def test_bottlenecks_pair_their_middle_convolution_alone():
    new = NETWORKS["r2plus1d"](depth=50, input=SMALL)
    assert middles(new) == [45, *[144] * 3, *[288] * 4, *[576] * 6, *[1152] * 3]
    assert sum(site.role == "temporal" for site in new.sites) == 17


@pytest.mark.parametrize(
    ("depth", "size", "params", "no_norm", "giga_macs"),
    [
        (152, (3, 32, 112, 112), 118.227, 118.0, 252.0),
        (152, (3, 32, 128, 128), 118.227, 118.0, 329.1),
        (34, (3, 32, 128, 128), 63.697, 63.6, 199.0),
        (34, (3, 8, 112, 112), 63.697, 63.6, 38.1),
    ],
)
def test_other_depths_and_clips_cost_what_the_authors_list(depth, size, params, no_norm, giga_macs):
    """Params in millions; the authors' list counts them without norms."""
    counts = cost(NETWORKS["r2plus1d"](depth=depth, input=size))
    assert round(counts.params / 1e6, 3) == params
    assert round(counts.params_without_bn / 1e6, 1) == no_norm
    assert round(counts.macs / 1e9, 1) == giga_macs


@pytest.mark.parametrize("depth", [18, 26, 34, 50, 101])
def test_params_are_nearly_those_of_r3d(depth):
    ours, base = (cost(NETWORKS[name](depth=depth, input=SMALL)) for name in ("r2plus1d", "r3d"))
    assert 0.99 * base.params_without_bn < ours.params_without_bn <= base.params_without_bn


def test_what_there_is_no_form_for_is_named():
    with pytest.raises(ArchitectureError, match="`midplanes` must be one of per_conv, per_block, but got 'each'"):
        NETWORKS["r2plus1d"](midplanes="each")
    with pytest.raises(ArchitectureError, match="`depth` must be one of"):
        NETWORKS["r2plus1d"](depth=20)
