"""Spaces: against brute force over all codes, uniform draws, closed moves, files with faults, users' own blocks."""

import sys
from collections import Counter
from functools import lru_cache
from itertools import product
from pathlib import Path
from random import Random

import pytest
import torch
from scipy.stats import chisquare

import experiments
from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    ArchitectureError,
    Chain,
    Concat,
    Conv,
    Flatten,
    Linear,
    LocalNorm,
    Norm,
    Pool,
    Shape,
    Tap,
    shape_after,
)
from searchspace.blocks import BLOCKS
from searchspace.choices import SpaceError
from searchspace.cost import cost, trace_flops
from searchspace.network import build
from searchspace.space import Candidate, Space

SHIPPED = Path(experiments.__file__).parent / "spaces"

# Enumerable spaces: each has codes that stand for one network in a way of its own.
MIXED = {
    "stem": {"width": 8},
    "stages": [
        {
            "block": ["plain", "residual", "depthwise_separable"],
            "depth": [1, 2],
            "width": [8, 12],
            "kernel": [3, 5],
            "groups": [1, 2, 3],
            "shuffle": [False, True],
            "alpha": [0.0, 0.25],
            "factorization": ["none", "stacked", "asymmetric"],
            "activation": ["relu", "silu"],
        }
    ],
}
WIDTHS = {
    "width": [0.5, 1.0, 2.0],
    "width_multiple": 4,
    "resolution": [0.5, 0.51, 1.0],
    "stem": {"width": [4, 8], "kernel": [3, 5]},
    "stages": [
        {"block": "plain", "width": [8, 16], "depth": [0, 1, 2]},
        {"block": "plain", "width": [8, 16, 32], "stride": 2},
    ],
    "head": {"width": [0, 16], "activation": ["relu", "silu"]},
}
RATIOS = {
    "stem": {"width": 8, "pool": ["none", "max"]},
    "stages": [
        {
            "block": ["bottleneck", "inverted_residual", "fire", "shuffle_unit"],
            "width": [16, 24],
            "depth": [1, 2],
            "expansion": [1, 2, 2.1],
            "squeeze": [0.125, 0.13, 0.5],
            "squeeze_excite": [0.0, 0.25],
            "kernel": [1, 3],
            "dilation": [1, 2],
        },
        {"block": ["fire", "plain"], "width": 16, "squeeze": [0.25, 0.5], "activation": ["relu", "gelu"]},
    ],
}
CLIPS = {
    "stem": {"width": 8, "kernel": [3, [1, 3, 3]], "stride": [1, [1, 2, 2]]},
    "stages": [
        {
            "block": ["plain", "bottleneck", "shuffle_unit"],
            "width": [16, 24],
            "depth": [0, 1],
            "kernel": [3, [3, 1, 1], [1, 3, 3]],
            "factorization": ["none", "asymmetric"],
            "groups": [1, 2],
            "shuffle": [True, False],
            "dilation": [1, 2],
            "stride": [1, [1, 2, 2]],
            "alpha": [0.0, 0.5],
        }
    ],
}
MODULES = {
    "stem": {"width": 8, "pool": ["none", "average"], "ceil": [False, True]},
    "stages": [
        {
            "block": ["inception_a", "inception_b", "inception_c", "dense", "bottleneck", "grid_reduction"],
            "width": [24, 32],
            "stride": 2,
            "kernel": [1, 3],
            "dilation": [1, 2],
            "pool": ["max", "average"],
            "reduction": ["parallel", "conv_pool"],
            "factorization": ["none", "asymmetric"],
            "shortcut": [True, False],
        },
        {"block": "residual", "width": 16, "bias": [False, True]},
    ],
}
SPACETIME = {
    "stem": {"width": 8, "kernel": [[1, 3, 3]]},
    "stages": [
        {
            "block": ["plain", "residual", "bottleneck", "inception_b"],
            "width": [16, 24],
            "kernel": [3, [3, 1, 1]],
            "stride": [1, [1, 2, 2]],
            "factorization": ["none", "r2plus1d", "p3d_a", "p3d_b", "p3d_c"],
            "separation": ["none", "preserved", "reduced"],
            "groups": [1, 2],
            "stride_in": ["spatial", "reduce"],
            "shortcut": [True, False],
        },
    ],
    "head": {"auxiliary": [0.0, 0.3]},
}
SPACES = {
    "mixed": (MIXED, (3, 8, 8)),
    "widths": (WIDTHS, (3, 8, 8)),
    "ratios": (RATIOS, (3, 8, 8)),
    "clips": (CLIPS, (2, 4, 8, 8)),
    "modules": (MODULES, (3, 8, 8)),
    "spacetime": (SPACETIME, (2, 4, 8, 8)),
}


