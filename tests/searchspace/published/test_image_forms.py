"""Image networks beyond the golden table: other depths, groups, inputs and classes, and what no form exists for."""

import pytest

from searchspace.architecture import ArchitectureError, LocalNorm
from searchspace.cost import cost
from searchspace.published import NETWORKS

# Params and multiply-adds in units of 10^9, as torchvision 0.28 lists them with its weights.
LISTED = [
    ("vgg", {"depth": 11}, 132_863_336, 7.609),
    ("vgg", {"depth": 13}, 133_047_848, 11.308),
    ("vgg", {"depth": 19}, 143_667_240, 19.632),
    ("vgg", {"depth": 11, "batch_norm": True}, 132_868_840, 7.609),
    ("vgg", {"depth": 13, "batch_norm": True}, 133_053_736, 11.308),
    ("vgg", {"depth": 19, "batch_norm": True}, 143_678_248, 19.632),
    ("densenet", {"depth": 161}, 28_681_000, 7.728),
    ("densenet", {"depth": 169}, 14_149_480, 3.36),
    ("densenet", {"depth": 201}, 20_013_928, 4.291),
]


@pytest.mark.parametrize(("name", "call", "params", "giga_macs"), LISTED)
def test_other_depths_cost_what_torchvision_lists(name, call, params, giga_macs):
    counts = cost(NETWORKS[name](**call))
    assert (counts.params, round(counts.macs / 1e9, 3)) == (params, giga_macs)


def test_alexnet_on_one_device_has_no_groups():
    counts = cost(NETWORKS["alexnet"](groups=1))
    assert (counts.params, counts.macs) == (62_378_344, 1_135_256_096)


def test_alexnet_takes_the_input_its_variant_needs():
    paper, one_tower = NETWORKS["alexnet"](), NETWORKS["alexnet"](variant="one_weird_trick")
    assert (paper.input, one_tower.input) == ((3, 227, 227), (3, 224, 224))
    assert [sum(isinstance(s.leaf, LocalNorm) for s in a.sites) for a in (paper, one_tower)] == [2, 0]
    flat = next(s for s in paper.sites if s.before.space == (6, 6) and not s.after.space)
    assert flat.after.channels == 9216


def test_squeezenet_1_1_pools_earlier_than_1_0():
    squeezenet = NETWORKS["squeezenet"]
    sizes = [[s.before.space[0] for s in squeezenet(version=v).sites if s.role == "reduce"] for v in ("1.0", "1.1")]
    assert sizes == [[54] * 3 + [27] * 4 + [13], [55] * 2 + [27] * 2 + [13] * 4]
    for number in (1, 1.0, 1.1):  # as YAML reads an unquoted version
        assert squeezenet(version=number) == squeezenet(version=str(float(number)))


def test_xceptions_middle_flow_is_eight_equal_blocks_of_width_728():
    sites = [s for s in NETWORKS["xception"]().sites if "stage2" in s.path]
    assert sum(s.role == "depthwise" for s in sites) == sum(s.role == "pointwise" for s in sites) == 24
    assert {(s.before.channels, s.after.channels, s.after.space) for s in sites} == {(728, 728, (19, 19))}


SMALL = [
    ("alexnet", {}, (1, 67, 80)),
    ("alexnet", {"variant": "one_weird_trick"}, (1, 63, 70)),
    ("vgg", {}, (1, 32, 40)),
    ("googlenet", {}, (1, 48, 56)),
    ("googlenet", {"variant": "batch_norm"}, (1, 32, 40)),
    ("inception_v3", {}, (1, 75, 80)),
    ("squeezenet", {}, (1, 32, 40)),
    ("xception", {}, (1, 32, 40)),
    ("densenet", {}, (1, 32, 40)),
    ("dilated_context", {}, (1, 8, 9)),
]


@pytest.mark.parametrize(("name", "call", "size"), SMALL)
def test_small_oblong_grey_inputs_and_few_classes(name, call, size):
    network = NETWORKS[name](**call, input=size, classes=7)
    assert network.input == size
    assert network.output.channels == 7
    assert network.sites[-1].role in ("classifier", "")
    assert [s.after.channels for s in network.sites if s.role == "classifier"][-1] == 7
    labels = [item.label for item in network.body.items if item.label]
    assert labels[-1] == "head"
    assert all(label == "stem" or label.startswith("stage") for label in labels[:-1])


@pytest.mark.parametrize(
    ("name", "call", "message"),
    [
        ("alexnet", {"variant": "three"}, "`variant` must be one of two_group, one_weird_trick"),
        ("alexnet", {"groups": 5}, "`groups` must divide the input channels"),
        ("alexnet", {"input": ()}, "`input` must be"),
        ("vgg", {"depth": 12}, "`depth` must be one of 11, 13, 16, 19, but got 12"),
        ("vgg", {"input": (3, 16, 16)}, "The window must fit the padded map"),
        ("googlenet", {"variant": "v2"}, "`variant` must be one of original, batch_norm"),
        ("googlenet", {"input": ()}, "`input` must be"),
        ("inception_v3", {"pool": "median"}, "`kind` of Pool must be one of max, average"),
        ("inception_v3", {"n": 4}, "`n` must be odd, .* but got 4"),
        ("inception_v3", {"input": (3, 64, 64)}, "The window must fit the padded map"),
        ("squeezenet", {"version": "1.2"}, "`version` must be one of 1.0, 1.1"),
        ("densenet", {"depth": 122}, "`depth` must be one of 121, 161, 169, 201, but got 122"),
        ("dilated_context", {"size": "tiny"}, "`size` must be one of basic, large"),
        ("dilated_context", {"channels": 0}, "`channels` must be a whole number"),
    ],
)
def test_what_there_is_no_form_for_is_named(name, call, message):
    with pytest.raises(ArchitectureError, match=message):
        NETWORKS[name](**call)
