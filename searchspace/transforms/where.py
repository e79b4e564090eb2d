"""Where a transform applies: predicates over sites, and how they combine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from searchspace.architecture import Conv, Leaf, Site

Where = Callable[[Site], bool]


@dataclass(frozen=True, slots=True)
class Predicate:
    """A test of a site; `&`, `|` and `~` make others of it."""

    test: Where

    def __call__(self, site: Site) -> bool:
        return self.test(site)

    def __and__(self, other: Where) -> Predicate:
        return Predicate(lambda site: self(site) and other(site))

    def __or__(self, other: Where) -> Predicate:
        return Predicate(lambda site: self(site) or other(site))

    def __invert__(self) -> Predicate:
        return Predicate(lambda site: not self(site))


everywhere = Predicate(lambda site: True)


def under(*labels: str) -> Predicate:
    """Sites inside a join with one of these labels: a stage, a block."""
    return Predicate(lambda site: not set(labels).isdisjoint(site.path))


def role(*labels: str) -> Predicate:
    """Sites whose own label is one of these: "spatial", "reduce", "projection", ..."""
    return Predicate(lambda site: site.role in labels)


def leaf(*kinds: type[Leaf]) -> Predicate:
    """Sites of these leaves: `Pool`, `Norm`, ..."""
    return Predicate(lambda site: isinstance(site.leaf, kinds))


def divisible_by(groups: int) -> Predicate:
    """Convolutions that can have this many groups: it divides what they read and make, in each frequency."""
    return Predicate(lambda site: isinstance(site.leaf, Conv) and not indivisible(site, groups))


def indivisible(site: Site, groups: int) -> dict[str, int]:
    """The widths of a convolution that `groups` does not divide, by name."""
    widths = {"in": site.before.high, "low in": site.before.low, "out": site.after.high, "low out": site.after.low}
    whole = type(groups) is int and groups >= 1
    return {name: width for name, width in widths.items() if not whole or width % groups}