def space_of(record, input=(3, 8, 8), **options) -> Space:
    return Space(record, input=input, classes=3, **options)


def stage(**options) -> dict[str, object]:
    return {"stages": [{"block": "plain", "width": 8, **options}]}


def codes(space: Space):
    for values in product(*space.choices.values()):
        yield dict(zip(space.choices, values, strict=True))


@lru_cache
def enumerated(name: str):
    """(space, its members, each code that can be built with its architecture)."""
    record, input = SPACES[name]
    space = space_of(record, input)
    built = []
    for code in codes(space):
        try:
            built.append((code, space.decode(code)))
        except ArchitectureError:
            continue
    return space, list(space.members()), built


all_spaces = pytest.mark.parametrize("name", SPACES)
long_spaces = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "mixed" else pytest.mark.slow) for name in SPACES]
)


@all_spaces
def test_members_are_the_distinct_architectures_of_all_codes(name):
    space, members, built = enumerated(name)
    assert len(members) >= 500
    assert len({m.architecture for m in members}) == len(members)
    assert {m.architecture for m in members} == {architecture for _, architecture in built}
    assert space.size >= len(members)
    assert len(built) > len(members)


@all_spaces
def test_every_code_of_a_member_encodes_to_the_one_that_decodes_to_it(name):
    space, members, built = enumerated(name)
    first: dict[Architecture, dict] = {}
    for member in members:
        first[member.architecture] = member.code
        assert space.encode(member.architecture) == member.code
        assert space.decode(member.code) == member.architecture
    for code, architecture in built[:: max(1, len(built) // 400)]:
        assert space.encode(architecture) == first[architecture], code


@all_spaces
def test_draws_are_members_with_their_codes(name):
    space, members, _ = enumerated(name)
    known = {m.architecture: m.code for m in members}
    rng = Random(3)
    for _ in range(500):
        drawn = space.sample(rng)
        assert known[drawn.architecture] == drawn.code


@long_spaces
@pytest.mark.timeout(600)
def test_50000_draws_are_uniform_over_distinct_buildable_members(name):
    space, members, _ = enumerated(name)
    rng = Random(0)
    counts = Counter(space.sample(rng).architecture.digest for _ in range(50_000))
    assert counts.keys() <= {m.architecture.digest for m in members}
    assert chisquare([counts[m.architecture.digest] for m in members]).pvalue > 1e-3


@all_spaces
def test_mutants_and_children_are_buildable_members(name):
    space, members, _ = enumerated(name)
    known = {m.architecture for m in members}
    rng = Random(1)
    for _ in range(300):
        parent, other = rng.choice(members), rng.choice(members)
        mutant, child = space.mutate(parent, rng), space.cross(parent, other, rng)
        assert mutant.architecture != parent.architecture
        for new in (mutant, child):
            assert new.architecture in known
            assert space.decode(new.code) == new.architecture
            assert space.encode(new.architecture) == space.encode(space.decode(new.code))


@long_spaces
@pytest.mark.timeout(600)
def test_mutation_reaches_every_member_from_any(name):
    space, members, _ = enumerated(name)
    rng, seen, walker = Random(2), set(), members[0]
    for _ in range(20 * len(members)):
        walker = space.mutate(walker, rng)
        seen.add(walker.architecture)
        if len(seen) == len(members):
            break
    assert len(seen) > 0.97 * len(members)


def test_a_child_takes_each_stage_whole_from_a_parent():
    space = space_of({"stages": [{"block": ["plain", "residual"], "width": [8, 16], "kernel": [3, 5]}] * 3})
    rng = Random(0)
    for _ in range(50):
        a, b = space.sample(rng), space.sample(rng)
        child = space.cross(a, b, rng)
        for i in range(3):
            parts = [tuple(c.code[f"stage{i + 1}.{n}"] for n in ("block", "width", "kernel")) for c in (child, a, b)]
            assert parts[0] in parts[1:]


def test_widths_reached_through_another_multiplier_count_once():
    space = space_of({"width": [1.0, 2.0], "stem": {"width": [8, 16]}, **stage(width=[8, 16])})
    widths = {tuple(s.leaf.out for s in m.architecture.sites[:4] if isinstance(s.leaf, Conv)) for m in space.members()}
    assert widths == {(a, b) for a, b in product((8, 16), repeat=2)} | {
        (2 * a, 2 * b) for a, b in product((8, 16), repeat=2)
    }
    assert len(list(space.members())) == len(widths) == 7


def test_what_does_nothing_is_not_a_choice():
    twins = [
        ({"groups": 1, "shuffle": [False, True]}, 1),
        ({"kernel": 3, "factorization": ["none", "stacked"]}, 1),
        ({"kernel": 1, "factorization": ["none", "stacked", "asymmetric"], "dilation": [1, 2]}, 1),
        ({"depth": [0, 1], "kernel": [3, 5]}, 3),
        ({"groups": [1, 2], "shuffle": [False, True]}, 3),
        ({"kernel": [3, 5], "factorization": ["none", "stacked"]}, 3),
    ]
    for options, count in twins:
        assert len(list(space_of(stage(**options)).members())) == count, options


def test_choices_left_out_are_at_their_first_value_and_unknown_ones_are_refused():
    space = space_of(stage(kernel=[5, 3], width=[8, 16]))
    assert space.decode({}) == space.decode({"stage1.kernel": 5, "stage1.width": 8})
    with pytest.raises(SpaceError, match=r"has no choice 'stage2.kernel'; it has stage1.width, stage1.kernel"):
        space.decode({"stage2.kernel": 5})
    with pytest.raises(SpaceError, match=r"`stage1.kernel` must be one of \[5, 3\] \(got 7\)"):
        space.decode({"stage1.kernel": 7})


def test_a_stranger_is_not_encoded():
    space = space_of(stage(width=[8, 16]))
    for other in (
        space_of(stage(width=24)).decode({}),
        space_of(stage(width=8, kernel=5)).decode({}),
        space_of(stage(width=8, depth=2)).decode({}),
        space_of(stage(width=8), input=(3, 9, 9)).decode({}),
        space_of({"stages": [{"block": "plain", "width": 8}] * 2}).decode({}),
        Architecture((3, 8, 8), Chain((Conv(8), Conv(8), Conv(8)))),
    ):
        with pytest.raises(SpaceError, match="must hold the architecture to encode it"):
            space.encode(other)


def test_depth_zero_leaves_a_stage_out():
    space = space_of({"stages": [{"block": "plain", "width": 8, "depth": [0, 1]}, {"block": "plain", "width": 16}]})
    chain = space.decode({"stage1.depth": 0}).body.items[1]
    assert chain == Chain()


def test_only_the_first_block_of_a_stage_strides():
    a = space_of(stage(depth=3, stride=2)).decode({})
    assert [s.leaf.stride for s in a.sites if s.role == "spatial"] == [2, 1, 1]


def test_the_resolution_multiplier_scales_images_and_not_frames():
    space = space_of({"resolution": [0.5, 1.0], **stage()}, input=(3, 4, 9, 8))
    assert {m.architecture.input for m in space.members()} == {(3, 4, 4, 4), (3, 4, 9, 8)}


@pytest.mark.parametrize("name", SPACES)
def test_members_train_and_cost_what_their_trace_counts(name):
    record, input = SPACES[name]
    space, rng = space_of(record, input), Random(5)
    for _ in range(12):
        a = space.sample(rng).architecture
        network = build(a, 0)
        out = network(torch.randn(2, *a.input))
        logits, heads = out if isinstance(out, tuple) else (out, ())
        sum(head.sum() for head in (logits, *heads)).backward()
        assert cost(a).flops == trace_flops(network, a.input)


def test_the_same_seed_draws_the_same():
    space, again = space_of(MIXED), space_of(MIXED)
    one, other = ([s.sample(r) for _ in range(20)] for s, r in ((space, Random(7)), (again, Random(7))))
    assert one == other


def test_a_space_without_a_buildable_member_says_why():
    space = space_of({"stem": {"width": 8}, **stage(groups=3)})
    with pytest.raises(SpaceError, match=r"got none in all 1 codes; first: `groups` must divide"):
        space.sample(Random(0))
    assert list(space.members()) == []


def picky(into: Shape, *, out: int, a: int = 0, b: int = 0, c: int = 0) -> Chain:
    """A block that fits at two of its settings."""
    if (a, b, c) not in ((3, 1, 4), (9, 9, 9)):
        raise ValueError("not today")
    return Chain((Conv(out, 3 if a == 3 else 5),))


def test_the_few_members_of_a_small_space_are_found_and_drawn_alike():
    ten = list(range(10))
    space = space_of({"stages": [{"block": "mine", "width": 8, "a": ten, "b": ten, "c": ten}]}, blocks={"mine": picky})
    assert len(list(space.members())) == 2
    rng = Random(0)
    counts = Counter(space.sample(rng).architecture for _ in range(16))
    assert min(counts.values()) >= 3
    assert len(counts) == 2


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"block": "mine", "a": [*range(40)], "c": 0}, r"in 10,000 draws; last: Block 'mine' refuses .*: not today"),
        ({"block": "plain", "groups": 3, "kernel": [3, 5]}, r"in 100,000 draws; last: `groups` must divide"),
    ],
)
def test_a_large_space_that_gives_no_member_is_refused_in_bounded_time(options, rule):
    stages = [{"width": [*range(8, 808)], **options}]
    space = space_of({"stem": {"width": 8}, "stages": stages}, blocks={"mine": picky})
    assert space.size > 1000
    with pytest.raises(SpaceError, match="got none " + rule):
        space.sample(Random(0))


