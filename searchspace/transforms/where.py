"""Where a transform applies: predicates over sites, and how they combine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from searchspace.architecture import Architecture, Conv, Depthwise, Leaf, Pool, Site
from searchspace.fields import integer, refusal

Where = Callable[[Site], bool]
Sliding = Conv | Depthwise | Pool
Kind = TypeVar("Kind", bound=Leaf)

SLIDING: tuple[type[Sliding], ...] = (Conv, Depthwise, Pool)


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


def matching(architecture: Architecture, where: Where, *kinds: type[Kind]) -> list[tuple[Site, Kind]]:
    """The sites of these leaves that `where` takes in, each with its leaf."""
    if not callable(where):
        raise refusal("where", "a predicate over sites, as `role` or `under` make one", where)
    return [(site, site.leaf) for site in architecture.sites if isinstance(site.leaf, kinds) and where(site)]


def divisible_by(groups: int) -> Predicate:
    """Convolutions that can have this many groups: it divides what they read and make, in each frequency."""
    integer("groups", groups)
    return Predicate(lambda site: isinstance(site.leaf, Conv) and not indivisible(site, groups))


def indivisible(site: Site, groups: int) -> dict[str, int]:
    """The widths of a convolution that `groups` does not divide, by name."""
    widths = {"in": site.before.high, "low in": site.before.low, "out": site.after.high, "low out": site.after.low}
    return {name: width for name, width in widths.items() if width % groups}
