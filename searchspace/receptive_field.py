"""The receptive field: which input elements reach one element of a map, exactly, axis by axis.

Along an axis, an element reaches a stretch of the input. Neighbours reach stretches that are shifted alike, except
where an octave map's low part was upsampled: there two neighbours share one, so stretches repeat with a period.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd, lcm

from searchspace import architecture as language
from searchspace.architecture import Architecture, Leaf, Node, Site, children, windows


@dataclass(frozen=True, slots=True)
class _Reach:
    """Along one axis, position `q` reaches input elements `first[q % p] + q // p * advance` to `last[...] + ...`.

    `p = len(first)` is the period. Borders are left aside: the input is taken as endless.
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    advance: int

    def at(self, position: int) -> tuple[int, int]:
        times, phase = divmod(position, len(self.first))
        return self.first[phase] + times * self.advance, self.last[phase] + times * self.advance

    def window(self, start: int, size: int, stride: int = 1) -> _Reach:
        """Of a map whose position `q` reads `size` positions of this one, from `start + stride * q` on."""
        period = len(self.first) // gcd(len(self.first), stride)
        return _Reach(
            tuple(self.at(start + stride * q)[0] for q in range(period)),
            tuple(self.at(start + stride * q + size - 1)[1] for q in range(period)),
            self.advance * stride * period // len(self.first),
        )

    def doubled(self) -> _Reach:
        """Of this map upsampled: every position twice."""
        twice = range(2 * len(self.first))
        return _Reach(tuple(self.first[q // 2] for q in twice), tuple(self.last[q // 2] for q in twice), self.advance)

    def joined(self, other: _Reach) -> _Reach:
        """Of a map whose positions read the same position of either."""
        period = lcm(len(self.first), len(other.first))
        both = [(self.at(q), other.at(q)) for q in range(period)]
        advance = max(r.advance * period // len(r.first) for r in (self, other))
        return _Reach(
            tuple(min(a[0], b[0]) for a, b in both), tuple(max(a[1], b[1]) for a, b in both), advance
        )  # fmt: skip

    @property
    def widest(self) -> int:
        return max(last - first + 1 for first, last in zip(self.first, self.last, strict=True))


_Reaches = tuple[_Reach, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    """What the high and the low elements of a map reach, per axis; None where a frequency is not there.

    `ended` once a layer that reads the whole map has read it.
    """

    high: _Reaches | None
    low: _Reaches | None
    ended: bool = False


def receptive_field(architecture: Architecture) -> tuple[int, ...]:
    """Input elements per axis that one element of the last map before a global pooling spans, at most.

    The elements of both frequencies count; what lies between two branches' reaches counts as spanned.
    """
    start = tuple(_Reach((0,), (0,), 1) for _ in architecture.input[1:])
    field = _after(architecture.body, _Field(start, None), iter(architecture.sites))
    sides = [side for side in (field.high, field.low) if side is not None]
    return tuple(max(reach.widest for reach in axis) for axis in zip(*sides, strict=True))


def _after(node: Node, field: _Field, sites: Iterator[Site]) -> _Field:
    """The field after `node`, whose leaves are the next of `sites`."""
    if isinstance(node, Leaf):
        site = next(sites)
        if field.ended:
            return field
        if isinstance(node, language.AdaptivePool | language.Flatten | language.Linear):
            return replace(field, ended=True)
        if isinstance(node, language.Select):
            high, low = site.after.high, site.after.low
            return replace(field, high=field.high if high else None, low=field.low if low else None)
        if isinstance(node, language.Conv | language.Depthwise | language.Pool):
            return _slid(node, field, site.after.high > 0, site.after.low > 0)
        return field
    if isinstance(node, language.Chain):
        for item in node.items:
            field = _after(item, field, sites)
        return field
    ends = [_after(branch, field, sites) for branch in children(node)]
    if isinstance(node, language.Tap):
        return field
    result = ends[0]
    for end in ends[1:]:
        result = _Field(_joined(result.high, end.high), _joined(result.low, end.low), result.ended or end.ended)
    return result


def _joined(a: _Reaches | None, b: _Reaches | None) -> _Reaches | None:
    if a is None or b is None:
        return a or b
    return tuple(x.joined(y) for x, y in zip(a, b, strict=True))


@lru_cache(maxsize=1 << 16)
def _slid(
    node: language.Conv | language.Depthwise | language.Pool, field: _Field, to_high: bool, to_low: bool
) -> _Field:
    sides = [side for side in (field.high, field.low) if side is not None]
    n = len(sides[0])
    kernel, stride, padding, dilation = windows(node, n)
    sizes = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]

    def slid(reaches: _Reaches | None, strides: tuple[int, ...] = (1,) * n) -> _Reaches | None:
        if reaches is None:
            return None
        return tuple(r.window(-p, k, s) for r, p, k, s in zip(reaches, padding, sizes, strides, strict=True))

    def pooled(reaches: _Reaches | None, by: tuple[int, ...]) -> _Reaches | None:
        return None if reaches is None else tuple(r.window(0, s, s) for r, s in zip(reaches, by, strict=True))

    if isinstance(node, language.Pool) or not (field.low or to_low):
        return _Field(slid(field.high, stride), slid(field.low, stride))
    time = stride[: n - 2]  # an octave convolution strides by pooling first
    high, low = pooled(field.high, stride), pooled(field.low, stride)
    if isinstance(node, language.Depthwise):
        return _Field(slid(high), slid(low))
    down = slid(pooled(high, (*(1 for _ in time), 2, 2)))
    up = slid(pooled(field.low, (*time, 1, 1)))
    if up is not None and stride[-1] == 1:
        up = (*up[: n - 2], *(reach.doubled() for reach in up[n - 2 :]))
    return _Field(_joined(slid(high), up) if to_high else None, _joined(slid(low), down) if to_low else None)
