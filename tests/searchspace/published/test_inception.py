"""GoogLeNet and Inception-v3 by their parts: widths, grids and params of each module, and the auxiliary heads."""

import pytest

from searchspace.architecture import Leaf, Pool, Tap, shape_after
from searchspace.cost import cost, leaf_cost
from searchspace.published.googlenet import MODULES, googlenet
from searchspace.published.inception import inception_v3


def sites(architecture, label):
    return [s for s in architecture.sites if label in s.path]


def params(sites):
    return sum(leaf_cost(s.leaf, s.before, s.after).params for s in sites)


def modules(architecture):
    """Of each labelled module: its params, its width and the size of its grid."""
    made = {}
    for stage in architecture.body.items:
        into = next((s.before for s in architecture.sites if stage.label in s.path and stage.label), None)
        for item in getattr(stage, "items", ()):
            after = shape_after(item, into) if into else None
            if item.label and not isinstance(item, Leaf):
                made[item.label] = params(sites(architecture, item.label)), after.channels, after.space[0]
            into = after
    return made


def test_each_block_of_inception_v3():
    """As counted on the released network."""
    assert modules(inception_v3()) == {
        "5b": (255_904, 256, 35),
        "5c": (277_472, 288, 35),
        "5d": (285_152, 288, 35),
        "6a": (1_153_280, 768, 17),
        "6b": (1_297_408, 768, 17),
        "6c": (1_691_008, 768, 17),
        "6d": (1_691_008, 768, 17),
        "6e": (2_141_952, 768, 17),
        "7a": (1_698_304, 1280, 8),
        "7b": (5_044_608, 2048, 8),
        "7c": (6_076_800, 2048, 8),
    }


def test_the_stem_of_inception_v3():
    stem = sites(inception_v3(), "stem")
    convolutions = [s for s in stem if s.role == "stem"]
    each = [leaf_cost(s.leaf, s.before, s.after).params + 2 * s.after.channels for s in convolutions]
    assert each == [928, 9_280, 18_560, 5_280, 138_624]
    sizes = [s.after.space[0] for s in stem if s.role == "stem" or isinstance(s.leaf, Pool)]
    assert sizes == [149, 147, 147, 73, 73, 71, 35]


def test_inception_v3_has_one_auxiliary_head_on_its_17_grid():
    with_head, without = inception_v3(), inception_v3(aux=False)
    head = [s for s in with_head.sites if s.auxiliary]
    assert params(head) == cost(with_head).params - cost(without).params == 3_326_696
    assert (head[0].before.channels, head[0].before.space, head[-1].after.channels) == (768, (17, 17), 1000)
    assert [item.weight for item in with_head.body.items if isinstance(item, Tap)] == [0.4]
    assert cost(with_head).flops == cost(without).flops


@pytest.mark.parametrize("n", [3, 5, 7, 9])
def test_asymmetric_n_is_a_choice_that_costs_in_proportion(n):
    spans = [s.leaf.kernel for s in sites(inception_v3(n=n), "6b") if s.role == "spatial"]
    assert spans == [(1, n), (n, 1), (n, 1), (1, n), (n, 1), (1, n)]
    weights = [params(sites(inception_v3(n=m, aux=False), "stage6")) for m in (1, n)]
    step = params(sites(inception_v3(n=2 * n - 1, aux=False), "stage6")) - weights[1]
    assert weights[1] - weights[0] == step > 0


def test_the_kind_of_pooling_is_a_choice_that_costs_nothing():
    average, largest = inception_v3(), inception_v3(pool="max")
    pools = [[s.leaf for s in a.sites if isinstance(s.leaf, Pool)] for a in (average, largest)]
    assert [[pool.kind for pool in found if pool.stride == 1] for found in pools] == [["average"] * 9, ["max"] * 9]
    assert cost(average) == cost(largest)


def test_googlenets_modules_are_as_wide_as_the_paper_says():
    made = modules(googlenet())
    assert list(made) == list(MODULES)
    assert [width for _, width, _ in made.values()] == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert [size for _, _, size in made.values()] == [28] * 2 + [14] * 5 + [7] * 2


def test_googlenet_has_auxiliary_heads_on_4a_and_4d():
    stage = googlenet().body.items[2]
    names = ["aux" if isinstance(item, Tap) else item.label for item in stage.items]
    assert names == ["", "4a", "aux", "4b", "4c", "4d", "aux", "4e"]
    assert [item.weight for item in stage.items if isinstance(item, Tap)] == [0.3, 0.3]
    heads = [s for s in googlenet().sites if s.auxiliary]
    pooled = [(s.before.channels, s.after.space) for s in heads if isinstance(s.leaf, Pool)]
    assert pooled == [(512, (4, 4)), (528, (4, 4))]
    assert cost(googlenet()).params == 13_378_280
    assert cost(googlenet()).flops == cost(googlenet(aux=False)).flops


def test_the_window_of_an_auxiliary_head_is_at_most_the_map():
    for small in (googlenet(input=(3, 48, 48)), inception_v3(input=(3, 75, 75))):
        pool = next(s for s in small.sites if s.auxiliary)
        assert pool.leaf.kernel == pool.before.space[0] < 5
