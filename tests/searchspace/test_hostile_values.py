"""Hostile values: whatever a caller gives a network, a block or a transform, it works or says the rule that is broken.

`ArchitectureError` alone is caught: any other error fails the test.
"""

from contextlib import suppress
from inspect import signature
from math import inf, nan

import pytest

from searchspace import transforms
from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Architecture,
    ArchitectureError,
    Chain,
    Conv,
    Flatten,
    Linear,
    Norm,
    Pool,
    Shape,
)
from searchspace.blocks import BLOCKS
from searchspace.fields import choice, multiplier
from searchspace.published import NETWORKS

HOSTILE = [[], {}, None, "x", nan, inf, -1, 0, 1.5, True, 10**9, 10**9 + 1, 10**20, object(), [1], (None, 1, 1)]
TRANSFORMS = {
    name: getattr(transforms, name)
    for name in transforms.__all__
    if "architecture" in getattr(getattr(transforms, name), "__annotations__", ())
}
NEEDED = {
    "out": 48,
    "where": transforms.everywhere,
    "factor": 2,
    "alpha": 0.5,
    "groups": 2,
    "shuffle": True,
    "kind": "stacked",
    "interactions": "reduced",
    "dilation": 2,
    "space": (16, 16),
    "frames": 4,
    "eps": 1e-3,
}


def options(function):
    """All that it takes after the shape or the architecture that it works on."""
    return [p for p in signature(function).parameters.values() if p.name not in ("into", "architecture")]


def given(function):
    return {p.name: NEEDED[p.name] for p in options(function) if p.default is p.empty}


def network(*space):
    """One that every transform has something to do in."""
    wide = (Conv(16, 5, label="spatial"), Norm(), Activation())
    body = (Conv(16, 5, 2), Norm(), Activation(), Add((Chain(wide * 2), Chain())), Pool(), AdaptivePool(), Flatten())
    return Architecture((4, *space), Chain((*body, Linear(3))))


INPUTS = {
    **dict.fromkeys(NETWORKS, ((),)),
    **dict.fromkeys(BLOCKS, ((Shape(16, (8, 8)),), (Shape(16, (4, 8, 8)),))),
    **dict.fromkeys(TRANSFORMS, ((network(8, 8),), (network(4, 8, 8),))),
}
FUNCTIONS = {**NETWORKS, **BLOCKS, **TRANSFORMS}


def test_every_transform_is_tried():
    assert len(TRANSFORMS) == 11


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_works_or_says_the_rule(name):
    function = FUNCTIONS[name]
    strides = [{}, {"stride": 2}] if name in BLOCKS else [{}]
    for option in options(function):
        for value in HOSTILE:
            for into in INPUTS[name]:
                for stride in strides:
                    with suppress(ArchitectureError):
                        function(*into, **{**given(function), **stride, option.name: value})


@pytest.mark.parametrize("value", ["no", "false", None, "", 0, 1, [], object()])
def test_a_switch_is_true_or_false(value):
    switches = [
        (name, p.name) for name, function in FUNCTIONS.items() for p in options(function) if type(p.default) is bool
    ]
    assert len(switches) > 30
    for name, switch in [*switches, ("regroup", "shuffle")]:
        function = FUNCTIONS[name]
        with pytest.raises(ArchitectureError, match="must be True or False, but got"):
            function(*INPUTS[name][0], **{**given(function), switch: value})


@pytest.mark.parametrize(
    ("name", "call", "rule"),
    [
        ("vgg", {"depth": []}, r"`depth` must be one of 11, 13, 16, 19, but got \[\]"),
        ("resnet", {"depth": 50.0}, "`depth` must be one of 18, 26, 34, 50, 101, 152, 200, but got 50.0"),
        ("resnet", {"width": True}, "`width` must be a positive number"),
        ("resnet3d", {"groups": "depthwise", "pointwise_groups": True}, "`pointwise_groups` must be a whole number"),
        ("r2d", {"frames": True}, "`frames` must be a whole number >= 1, but got True"),
        ("dilated_context", {"channels": None}, "`channels` must be a whole number >= 1, but got None"),
        ("oct_resnet", {"alpha": "x"}, r"`alpha` must be in \[0, 1\], but got 'x'"),
        ("shufflenet_v1", {"squeeze_excite": None}, r"`squeeze_excite` must be in \[0, 1\], but got None"),
        ("plain", {"groups": 0}, "`groups` must be a whole number >= 1, but got 0"),
        ("plain", {"kernel": 1.5}, "`kernel` must be a whole number >= 1, or two or three of them, but got 1.5"),
        ("plain", {"kernel": 10**9 + 1, "factorization": "stacked"}, "`kernel` of a block must be odd, at most 999"),
        ("bottleneck", {"expansion": nan}, "`expansion` must be a positive number"),
        ("fire", {"pool": "median"}, "`pool` must be one of max, average, but got 'median'"),
        ("inception_a", {"reduction": "none"}, "`reduction` must be one of parallel, conv_pool, pool_conv"),
        ("dense", {"layers": 10**7}, "must grow by at least one channel"),
        ("widen", {"factor": inf}, "`factor` must be a positive number"),
        ("resize", {"space": 3}, r"`space` must have as many axes as the input, but got 3 for \(8, 8\)"),
        ("factorize", {"middle": 5}, "`middle` must be a function of a site, but got 5"),
        ("drop", {"where": "stem"}, "`where` must be a predicate over sites, .*, but got 'stem'"),
    ],
)
def test_what_was_got_is_named(name, call, rule):
    function = FUNCTIONS[name]
    with pytest.raises(ArchitectureError, match=rule):
        function(*INPUTS[name][0], **{**given(function), **call})


def test_numbers_that_are_equal_but_of_another_kind_are_no_choice():
    for value in (1.0, True, [], "1", nan, object()):
        with pytest.raises(ArchitectureError, match="`depth` must be one of 1, 2, but got"):
            choice("depth", value, (1, 2))
    assert multiplier("width", 1) == 1
