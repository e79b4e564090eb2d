"""What the options of blocks may be, checked once, where a block is called.

`factorization`, `separation` and `alpha` are checked by the pieces that read them; `activation` and `bias` by leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import ParamSpec

from searchspace.architecture import Chain
from searchspace.fields import choice, integer, integers, multiplier, share, switch
from searchspace.leaves import POOLS

P = ParamSpec("P")

REDUCTIONS = ("parallel", "conv_pool", "pool_conv")
STRIDES_IN = ("spatial", "reduce")

RULES: dict[str, Callable[..., object]] = {
    "out": integer,
    "stride": integers,
    "kernel": integers,
    "dilation": integers,
    "groups": integer,
    "shuffle": switch,
    "expansion": multiplier,
    "squeeze": multiplier,
    "squeeze_excite": share,
    "pool": partial(choice, allowed=POOLS),
    "shortcut": switch,
    "stride_in": partial(choice, allowed=STRIDES_IN),
    "reduction": partial(choice, allowed=REDUCTIONS),
    "layers": integer,
}


def checked(block: Callable[P, Chain]) -> Callable[P, Chain]:
    """The block, refusing options that break their rule, also where it would not read them."""

    @wraps(block)
    def call(*into: P.args, **options: P.kwargs) -> Chain:
        for name, value in options.items():
            if name in RULES:
                RULES[name](name, value)
        return block(*into, **options)

    return call
