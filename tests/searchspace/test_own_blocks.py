"""Blocks of the user's own: their defaults count, their refusals are unbuildable codes, their errors are told."""

from __future__ import annotations

from random import Random

import pytest

from searchspace.architecture import Chain, Conv, Shape, Shuffle
from searchspace.choices import SpaceError
from searchspace.space import Space


def shuffled(into: Shape, *, out: int, groups: int = 2, shuffle: bool = False) -> Chain:
    """Grouped by itself, so a shuffle means something without a word about groups."""
    return Chain((Conv(out, 1, groups=groups), *((Shuffle(groups),) if shuffle else ())))


def wide_only(into: Shape, *, out: int) -> Chain:
    if out < 8:
        raise ValueError("too narrow")
    return Chain((Conv(out),))


def broken(into: Shape, *, out: int) -> Chain:
    raise KeyError("mine")


def nothing(into: Shape, *, out: int) -> Chain:
    return None  # type: ignore[return-value]


def space(block: str, function: object, **options: object) -> Space:
    stage = {"block": block, "width": [4, 8], **options}
    return Space({"stages": [stage]}, input=(2, 6, 6), classes=2, blocks={block: function})  # type: ignore[dict-item]


def test_an_option_the_stage_leaves_open_is_at_the_blocks_default() -> None:
    mine = space("shuffled", shuffled, shuffle=[False, True])
    members = list(mine.members())
    assert len({m.architecture.digest for m in members}) == len(members) == 4
    assert all(mine.encode(m.architecture) == m.code for m in members)


def test_a_value_error_of_a_block_makes_a_code_unbuildable() -> None:
    mine = space("wide_only", wide_only)
    assert [m.code["stage1.width"] for m in mine.members()] == [8]
    assert mine.sample(Random(0)).code == {"stage1.width": 8}


@pytest.mark.parametrize(("function", "message"), [(broken, "got KeyError: 'mine'"), (nothing, "got None")])
def test_what_a_block_must_not_do_is_told_with_its_name(function: object, message: str) -> None:
    with pytest.raises(SpaceError, match=rf"stages.*must return a fragment from block 'mine' \({message}"):
        space("mine", function).sample(Random(0))
