"""The architecture language: one convolutional network as frozen data, every width explicit.

Leaves (`searchspace.leaves`) are joined by `Chain`, `Add` and `Concat`; `Tap` hangs an auxiliary head on a chain.
Nothing here imports torch; `network.build` turns a value into a module.
Illegal architectures cannot be constructed: `ArchitectureError` says the rule, the values and the place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache

from searchspace.leaves import (
    Activation,
    AdaptivePool,
    ArchitectureError,
    Axes,
    Conv,
    Depthwise,
    Dropout,
    Flatten,
    Leaf,
    Linear,
    LocalNorm,
    Node,
    Norm,
    Pool,
    Select,
    Shape,
    Shuffle,
    SqueezeExcite,
    axes,
    between,
    halved,
    windows,
)

__all__ = [
    "Activation",
    "AdaptivePool",
    "Add",
    "Architecture",
    "ArchitectureError",
    "Axes",
    "Chain",
    "Concat",
    "Conv",
    "Course",
    "Depthwise",
    "Dropout",
    "Flatten",
    "Leaf",
    "Linear",
    "LocalNorm",
    "Node",
    "Norm",
    "Placed",
    "Pool",
    "Select",
    "Shape",
    "Shuffle",
    "Site",
    "SqueezeExcite",
    "Tap",
    "assembled",
    "axes",
    "chained",
    "children",
    "course",
    "halved",
    "map_leaves",
    "placed",
    "shape_after",
    "windows",
]


def _nodes(node: Node, name: str) -> None:
    value = getattr(node, name)
    if not isinstance(value, tuple):
        if not isinstance(value, list):
            raise ArchitectureError(f"`{name}` of {type(node).__name__} must be a tuple of nodes, but got {value!r}.")
        object.__setattr__(node, name, tuple(value))
    for item in value:
        if not isinstance(item, Node):
            raise ArchitectureError(f"`{name}` of {type(node).__name__} must hold leaves and joins, but got {item!r}.")


@dataclass(frozen=True, slots=True)
class Chain(Node):
    """One after the other; an empty chain is the identity."""

    items: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        _nodes(self, "items")


@dataclass(frozen=True, slots=True)
class Add(Node):
    """The sum of branches that all read the same input and end in equal shapes."""

    branches: tuple[Node, ...]

    def __post_init__(self) -> None:
        _nodes(self, "branches")
        if len(self.branches) < 2:
            raise ArchitectureError(f"Add needs at least two branches, but got {len(self.branches)}.")


@dataclass(frozen=True, slots=True)
class Concat(Node):
    """The channels of branches that all read the same input, side by side; each frequency by itself."""

    branches: tuple[Node, ...]

    def __post_init__(self) -> None:
        _nodes(self, "branches")
        if not self.branches:
            raise ArchitectureError("Concat needs at least one branch.")


JOINS = (Add, Concat)  # a union is made anew wherever it is written


@dataclass(frozen=True, slots=True)
class Tap(Node):
    """An auxiliary head on a chain: run in training only, its loss weighted by `weight` (arXiv 1409.4842)."""

    head: Node
    weight: float = 0.3

    def __post_init__(self) -> None:
        if not isinstance(self.head, Node):
            raise ArchitectureError(f"`head` of Tap must be a leaf or a join, but got {self.head!r}.")
        between(self, "weight", 0.0, 10.0)


@dataclass(frozen=True, slots=True)
class Site:
    """A leaf where it stands: `index` names its module (`body.` + dots), `path` its labels, outermost first."""

    index: tuple[int, ...]
    path: tuple[str, ...]
    leaf: Leaf
    before: Shape
    after: Shape
    auxiliary: bool

    @property
    def name(self) -> str:
        return ".".join(("body", *map(str, self.index)))

    @property
    def role(self) -> str:
        return self.leaf.label


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below `node`, in order; none below a leaf."""
    if isinstance(node, Chain):
        return node.items
    if isinstance(node, JOINS):
        return node.branches
    return (node.head,) if isinstance(node, Tap) else ()


