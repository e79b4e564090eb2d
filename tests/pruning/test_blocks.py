"""Dead and constant channels planted in every block, and in generated chains of blocks, 2D and 3D."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from pruning.exact import Pruned
from searchspace.architecture import (
    Activation,
    AdaptivePool,
    ArchitectureError,
    Conv,
    Depthwise,
    Flatten,
    Linear,
    Node,
    Norm,
    Shape,
    Shuffle,
    Site,
    shape_after,
)
from searchspace.blocks import BLOCKS
from searchspace.network import Network

Make = Callable[..., Network]
Kill = Callable[..., None]
Check = Callable[[Network], Pruned]

OPTIONS: dict[str, dict[str, float | str]] = {
    "plain": {},
    "groups": {"groups": 2},
    "shuffle": {"groups": 2, "shuffle": True},
    "alpha .25": {"alpha": 0.25},
    "alpha .5": {"alpha": 0.5},
    "alpha .5, groups, stride": {"alpha": 0.5, "groups": 2, "stride": 2},
    "dilation": {"dilation": 2},
    "stacked": {"factorization": "stacked", "kernel": 5},
    "asymmetric": {"factorization": "asymmetric"},
    "squeeze-excite": {"squeeze_excite": 0.25},
    "stride": {"stride": 2},
    "separated": {"separation": "preserved"},
    "no shortcut": {"shortcut": False},
    "bias": {"bias": True},
}


def takes(name: str) -> frozenset[str]:
    """The options of a block."""
    return frozenset(signature(BLOCKS[name]).parameters)


CASES = [(name, case) for name in BLOCKS for case, options in OPTIONS.items() if takes(name) >= options.keys()]


def nodes(size: tuple[int, ...], low: int, *blocks: tuple[str, Mapping[str, object]]) -> tuple[Node, ...]:
    """A stem of 16 channels, the blocks, and a head."""
    body: list[Node] = [Conv(16, 3, low=low), Norm(), Activation()]
    shape = Shape(16, size[1:], low)
    for name, options in blocks:
        body.append(BLOCKS[name](shape, **{k: v for k, v in options.items() if k in takes(name)}))
        shape = shape_after(body[-1], shape)
    return (*body, AdaptivePool(), Flatten(), Linear(3))


def in_a_row(*sites: Site) -> bool:
    return len({site.index[:-1] for site in sites}) == 1


def shuffled(channels: list[int], groups: int, high: int, low: int) -> list[int]:
    """Where a shuffle puts `channels`, by torch's own."""
    order = [F.channel_shuffle(torch.arange(n).view(1, n, 1, 1), groups).flatten() for n in (high, low) if n]
    places = torch.cat([order[0], *(part + high for part in order[1:])]).tolist()
    return [place for place, channel in enumerate(places) if channel in channels]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("name", "case"), CASES)
def test_planted_channels_all_leave_and_nothing_else(
    make: Make, kill: Kill, check: Check, name: str, case: str, dims: int
) -> None:
    """Two channels of each group and frequency are dead in every convolution that a norm and a relu follow."""
    size = (3, 7, 6) if dims == 2 else (3, 3, 7, 6)
    options = {"out": 32, **OPTIONS[case], **({"expansion": 2.0} if name == "shuffle_unit" else {})}
    low = int(16 * float(options.get("alpha", 0)))
    network = make(size, *nodes(size, low, (name, options), (name, {**options, "stride": 1})))
    groups = int(options.get("groups", 1))
    sites = network.architecture.sites
    planted: dict[str, list[int]] = {}
    dead: list[int] = []
    for before, site, after in zip(sites, sites[1:], sites[2:]):
        if isinstance(before.leaf, Conv):
            dead = []
        if isinstance(before.leaf, Shuffle):
            dead = shuffled(dead, before.leaf.groups, before.before.high, before.before.low)
        if not isinstance(site.leaf, Norm):
            continue
        if isinstance(before.leaf, Depthwise):
            kill(network, site.name, dead, 0.0)
        elif isinstance(after.leaf, Activation) and in_a_row(before, site, after):
            if name == "shuffle_unit" and before.name == "body.0":
                continue  # its channels are concatenated on, then added to others that live
            for start, width in ((0, site.after.high), (site.after.high, site.after.low)):
                each = width // groups
                if each >= 4 and each % 2 == 0:  # a shuffle spreads these evenly over a reader's groups
                    dead += [start + g * each + place for g in range(groups) for place in (0, each // 2)]
            kill(network, site.name, dead[::2], 0.0)
            kill(network, site.name, dead[1::2], -0.5)
            if dead:
                planted[before.name] = list(dead)
    pruned = check(network)
    assert planted
    assert {name: [c.channel for c in found] for name, found in pruned.removed.items()} == planted
    assert pruned.kept == {}


def depthwise(site: Site) -> bool:
    """A convolution with a group for each channel: these are the channels of the layer before."""
    return isinstance(site.leaf, Conv) and 1 < site.leaf.groups == site.before.channels == site.after.channels


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Node, ...]]:
    size = draw(st.sampled_from([(2, 7, 6), (2, 2, 5, 6)]))
    groups = draw(st.sampled_from([1, 2, 4]))
    alpha = draw(st.sampled_from([0.0, 0.25, 0.5]))
    blocks = []
    width = 16
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.sampled_from([width, 32, 48])) if width <= 32 else width
        options = {
            "out": width,
            "groups": groups,
            "alpha": alpha,
            "stride": draw(st.sampled_from([1, 1, 2])),
            "kernel": draw(st.sampled_from([1, 3, 5])),
            "shuffle": draw(st.booleans()),
            "dilation": draw(st.sampled_from([1, 2])),
            "factorization": draw(st.sampled_from(["none", "stacked", "asymmetric"])),
            "squeeze_excite": draw(st.sampled_from([0.0, 0.25])),
            "activation": draw(st.sampled_from(["relu", "relu6", "hardswish", "sigmoid", "silu"])),
        }
        blocks.append((draw(st.sampled_from(sorted(BLOCKS))), options))
    return size, nodes(size, int(16 * alpha), *blocks)


def built(make: Make, drawn: st.DataObject) -> Network:
    """A network of a legal draw; widths that `groups` does not divide are drawn again."""
    for _ in range(20):
        try:
            size, body = drawn.draw(chains())
            return make(size, *body, seed=drawn.draw(st.integers(0, 99)))
        except ArchitectureError:
            continue
    reject()


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_planted_leaves_or_is_named(make: Make, kill: Kill, check: Check, data: st.DataObject) -> None:
    network = built(make, data)
    share = data.draw(st.sampled_from([0.1, 0.3, 0.6, 1.0]))
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    planted: list[tuple[str, str, int]] = []
    for before, site in pairwise(network.architecture.sites):
        if isinstance(site.leaf, Norm):
            dead = [c for c in range(site.after.channels) if torch.rand(1, generator=rng) < share]
            for shift in (0.0, -0.7, 0.4):
                some = [c for c in dead if torch.rand(1, generator=rng) < 0.5]
                kill(network, site.name, some, shift)
                if isinstance(before.leaf, Conv) and in_a_row(before, site) and not depthwise(before):
                    planted += [(before.name, site.name, c) for c in some]
    pruned = check(network)
    removed = {(name, c.channel) for name, found in pruned.removed.items() for c in found}
    kept = {(name, k.constant.channel) for name, found in pruned.kept.items() for k in found}
    for conv, norm, channel in planted:
        assert ((conv, channel) in removed) != bool({(conv, channel), (norm, channel)} & kept)
    assert all(k.reason for found in pruned.kept.values() for k in found)
