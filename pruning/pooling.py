"""Operations over space, channel by channel: pooling, padding, upsampling, means."""

from __future__ import annotations

from typing import Any

from pruning.cells import varying
from pruning.run import Run

REDUCES = frozenset(("mean", "amax", "amin", "sum"))
POOLS = frozenset(
    name.format(d)
    for d in (2, 3)
    for name in (
        *("max_pool{}d_with_indices", "_adaptive_avg_pool{}d", "adaptive_max_pool{}d", "avg_pool{}d"),
        *("upsample_nearest{}d", "reflection_pad{}d", "replication_pad{}d"),
    )
) | {"upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "constant_pad_nd"}


def reduce(run: Run, func: Any, args: Any, kwargs: Any) -> Any:
    x = args[0]
    if run.named(x) or len(args) < 2 or not args[1]:
        return None
    cells = run.read(x)
    axes = sorted({int(a) % x.dim() for a in args[1]}, reverse=True)
    if any(a in axes for a in varying(cells)):
        return None
    out, small = func(*args, **kwargs), cells
    for a in axes:
        small = small.narrow(a, 0, 1) if out.dim() == x.dim() else small.select(a, 0)
    run.pass_on(out, small, constant=run.place.operation != "sum", border=0.0, how=repr(args[1:]))
    return out


def pool(run: Run, func: Any, args: Any, kwargs: Any) -> Any:
    x, name = args[0], run.place.operation
    cells = run.read(x)
    border, constant = 0.0, True
    axes = 3 if "3d" in name else 2
    if name == "constant_pad_nd":
        constant, border, axes = False, float(args[2]) if len(args) > 2 else 0.0, len(args[1]) // 2
    if name.startswith("avg_pool"):
        padded = len(args) > 3 and any(args[3]) and (len(args) < 6 or args[5])
        constant = not padded and (len(args) < 7 or args[6] is None)
    if any(a >= x.dim() - axes for a in varying(cells)):
        return None
    out = func(*args, **kwargs)
    small = cells
    for a in range(x.dim() - axes, x.dim()):
        small = small.narrow(a, 0, 1)
    first = out[0] if isinstance(out, tuple) else out
    run.pass_on(first, small, constant=constant, border=border, how=repr(args[1:]))
    return out
