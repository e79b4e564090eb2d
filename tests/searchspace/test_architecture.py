"""Joins, places in error messages, sites, and equality."""

import pytest
from hypothesis import given, settings
from strategies import architectures

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Architecture,
    ArchitectureError,
    Chain,
    Concat,
    Conv,
    Flatten,
    Linear,
    Norm,
    Shape,
    Tap,
    map_leaves,
    shape_after,
)

HEAD = Chain((AdaptivePool(), Flatten(), Linear(3, label="classifier")), label="head")


def stage(*items, label="stage1"):
    return Chain(items, label=label)


@pytest.mark.parametrize("space", [(8, 8), (4, 8, 8)])
def test_branches_of_add_end_in_one_shape_or_the_place_is_named(space):
    rule = r"All branches of Add must end in one shape, but got 8x\S+, 3x\S+\. At stage1/add \(body\.0\.1\)"
    with pytest.raises(ArchitectureError, match=rule):
        Architecture((3, *space), Chain((stage(Activation(), Add((Conv(8), Chain()))), HEAD)))


def test_add_refuses_frequencies_that_differ():
    with pytest.raises(ArchitectureError, match=r"8x8x8 \(4 low\), 8x8x8 \(2 low\)"):
        Architecture((3, 8, 8), Chain((Add((Conv(8, low=4), Conv(8, low=2))), HEAD)))


def test_branches_of_concat_end_in_one_space():
    rule = r"All branches of Concat must end in one space, but got 8x8x8, 8x4x4\. At stage1/concat \(body\.0\.0\)"
    with pytest.raises(ArchitectureError, match=rule):
        Architecture((3, 8, 8), Chain((stage(Concat((Conv(8), Conv(8, 3, 2)))), HEAD)))


def test_a_leaf_that_fails_is_named_by_label_and_index():
    rule = (
        r"`groups` must divide the input channels, but got \(width=3, groups=2\)\. At stage1/spatial \(body\.0\.1\.0\)"
    )
    with pytest.raises(ArchitectureError, match=rule):
        Architecture(
            (3, 8, 8), Chain((stage(Norm(), Add((Conv(4, 3, groups=2, label="spatial"), Conv(4)))), HEAD))
        )  # fmt: skip
    with pytest.raises(ArchitectureError, match=r"At stage1/conv \(body\.0\.0\)"):
        Architecture((3, 8, 8), Chain((stage(Conv(4, 3, groups=2)), HEAD)))


@pytest.mark.parametrize("join", [lambda t: Add((t, Chain())), lambda t: Concat((t,)), lambda t: Tap(t)])
def test_a_tap_stands_only_in_chains(join):
    with pytest.raises(ArchitectureError, match="A Tap may stand only in chains, never inside Add, Concat or a Tap"):
        Architecture((3, 8, 8), Chain((stage(join(Chain((Tap(HEAD),)))), HEAD)))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Add((Conv(3),)), "Add needs at least two branches, but got 1"),
        (lambda: Add(()), "Add needs at least two branches, but got 0"),
        (lambda: Concat(()), "Concat needs at least one branch"),
        (lambda: Architecture((3, 8), HEAD), r"`input` must be \(channels, height, width\) or .* but got \(3, 8\)"),
        (lambda: Architecture((3, 1, 1, 1, 1), HEAD), "`input` must be"),
        (lambda: Architecture((3, 0, 8), HEAD), r"`input` must be .* but got \(3, 0, 8\)"),
        (lambda: Architecture((3.0, 8, 8), HEAD), "`input` must be"),
        (lambda: Architecture(3, HEAD), "`input` must be"),
        (lambda: Architecture((3, 8, 8), Conv(3)), "`body` must be a Chain, but got Conv"),
    ],
)
def test_an_illegal_join_or_input_is_refused(make, rule):
    with pytest.raises(ArchitectureError, match=rule):
        make()


def test_concat_adds_up_each_frequency():
    shape = shape_after(Concat((Conv(8, low=2), Conv(4), Conv(6, low=6))), Shape(3, (9, 7)))
    assert shape == Shape(18, (9, 7), low=8)


def test_an_empty_chain_is_the_identity():
    assert shape_after(Chain(), Shape(3, (9, 7), low=1)) == Shape(3, (9, 7), low=1)


def test_labels_and_lists_change_neither_equality_nor_digest():
    a = Architecture((3, 8, 8), Chain((Conv(4, 3), HEAD)))
    b = Architecture([3, 8, 8], Chain([Conv(4, (3, 3), padding=1, label="stem"), HEAD], label="net"))
    assert a == b
    assert hash(a) == hash(b)
    assert a.digest == b.digest
    assert len(a.digest) == 16


@pytest.mark.parametrize(
    "other",
    [
        Architecture((3, 8, 9), Chain((Conv(4, 3), HEAD))),
        Architecture((3, 8, 8), Chain((Conv(5, 3), HEAD))),
        Architecture((3, 8, 8), Chain((Conv(4, 3, dilation=2), HEAD))),
        Architecture((3, 8, 8), Chain((Conv(4, 3, padding=0), HEAD))),
        Architecture((3, 8, 8), Chain((Conv(4, 3, bias=True), HEAD))),
        Architecture((3, 8, 8), Chain((Conv(4, 3), Conv(4), HEAD))),
        Architecture((3, 8, 8), Chain((Conv(4, 3, low=1), HEAD))),
    ],
)
def test_another_network_has_another_digest(other):
    a = Architecture((3, 8, 8), Chain((Conv(4, 3), HEAD)))
    assert a != other
    assert a.digest != other.digest


def test_sites_follow_execution_and_name_labels_and_shapes():
    tap = Tap(Chain((AdaptivePool(), Flatten(), Linear(3))), label="aux")
    body = Chain((stage(Add((Chain((Conv(3, 3, label="spatial"), Norm())), Chain()))), tap, HEAD))
    sites = Architecture((3, 8, 8), body).sites
    assert [s.name for s in sites[:2]] == ["body.0.0.0.0", "body.0.0.0.1"]
    assert (sites[0].path, sites[0].role) == (("stage1",), "spatial")
    assert (sites[0].before, sites[0].after) == (Shape(3, (8, 8)), Shape(3, (8, 8)))
    assert [s.auxiliary for s in sites] == [False, False, True, True, True, False, False, False]
    assert sites[2].path == ("aux",)


@given(architectures())
@settings(max_examples=60)
def test_the_shapes_of_sites_chain_up_to_the_output(a):
    assert a.output == Shape(3, ()) == a.sites[-1].after
    for site in a.sites:
        assert site.leaf.after(site.before) == site.after


@given(architectures())
@settings(max_examples=30)
def test_mapping_no_leaf_keeps_the_body_and_mapping_one_changes_that_one(a):
    assert map_leaves(a.body, {}) is a.body
    last = a.sites[-1]
    body = map_leaves(a.body, {last.index: Linear(7)})
    assert Architecture(a.input, body).output == Shape(7, ())
