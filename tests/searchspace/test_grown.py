"""Spaces grown from published networks: against brute force and whole-network transforms, and files with faults."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import product
from random import Random

import pytest
import torch
from scipy.stats import chisquare

from searchspace.architecture import Architecture, ArchitectureError, Axes, Conv, Depthwise
from searchspace.choices import SpaceError
from searchspace.codes import Code
from searchspace.cost import cost, trace_flops
from searchspace.grown import Grown
from searchspace.growth import STEPS, rekernel
from searchspace.named import network
from searchspace.network import build
from searchspace.published import NETWORKS
from searchspace.transforms import everywhere, under, widen

# Enumerable spaces, with codes that stand for one network in several ways: widths that round alike, groups that divide
# nothing, factors of kernels that have none, a resolution that changes nothing.
SMALL: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "mobilenet_v2": (
        {
            "base": "mobilenet_v2",
            "width": [0.1, 0.11, 0.25],
            "stages": {
                "stage3": {
                    "groups": [1, 2, 5],
                    "alpha": [0, 0.25],
                    "kernel": [3, 5],
                    "factorization": ["none", "stacked"],
                },
                "stage6": {"width": [0.5, 1, 0.51], "alpha": [0.25, 0.0]},
            },
        },
        (1, 16, 16),
    ),
    "squeezenet": (
        {
            "base": {"network": "squeezenet", "version": 1.1, "widen": 0.25},
            "resolution": [0.25, 1.0, 1.01],
            "every": {"groups": [1, 3], "factorization": ["none", "stacked", "asymmetric"]},
            "stages": {"stem": {"width": [1, 2]}, "stage2": {"alpha": [0, 0.5], "kernel": [3, 1]}},
        },
        (3, 32, 32),
    ),
    "googlenet": (
        {
            "base": {"network": "googlenet", "variant": "batch_norm", "widen": 0.125},
            "stages": {
                "stage4": {"alpha": [0, 0.25], "groups": [1, 2], "kernel": [3, 5]},
                "stage5": {"width": [1, 0.5], "alpha": [0, 0.25], "factorization": ["none", "asymmetric", "stacked"]},
            },
        },
        (3, 64, 64),
    ),
    "resnet3d": (
        {
            "base": {"network": "resnet3d", "depth": 18},
            "width": [0.0625, 0.125],
            "stages": {
                "stage2": {
                    "kernel": [3, [1, 3, 3], [1, 5, 5]],
                    "factorization": ["none", "r2plus1d", "p3d_b", "p3d_a"],
                },
                "stage3": {"width": [1, 1.5], "groups": [1, 2], "alpha": [0, 0.5]},
            },
        },
        (1, 4, 16, 16),
    ),
}
all_small = pytest.mark.parametrize("name", SMALL)


@lru_cache
def enumerated(name: str) -> tuple[Grown, list[tuple[Code, Architecture]], int]:
    """(space, each code that can be built with its architecture, codes that cannot)."""
    record, input = SMALL[name]
    space = Grown(record, input=input, classes=4)
    built: list[tuple[Code, Architecture]] = []
    broken = 0
    for values in product(*space.choices.values()):
        code = dict(zip(space.choices, values, strict=True))
        try:
            built.append((code, space.decode(code)))
        except ArchitectureError:
            broken += 1
    return space, built, broken


@all_small
def test_members_are_the_distinct_architectures_of_all_codes(name: str) -> None:
    space, built, broken = enumerated(name)
    members = list(space.members())
    assert space.size == len(built) + broken
    assert len(built) > len(members) >= 48
    assert {m.architecture for m in members} == {architecture for _, architecture in built}
    assert len({m.architecture.digest for m in members}) == len(members)
    assert (broken > 0) == (name == "squeezenet")


@all_small
def test_every_code_has_the_first_of_its_architecture_as_canonical_and_encoded_form(name: str) -> None:
    space, built, _ = enumerated(name)
    first: dict[Architecture, Code] = {}
    for code, architecture in built:
        first.setdefault(architecture, code)
    for code, architecture in built:
        canonical = space.canonical(code)
        assert space.decode(canonical) == architecture
        assert canonical == space.canonical(canonical)
        assert first[architecture] == canonical
    for architecture in list(first)[::7]:
        assert space.encode(architecture) == first[architecture]
    with pytest.raises(SpaceError, match="must hold the architecture to encode it"):
        space.encode(widen(built[0][1], 1.5, everywhere))


@all_small
def test_an_option_is_active_where_another_value_makes_another_network(name: str) -> None:
    space, built, _ = enumerated(name)
    for code, architecture in Random(0).sample(built, 12):
        active = space.active(code)
        assert set(active) <= set(space.choices)
        for option, values in space.choices.items():
            if "." not in option:
                assert option in active
            elif option not in active:
                assert {space.decode({**code, option: value}) for value in values} == {architecture}


def test_draws_are_uniform_over_the_members() -> None:
    record, input = SMALL["mobilenet_v2"]
    stages = {"stage3": {"groups": [1, 2, 5], "alpha": [0, 0.25]}, "stage6": {"width": [0.5, 1, 0.51]}}
    space = Grown({**record, "stages": stages}, input=input, classes=4)
    members = [m.architecture for m in space.members()]
    assert 10 < len(members) < space.size / 2
    rng = Random(0)
    counts = Counter(space.sample(rng).architecture for _ in range(40 * len(members)))
    assert set(counts) <= set(members)
    assert chisquare([counts[m] for m in members]).pvalue > 0.001


@all_small
def test_a_stage_becomes_what_the_transforms_make_of_it_in_the_whole_network(name: str) -> None:
    space, built, _ = enumerated(name)
    record, _ = SMALL[name]
    for code, architecture in Random(1).sample(built, 15):
        full = {**{k: v[0] for k, v in space._values.items()}, **code}
        expected = space._base(full["width"], full["resolution"])
        for label, options in space._stages.items():
            for option in options:
                value = full[f"{label}.{option}"]
                if value not in (0, "none") and not (value == 1 and option != "kernel"):
                    expected = STEPS[option](expected, value, under(label))
        assert architecture == expected, (record["base"], code)


GROWN = [
    ("mobilenet_v2", (3, 32, 32)),
    ("mobilenet_v3", (1, 32, 32)),
    ("shufflenet_v1", (3, 32, 32)),
    ({"network": "resnet", "depth": 18}, (3, 32, 32)),
    ({"network": "resnext", "depth": 50}, (3, 32, 32)),
    ("googlenet", (3, 64, 64)),
    ("densenet", (3, 32, 32)),
    ({"network": "csn", "depth": 26}, (1, 4, 16, 16)),
    ({"network": "r2plus1d", "depth": 18}, (1, 4, 16, 16)),
]
grown = pytest.mark.parametrize(("base", "input"), GROWN, ids=lambda v: str(v) if isinstance(v, str) else "")


def options(base: object, input: tuple[int, ...]) -> dict[str, object]:
    factors = ["none", "asymmetric"] if len(input) == 3 else ["none", "r2plus1d", "p3d_c"]
    every = {"alpha": [0, 0.25], "groups": [1, 2], "width": [1, 0.75], "kernel": [3, 5], "factorization": factors}
    return {"base": base, "width": [1, 0.25], "every": every}


@grown
def test_where_every_option_does_nothing_the_base_stands_with_its_new_head(
    base: object, input: tuple[int, ...]
) -> None:
    record = base if isinstance(base, dict) else {"network": base}
    plain = network(record, input=input, classes=7)
    for record_, stages in ((options(base, input), "all"), ({"base": base, "width": [1, 0.25]}, "none")):
        space = Grown(record_, input=input, classes=7)
        code = {n: next(v for v in values if v in (1, 0, "none", 3)) for n, values in space.choices.items()}
        kernels = {site.leaf.kernel for site in plain.sites if isinstance(site.leaf, Conv | Depthwise) and site.path}
        if stages == "none" or kernels <= {1, 3, 7}:  # a stage of other kernels has no value that keeps them
            assert space.decode(code) == plain
            assert space.encode(plain) == code
    own = "width" in NETWORKS[record["network"]].__kwdefaults__  # type: ignore[index]
    quarter = network({**record, "width": 0.25} if own else {**record, "widen": 0.25}, input=input, classes=7)
    assert space.decode({"width": 0.25}) == quarter


@grown
def test_samples_are_distinct_networks_that_encode_build_and_run(base: object, input: tuple[int, ...]) -> None:
    space, rng = Grown(options(base, input), input=input, classes=5), Random(0)
    samples = [space.sample(rng) for _ in range(6)]
    for sample in samples:
        assert space.encode(sample.architecture) == space.canonical(sample.code) == sample.code
    small = min(samples, key=lambda sample: cost(sample.architecture).flops).architecture
    module = build(small, 0)
    assert trace_flops(module, input) == cost(small).flops
    assert module.eval()(torch.randn(2, *input)).shape == (2, 5)


@grown
def test_moves_stay_inside_the_space(base: object, input: tuple[int, ...]) -> None:
    space, rng = Grown(options(base, input), input=input, classes=5), Random(3)
    a, b = space.sample(rng), space.sample(rng)
    for _ in range(5):
        mutant, child = space.mutate(a, rng), space.cross(a, b, rng)
        assert mutant.architecture != a.architecture
        for candidate in (mutant, child):
            assert space.canonical(candidate.code) == candidate.code
            assert space.decode(candidate.code) == candidate.architecture
        assert all(child.code[name] in (a.code[name], b.code[name]) for name in ("width", "stage3.kernel"))
        a, b = mutant, child


@pytest.mark.parametrize(
    ("kernel", "expected"), [(5, {5, (3, 1, 1), (1, 5, 5), 1}), ((1, 3, 3), {(1, 3, 3), (3, 1, 1), 1})]
)
def test_rekernel_replaces_square_kernels_and_keeps_every_map(kernel: Axes, expected: set[Axes]) -> None:
    mixed = network({"network": "p3d", "depth": 63}, input=(1, 4, 32, 32), classes=3)
    plain = network({"network": "resnet3d", "depth": 18}, input=(1, 4, 32, 32), classes=3)
    stages = under("stage2", "stage3")
    found = set()
    for architecture in (mixed, plain):
        changed = rekernel(architecture, kernel, stages)
        assert [site.after for site in changed.sites] == [site.after for site in architecture.sites]
        found |= {s.leaf.kernel for s in changed.sites if stages(s) and isinstance(s.leaf, Conv | Depthwise)}
    assert found == expected


# Files ----------------------------------------------------------------------------------------------------------


def problems(record: object, input: tuple[int, ...] = (3, 32, 32)) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        Grown(record, input=input, classes=3)  # type: ignore[arg-type]
    return [f"{'.'.join(map(str, place))}: {rule}" for place, rule in caught.value.problems]


def test_every_fault_of_a_file_is_told_at_its_place() -> None:
    record = {
        "base": "mobilenet_v2",
        "widht": [1],
        "width": [0.5, 0],
        "resolution": [],
        "every": {"alpha": [0, 2], "squeeze": 1},
        "stages": {
            "stage22": {},
            "stage2": {"groups": 0, "kernel": 4},
            "stage3": {"factorization": ["nune"]},
            "head": 3,
        },
    }
    expected = [
        ("widht: must be one of", "did you mean 'width'"),
        ("width: must be a number > 0 (got 0)", ""),
        ("resolution: must offer at least one value", ""),
        ("every.squeeze: must be one of width, kernel", "(got 'squeeze'"),
        ("every.alpha: must be a number in [0, 1]", "(got 2)"),
        ("stages.stage22: must be one of stem, stage1", "did you mean 'stage2'"),
        ("stages.stage2.groups: must be a whole number >= 1", "(got 0)"),
        ("stages.stage2.kernel: must be an odd number", "(got 4)"),
        ("stages.stage3.factorization: must be one of none", "did you mean 'none'"),
        ("stages.head: must be a mapping of options", "(got 3)"),
    ]
    said = problems(record)
    for start, part in expected:
        assert any(problem.startswith(start) and part in problem for problem in said), (start, said)
    assert len(said) == len(expected)


@pytest.mark.parametrize(
    ("record", "input", "rule"),
    [
        ({"base": "mobilenet"}, (3, 32, 32), "base: must be one of .*did you mean 'mobilenet_v"),
        (
            {"base": "resnet", "resolution": [1, float("inf")]},
            (3, 32, 32),
            r"resolution: must be a number > 0 \(got inf\)",
        ),
        ({"base": None}, (3, 32, 32), "base: must be a published network"),
        (
            {"base": {"network": "resnet", "depth": 19}},
            (3, 32, 32),
            r"base: must be a network .*\(got resnet\(depth=19\)",
        ),
        ({"base": {"network": "resnet", "dept": 18}}, (3, 32, 32), "base.dept: must be one of .*did you mean 'depth'"),
        ({"base": "vgg"}, (3, 8, 8), r"base: must fit the data's input 3x8x8 \(got vgg: The window must fit"),
        ({"base": "dilated_context"}, (3, 32, 32), "base: must be a classifier that ends in 3 values"),
        (
            {"base": "resnet", "every": {"kernel": [[1, 3, 3]]}},
            (3, 32, 32),
            "every.kernel: must give 2 axes on this data",
        ),
        ({"base": "resnet", "every": {"factorization": "p3d_a"}}, (3, 32, 32), "must do without a time axis on images"),
        ("resnet", (3, 32, 32), ": must be a mapping of options"),
    ],
)
def test_what_cannot_be_a_space_is_refused_by_its_rule(record: object, input: tuple[int, ...], rule: str) -> None:
    import re

    said = problems(record, input)
    assert any(re.search(rule, problem) for problem in said), said


def test_a_code_that_the_space_does_not_have_is_refused_by_name() -> None:
    space, _, _ = enumerated("mobilenet_v2")
    with pytest.raises(SpaceError, match=r"has no choice 'stage3.alpah'; it has width, stage3\."):
        space.decode({"stage3.alpah": 0})
    with pytest.raises(SpaceError, match=r"`stage3.alpha` must be one of \[0, 0.25\] \(got 0.5\)"):
        space.decode({"stage3.alpha": 0.5})
