"""The architecture language: one convolutional network as frozen data, every width explicit.

Leaves (`searchspace.leaves`) are joined by `Chain`, `Add` and `Concat`; `Tap` hangs an auxiliary head on a chain.
Nothing here imports torch; `network.build` turns a value into a module.
Illegal architectures cannot be constructed: `ArchitectureError` says the rule, the values and the place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    "Depthwise",
    "Dropout",
    "Flatten",
    "Leaf",
    "Linear",
    "LocalNorm",
    "Node",
    "Norm",
    "Pool",
    "Select",
    "Shape",
    "Shuffle",
    "Site",
    "SqueezeExcite",
    "Tap",
    "after",
    "assembled",
    "axes",
    "children",
    "halved",
    "map_leaves",
    "shape_after",
    "windows",
]


def _nodes(node: Node, name: str) -> None:
    value = getattr(node, name)
    if not isinstance(value, list | tuple):
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
    if isinstance(node, Add | Concat):
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
                result = after(node, shape)
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


def shape_after(node: Node, shape: Shape) -> Shape:
    """The shape that `node` makes of `shape`; raises `ArchitectureError` where it breaks a rule."""
    try:
        return _shape(node, shape, True, {})
    except ArchitectureError:
        return _Walk()(node, shape, (), (), True, False)  # says the place


@lru_cache(maxsize=1 << 16)
def after(leaf: Leaf, shape: Shape) -> Shape:
    """`leaf.after(shape)`, remembered."""
    return leaf.after(shape)


def _shape(node: Node, shape: Shape, bare: bool, known: dict[tuple[int, Shape, bool], Shape]) -> Shape:
    """What `_Walk` returns, without places or sites; a node that stands several times is walked once."""
    if isinstance(node, Leaf):
        return after(node, shape)
    key = (id(node), shape, bare)
    if key in known:
        return known[key]
    if isinstance(node, Chain):
        result = shape
        for item in node.items:
            result = _shape(item, result, bare, known)
    elif isinstance(node, Tap):
        if not bare:
            raise ArchitectureError("A Tap may stand only in chains.")
        _shape(node.head, shape, False, known)
        result = shape
    else:
        shapes = [_shape(branch, shape, False, known) for branch in children(node)]
        result = shapes[0]
        if isinstance(node, Add):
            if any(s != result for s in shapes):
                raise ArchitectureError("All branches of Add must end in one shape.")
        elif any(s.space != result.space for s in shapes):
            raise ArchitectureError("All branches of Concat must end in one space.")
        else:
            result = Shape(sum(s.channels for s in shapes), result.space, sum(s.low for s in shapes))
    known[key] = result
    return result


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
    output: Shape = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = tuple(self.input) if isinstance(self.input, list | tuple) else (self.input,)
        object.__setattr__(self, "input", size)
        if len(size) not in (3, 4) or any(type(v) is not int or v < 1 for v in size):
            raise ArchitectureError(
                f"`input` must be (channels, height, width) or (channels, frames, height, width), but got {size}."
            )
        if not isinstance(self.body, Chain):
            raise ArchitectureError(f"`body` must be a Chain, but got {type(self.body).__name__}.")
        object.__setattr__(self, "output", shape_after(self.body, Shape(size[0], size[1:])))

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


def assembled(input: tuple[int, ...], parts: Iterable[Node], output: Shape) -> Architecture:
    """The architecture of `parts` in a chain, each walked already by who gives them, the last to `output`."""
    architecture = object.__new__(Architecture)
    for name, value in (("input", input), ("body", Chain(tuple(parts))), ("output", output)):
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