# Users' own blocks ----------------------------------------------------------------------------------------------


def wide(into: Shape, *, out: int, stride: int = 1, branches: int = 2, kernel: int = 3) -> Chain:
    """A block of a user's own: branches side by side."""
    sides = tuple(Conv(out // branches, kernel, stride) for _ in range(branches))
    return Chain((Concat(sides), Norm(), Activation()))


def broken(into: Shape, *, out: int) -> Chain:
    raise KeyError("lost")


def nothing(into: Shape, *, out: int) -> None:
    return None


def test_a_users_block_is_named_by_module_and_function(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_blocks", sys.modules[__name__])
    record = {"stages": [{"block": ["my_blocks:wide", "plain"], "width": [8, 16], "branches": [1, 2, 4], "depth": 2}]}
    space = space_of(record)
    members = list(space.members())
    assert len(members) == 2 * 3 + 2  # `plain` has no branches
    assert all(space.encode(m.architecture) == m.code for m in members)
    build(space.decode({"stage1.branches": 4}))(torch.randn(2, 3, 8, 8))


def test_a_users_block_is_named_by_the_caller():
    space = space_of({"stages": [{"block": "mine", "width": 8, "branches": [1, 2]}]}, blocks={"mine": wide})
    assert len(list(space.members())) == 2


@pytest.mark.parametrize(
    ("block", "rule"),
    [
        (broken, r"stages\.0\.block: must return a fragment from block 'mine' \(got KeyError: 'lost'\)"),
        (nothing, r"must return a fragment from block 'mine' \(got None\)"),
    ],
)
def test_a_users_block_that_fails_is_named(block, rule):
    space = space_of({"stages": [{"block": "mine", "width": 8}]}, blocks={"mine": block})
    with pytest.raises(SpaceError, match=rule):
        space.sample(Random(0))


# Files ----------------------------------------------------------------------------------------------------------


def test_all_faults_of_a_file_come_at_once_with_their_places():
    record = {
        "width": [0.0],
        "resolutoin": 1.0,
        "width_multiple": [4, 8],
        "stem": {"kernel": 4, "widht": 8},
        "stages": [
            {"block": "plane", "width": 8},
            {"block": "plain", "width": [], "groups": 0, "shuffle": "yes", "expansion": 2},
            {"block": "plain"},
            {"block": ["plain", "plain"], "width": [8, 8], "activation": "rellu", "factorization": "stackd"},
            {"block": "no.such.module:f", "width": 8},
            {"block": "searchspace.blocks:no_such", "width": 8},
            {"block": "searchspace.blocks:whole_width", "width": 8},
        ],
        "head": {"dropout": 2, "width": -1},
    }
    with pytest.raises(SpaceError) as caught:
        space_of(record)
    problems = {".".join(map(str, place)): rule for place, rule in caught.value.problems}
    for place, rule in {
        "width": "must be a number > 0 (got 0.0",
        "resolutoin": "(got 'resolutoin'; did you mean 'resolution'?)",
        "width_multiple": "must be one whole number (got [4, 8])",
        "stem.kernel": "must be an odd number >= 1, or one per axis (got 4",
        "stem.widht": "did you mean 'width'?",
        "stages.0.block": "must be one of plain, residual",
        "stages.1.width": "must offer at least one value (got an empty list)",
        "stages.1.groups": "must be a whole number >= 1 (got 0",
        "stages.1.shuffle": "must be true or false (got 'yes'",
        "stages.1.expansion": "must be one of block, depth, width",
        "stages.2": "must be a mapping with at least block and width",
        "stages.3.block": "must offer different blocks",
        "stages.3.width": "must offer different values (got 8 twice)",
        "stages.3.activation": "did you mean 'relu",
        "stages.3.factorization": "did you mean 'stacked",
        "stages.4.block": "must be importable (got 'no.such.module:f'",
        "stages.5.block": "must name a function of searchspace.blocks (got 'no_such')",
        "stages.6.block": "must be a function (into, *, out, ...) that returns a fragment",
        "head.dropout": "must be a number in [0, 1] (got 2",
        "head.width": "must be a whole number >= 0 (got -1",
    }.items():
        assert rule in problems[place], (place, problems[place])
    assert "did you mean 'plain'?" in problems["stages.0.block"]
    assert str(caught.value).count("; ") >= len(problems) - 1


@pytest.mark.parametrize(
    "record", [{}, {"stages": []}, {"stages": "plain"}, {"stages": [3]}, {"stages": None}, None, []]
)
def test_a_file_without_stages_is_refused(record):
    with pytest.raises(SpaceError, match="stages"):
        space_of(record)


def test_a_yaml_file_is_a_space_and_an_unreadable_one_is_refused(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("stages:\n  - {block: plain, width: [8, 16], kernel: [3, [1, 3], [5, 5]]}\n")
    space = Space.from_yaml(path, input=(3, 8, 8), classes=3)
    assert space.choices == {"stage1.width": (8, 16), "stage1.kernel": (3, (1, 3), 5)}
    for text in ("stages: [", "\tstages"):
        path.write_text(text)
        with pytest.raises(SpaceError, match=r"must be a readable YAML file"):
            Space.from_yaml(path, input=(3, 8, 8), classes=3)
    with pytest.raises(SpaceError, match=r"must be a readable YAML file"):
        Space.from_yaml(tmp_path / "none.yaml", input=(3, 8, 8), classes=3)


def test_lists_of_json_are_tuples_in_a_code():
    space = space_of(stage(kernel=[3, [1, 3]]))
    assert space.decode({"stage1.kernel": [1, 3]}) == space.decode({"stage1.kernel": (1, 3)})


@pytest.mark.parametrize("block", BLOCKS)
def test_every_option_of_every_block_is_a_choice(block):
    import inspect

    names = [n for n, p in inspect.signature(BLOCKS[block]).parameters.items() if p.kind is p.KEYWORD_ONLY]
    values = {
        "stride": [1, 2], "kernel": [3, 5], "expansion": [2, 4], "squeeze": [0.25, 0.5], "groups": [1, 2],
        "shuffle": [False, True], "alpha": [0.0, 0.5], "factorization": ["none", "stacked"], "dilation": [1, 2],
        "squeeze_excite": [0.0, 0.5], "activation": ["relu", "silu"], "separation": ["none", "preserved"],
        "pool": ["max", "average"], "bias": [False, True], "shortcut": [True, False], "layers": [2, 3],
        "reduction": ["parallel", "conv_pool", "pool_conv"], "stride_in": ["spatial", "reduce"],
    }  # fmt: skip
    options = {n: values[n] for n in names if n != "out"}
    space = space_of({"stages": [{"block": block, "width": [16, 24], "depth": 2, **options}]})
    assert [n.partition(".")[2] for n in space.choices if n != "stage1.width"] == list(options)
    rng = Random(0)
    for _ in range(3):
        member = space.sample(rng)
        assert isinstance(member, Candidate)
        assert space.encode(member.architecture) == member.code


def test_a_pool_in_the_stem_stands_after_its_activation():
    a = space_of({"stem": {"width": 8, "pool": "max"}, **stage()}).decode({})
    assert [type(s.leaf) for s in a.sites[:4]] == [Conv, Norm, Activation, Pool]
    assert shape_after(a.body.items[0], Shape(3, (8, 8))) == Shape(8, (4, 4))


def test_a_stem_rounds_its_pool_up_where_asked():
    for ceil, want in ((False, Pool("max", 3, 2)), (True, Pool("max", 3, 2, 0, True))):
        a = space_of({"stem": {"width": 8, "pool": "max", "ceil": ceil}, **stage()}).decode({})
        assert a.body.items[0].items[-1] == want


def test_local_norm_stands_between_the_stems_activation_and_its_pool():
    a = space_of({"stem": {"width": 8, "pool": "max", "local_norm": True}, **stage()}).decode({})
    assert [type(s.leaf) for s in a.sites[:5]] == [Conv, Norm, Activation, LocalNorm, Pool]


def test_an_auxiliary_head_stands_before_the_last_stage():
    record = {"stages": [{"block": "plain", "width": w} for w in (8, 12)], "head": {"auxiliary": [0.0, 0.4]}}
    space = space_of(record)
    without, with_head = (space.decode({"head.auxiliary": weight}) for weight in (0.0, 0.4))
    items = with_head.body.items
    assert items[2] == Tap(Chain((Conv(8), Norm(), Activation(), AdaptivePool(), Flatten(), Linear(3))), 0.4)
    assert items[:2] + items[3:] == without.body.items
    assert cost(with_head).params > cost(without).params
    assert cost(with_head).flops == cost(without).flops
    moved = Architecture(with_head.input, Chain((*items[:2], items[3], items[2], items[4])))
    with pytest.raises(SpaceError, match="must hold the architecture"):
        space.encode(moved)


def test_what_needs_other_axes_than_the_data_has_is_a_fault():
    record = stage(kernel=[3, [1, 3, 3]], factorization=["none", "r2plus1d"])
    with pytest.raises(SpaceError) as error:
        space_of(record)
    assert error.value.problems == [
        (("stages", 0, "kernel"), "must give 2 axes on this data (got [1, 3, 3])"),
        (("stages", 0, "factorization"), "must do without a time axis on images (got 'r2plus1d')"),
    ]
    assert len(space_of(record, (3, 4, 8, 8)).choices) == 2


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        ({"width": float("inf"), **stage()}, "must be a number > 0"),
        ({"width": [1e308], **stage()}, "must be a number > 0"),
        ({"head": {"width": 10**400}, **stage()}, "must be a whole number >= 0"),
        (stage(width=10**9), "must be a whole number >= 1"),
        (stage(block=[]), "must offer at least one block"),
        (stage(block="bottleneck", expansion=float("inf")), "must be a number > 0"),
    ],
)
def test_values_that_no_network_has_are_faults(record, rule):
    with pytest.raises(SpaceError, match=rule):
        space_of(record)


@pytest.mark.parametrize("size", [None, 3, (), (3, 8), ("3", 8, 8), (3, 8.5, 8), (3, 0, 8)])
def test_an_input_that_is_none_is_refused(size):
    with pytest.raises(ArchitectureError, match="`input` must be"):
        space_of(stage(), size)


@pytest.mark.parametrize(
    ("preset", "input"),
    [("digits", (1, 16, 16)), ("images", (3, 32, 32)), ("video", (3, 8, 32, 32)), ("digits-video", (1, 4, 16, 16))],
)
def test_members_of_the_presets_train_and_encode_to_their_codes(preset, input):
    space, rng = Space.from_yaml(SHIPPED / f"{preset}.yaml", input=input, classes=3), Random(7)
    for _ in range(4):
        member = space.sample(rng)
        assert space.encode(member.architecture) == member.code
        network = build(member.architecture, 0)
        out = network(torch.randn(2, *member.architecture.input))
        logits, heads = out if isinstance(out, tuple) else (out, ())
        sum(head.sum() for head in (logits, *heads)).backward()
        assert cost(member.architecture).flops == trace_flops(network, member.architecture.input)


def test_a_dilation_of_one_is_a_choice_like_any_other():
    space = space_of(stage(kernel=[1, 3], dilation=[1, 2]))
    assert "stage1.dilation" in space.active({"stage1.kernel": 3, "stage1.dilation": 1})
    assert "stage1.dilation" not in space.active({"stage1.kernel": 1, "stage1.dilation": 2})
    clips = space_of(stage(kernel=[[3, 1, 1], 3], dilation=[1, [1, 2, 2]]), (3, 4, 8, 8))
    assert clips.canonical({"stage1.kernel": (3, 1, 1), "stage1.dilation": (1, 2, 2)})["stage1.dilation"] == 1