class _Walk:
    """Gives every leaf its shapes, in order of execution, and checks the joins."""

    def __init__(self) -> None:
        self.sites: list[Site] = []

    def __call__(
        self, node: Node, shape: Shape, index: tuple[int, ...], path: tuple[str, ...], bare: bool, auxiliary: bool
    ) -> Shape:
        if isinstance(node, Leaf):
            try:
                result = placed(node, shape).after
            except ArchitectureError as error:
                raise _at(error, node, index, path) from None
            self.sites.append(Site(index, path, node, shape, result, auxiliary))
            return result
        path = (*path, node.label) if node.label else path
        if isinstance(node, Chain):
            for i, item in enumerate(node.items):
                shape = self(item, shape, (*index, i), path, bare, auxiliary)
            return shape
        if isinstance(node, Tap):
            if not bare or auxiliary:
                raise _at(
                    ArchitectureError("A Tap may stand only in chains, never inside Add, Concat or a Tap."),
                    node,
                    index,
                    path,
                )
            self(node.head, shape, (*index, 0), path, False, True)
            return shape
        shapes = [self(b, shape, (*index, i), path, False, auxiliary) for i, b in enumerate(children(node))]
        first = shapes[0]
        if isinstance(node, Add):
            if any(s != first for s in shapes):
                got = ", ".join(map(str, shapes))
                raise _at(
                    ArchitectureError(f"All branches of Add must end in one shape, but got {got}."), node, index, path
                )
            return first
        if any(s.space != first.space for s in shapes):
            got = ", ".join(map(str, shapes))
            raise _at(
                ArchitectureError(f"All branches of Concat must end in one space, but got {got}."), node, index, path
            )
        return Shape(sum(s.channels for s in shapes), first.space, sum(s.low for s in shapes))


class Placed:
    """A leaf on the map it reads, and the map it makes; one value for equal ones. `counts`: kept there by `cost`."""

    __slots__ = ("after", "before", "counts", "leaf")

    def __init__(self, leaf: Leaf, before: Shape) -> None:
        after = leaf.after(before)
        self.leaf, self.before, self.after = leaf, before, before if after is before else _on(after).shape
        self.counts: tuple[int, ...] | None = None


class _Map(dict[Leaf, Placed]):
    """The leaves that were placed on a map of `shape`."""

    __slots__ = ("shape",)

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def __missing__(self, leaf: Leaf) -> Placed:
        one = self[leaf] = Placed(leaf, self.shape)
        return one


_on = lru_cache(maxsize=1 << 14)(_Map)  # keys of shapes, not of leaves on shapes: fewer objects to collect


def placed(leaf: Leaf, shape: Shape) -> Placed:
    """`leaf` on a map of `shape`, remembered; raises `ArchitectureError` where it breaks a rule."""
    return _on(shape)[leaf]


@dataclass(frozen=True, slots=True)
class Course:
    """A node on a map: the shape it makes, its leaves in order of execution, and those of auxiliary heads."""

    node: Node
    after: Shape
    leaves: tuple[Placed, ...]
    auxiliary: tuple[Placed, ...] = ()


def shape_after(node: Node, shape: Shape) -> Shape:
    """The shape that `node` makes of `shape`; raises `ArchitectureError` where it breaks a rule."""
    return course(node, shape).after


def course(node: Node, shape: Shape) -> Course:
    """`node` followed on a map of `shape`; raises `ArchitectureError` where it breaks a rule."""
    leaves: list[Placed] = []
    auxiliary: list[Placed] = []
    try:
        after = _follow(node, shape, leaves, auxiliary)
    except ArchitectureError:
        _Walk()(node, shape, (), (), True, False)  # says the place
        raise
    return Course(node, after, tuple(leaves), tuple(auxiliary))


def chained(parts: Sequence[Course], after: Shape, label: str = "") -> Course:
    """The parts one after the other, each followed already from where the one before it ends, the last to `after`."""
    return Course(
        Chain(tuple([part.node for part in parts]), label=label),
        after,
        tuple([leaf for part in parts for leaf in part.leaves]),
        tuple([leaf for part in parts for leaf in part.auxiliary]),
    )


