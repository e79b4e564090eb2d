"""What the options of blocks may be, checked once, where a block is called.

`factorization`, `separation`, `alpha` and `activation` are checked by the pieces that read them.
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
    "bias": switch,
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
    """The block, refusing options that break their rule, also where it would not read them; one spelling of each."""

    @wraps(block)
    def call(*into: P.args, **options: P.kwargs) -> Chain:
        values = {name: RULES[name](name, v) if name in RULES else v for name, v in options.items()}
        return block(*into, **values)  # type: ignore[arg-type]

    return call
