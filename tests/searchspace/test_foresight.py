"""What is foreseen of our own blocks is what building them shows."""

import inspect
from random import Random

import pytest

from searchspace.architecture import ArchitectureError, Chain, Shape, shape_after
from searchspace.blocks import BLOCKS
from searchspace.foresight import low_after, numbers, refuses

VALUES = {
    "stride": [1, 2], "kernel": [1, 3, 5, (1, 3)], "groups": [1, 2, 4], "alpha": [0.0, 0.1, 0.125, 0.25, 0.5],
    "expansion": [1, 1.1, 2, 2.1, 4, 6], "squeeze": [0.125, 0.13, 0.25, 0.5, 0.75], "layers": [1, 2, 4],
    "separation": ["none", "reduced", "preserved"], "factorization": ["none", "stacked", "asymmetric"],
    "reduction": ["parallel", "conv_pool", "pool_conv"], "shortcut": [True, False], "squeeze_excite": [0.0, 0.25],
    "shuffle": [False, True],
}  # fmt: skip
RATIOS = ("alpha", "expansion", "squeeze")


def drawn(block: str, rng: Random) -> tuple[dict[str, object], int]:
    """All options of a block, with a depth, and a width."""
    defaults = {
        name: p.default
        for name, p in inspect.signature(BLOCKS[block]).parameters.items()
        if p.kind is p.KEYWORD_ONLY and name != "out"
    }
    known = {name: rng.choice(VALUES.get(name, [value])) for name, value in defaults.items()}
    return {**known, "depth": rng.choice([1, 1, 2, 3])}, rng.choice([8, 12, 16, 20, 24, 32, 48])


def stage(block: str, known: dict[str, object], into: Shape, width: int) -> tuple[Chain, Shape]:
    options = {name: value for name, value in known.items() if name != "depth"}
    items = []
    for _ in range(int(str(known["depth"]))):
        items.append(BLOCKS[block](into, out=width, **options))
        into = shape_after(items[-1], into)
        options["stride"] = 1
    return Chain(tuple(items)), into


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_foreseen_is_what_building_shows(block: str) -> None:
    rng, seen = Random(block), {"refused": 0, "built": 0, "low": 0, "alike": 0, "differ": 0}
    while min(seen["built"], seen["refused"] + seen["built"] - 300) < 300:
        known, width = drawn(block, rng)
        channels = rng.choice([8, 10, 12, 16, 24, 32])
        into = Shape(channels, (9, 8), rng.choice([0, 0, 2, 4, 6]))
        refused = [refuses(block, known, channels, low, width) for low in (into.low, None)]
        assert refused[0] or not refused[1]  # who knows less foresees less
        try:
            made, after = stage(block, known, into, width)
        except ArchitectureError:
            seen["refused"] += refused[0]
            continue
        assert not refused[0], (known, into, width)
        seen["built"] += 1
        low = low_after(block, known, channels, into.low, width)
        assert low in (None, after.low), (known, into, width)
        seen["low"] += bool(low)
        ratio = rng.choice([name for name in RATIOS if name in known])
        other = {**known, ratio: rng.choice(VALUES[ratio])}
        try:
            same = stage(block, other, into, width)[0] == made
        except ArchitectureError:
            continue
        alike = [*numbers(block, other, channels, width)] == [*numbers(block, known, channels, width)]
        assert alike == same, (known, ratio, other[ratio], into, width)
        seen["alike" if alike else "differ"] += other[ratio] != known[ratio]
    assert seen["differ"] > 20
    assert seen["alike"] > 5
    assert seen["low"] > 20 or block == "inception_c"
    assert seen["refused"] > 20 or block in ("bottleneck", "fire")