def _follow(node: Node, shape: Shape, leaves: list[Placed], auxiliary: list[Placed] | None) -> Shape:
    """What `_Walk` returns, without places, into `leaves`; `auxiliary` is None where no Tap may stand."""
    if isinstance(node, Leaf):
        one = _on(shape)[node]
        leaves.append(one)
        return one.after
    if isinstance(node, Chain):
        here = _on(shape)
        for item in node.items:
            if isinstance(item, Leaf):  # as above, without a call
                leaves.append(one := here[item])
                after = one.after
            else:
                after = _follow(item, shape, leaves, auxiliary)
            if after is not shape:
                shape, here = after, _on(after)
        return shape
    if isinstance(node, Tap):
        if auxiliary is None:
            raise ArchitectureError("A Tap may stand only in chains.")
        _follow(node.head, shape, auxiliary, None)
        return shape
    shapes = [_follow(branch, shape, leaves, None) for branch in children(node)]
    first = shapes[0]
    if isinstance(node, Add):
        if any(s != first for s in shapes):
            raise ArchitectureError("All branches of Add must end in one shape.")
        return first
    if any(s.space != first.space for s in shapes):
        raise ArchitectureError("All branches of Concat must end in one space.")
    return Shape(sum([s.channels for s in shapes]), first.space, sum([s.low for s in shapes]))


def _at(error: ArchitectureError, node: Node, index: tuple[int, ...], path: tuple[str, ...]) -> ArchitectureError:
    words = "/".join((*path, node.label or type(node).__name__.lower()))
    return ArchitectureError(f"{error} At {words} (body.{'.'.join(map(str, index))}).")


@dataclass(frozen=True)
class Architecture:
    """One network: `input` is (channels, *space) with 2 or 3 axes in space; `body` is what it does.

    Equal means equal `digest`: labels take no part. Raises `ArchitectureError` where a rule is broken.
    """

    input: tuple[int, ...]
    body: Chain
    course: Course = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = tuple(self.input) if isinstance(self.input, list | tuple) else (self.input,)
        object.__setattr__(self, "input", size)
        if len(size) not in (3, 4) or any(type(v) is not int or v < 1 for v in size):
            raise ArchitectureError(
                f"`input` must be (channels, height, width) or (channels, frames, height, width), but got {size}."
            )
        if not isinstance(self.body, Chain):
            raise ArchitectureError(f"`body` must be a Chain, but got {type(self.body).__name__}.")
        object.__setattr__(self, "course", course(self.body, Shape(size[0], size[1:])))

    def __reduce__(self) -> tuple[type[Architecture], tuple[tuple[int, ...], Chain]]:
        return Architecture, (self.input, self.body)  # what follows from them is not copied

    @property
    def output(self) -> Shape:
        return self.course.after

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every leaf where it stands, in order of execution."""
        walk = _Walk()
        walk(self.body, Shape(self.input[0], self.input[1:]), (), (), True, False)
        return tuple(walk.sites)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that name this network; labels and spelling do not change it."""
        from searchspace.notation import digest

        return digest(self)

    def __str__(self) -> str:
        from searchspace.notation import words

        return words(self)


def assembled(input: tuple[int, ...], parts: Sequence[Course]) -> Architecture:
    """The architecture of `parts` in a chain, each followed already from where the one before it ends."""
    architecture = object.__new__(Architecture)
    whole = chained(parts, parts[-1].after)
    for name, value in (("input", input), ("body", whole.node), ("course", whole)):
        object.__setattr__(architecture, name, value)
    return architecture


def map_leaves(node: Node, change: dict[tuple[int, ...], Node], index: tuple[int, ...] = ()) -> Node:
    """`node` with the leaves at the given index paths replaced; what has no change below it is kept as it is."""
    if index in change:
        return change[index]
    below = children(node)
    new = tuple(map_leaves(child, change, (*index, i)) for i, child in enumerate(below))
    if all(a is b for a, b in zip(below, new, strict=True)):
        return node
    if isinstance(node, Chain):
        return replace(node, items=new)
    if isinstance(node, Tap):
        return replace(node, head=new[0])
    assert isinstance(node, Add | Concat)
    return replace(node, branches=new)


def leaf_fields(node: Node) -> Iterator[tuple[str, object, object]]:
    """(name, value, default) of each field that says something about the network."""
    for f in fields(node):
        if f.name != "label":
            yield f.name, getattr(node, f.name), f.default
