"""Rewriting: leaves replaced by any number of nodes, what stands around a site; `drop` and `renorm` are no more."""

from __future__ import annotations

from dataclasses import replace

from searchspace.architecture import (
    Activation,
    Architecture,
    ArchitectureError,
    Chain,
    Leaf,
    Node,
    Norm,
    Site,
    Tap,
    children,
)
from searchspace.transforms.where import Where, everywhere, matching
from searchspace.widths import Index


def drop(architecture: Architecture, where: Where) -> Architecture:
    """Matching leaves taken out; a branch that was one leaf becomes the identity."""
    return spliced(architecture, {site.index: () for site, _ in matching(architecture, where, Leaf)})


def renorm(architecture: Architecture, eps: float, where: Where = everywhere) -> Architecture:
    """Norms with `eps` added to the variance, which originals differ in (1e-5 in most, 1e-3 in Inception and VMZ)."""
    norms = matching(architecture, where, Norm)
    return replaced(architecture, {site.index: replace(norm, eps=eps) for site, norm in norms})


def at(site: Site, problem: str) -> ArchitectureError:
    """`problem` with the place where it is."""
    words = "/".join((*site.path, site.role or type(site.leaf).__name__.lower()))
    return ArchitectureError(f"{problem}. At {words} ({site.name}).")


def neighbours(architecture: Architecture, site: Site) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """What stands before and after the site in its chain; nothing where it is a branch itself."""
    node: Node = architecture.body
    for i in site.index[:-1]:
        node = children(node)[i]
    position = site.index[-1]
    return (node.items[:position], node.items[position + 1 :]) if isinstance(node, Chain) else ((), ())


def tail_of(architecture: Architecture, site: Site) -> tuple[tuple[Node, ...], Node | None]:
    """The norm and the activation that follow the site, as far as they do, and what comes next."""
    _, following = neighbours(architecture, site)
    length = 0
    for kind in (Norm, Activation):
        if length < len(following) and isinstance(following[length], kind):
            length += 1
    return following[:length], following[length] if length < len(following) else None


def beyond(index: Index, steps: int) -> Index:
    """The index `steps` further in the same chain."""
    return (*index[:-1], index[-1] + steps)


def replaced(architecture: Architecture, change: dict[Index, Leaf]) -> Architecture:
    """`architecture` with the leaves at the given index paths replaced by others."""
    return spliced(architecture, {index: (leaf,) for index, leaf in change.items()})


def spliced(architecture: Architecture, change: dict[Index, tuple[Node, ...]]) -> Architecture:
    """`architecture` with the leaves at the given index paths replaced by any number of nodes."""
    body = Chain(_splice(architecture.body, change, ()), label=architecture.body.label)
    return Architecture(architecture.input, body)


def _splice(node: Node, change: dict[Index, tuple[Node, ...]], index: Index) -> tuple[Node, ...]:
    """What stands for `node`, or for the items of it where it is the chain at `index`."""
    if not isinstance(node, Chain):
        return change.get(index, (_joined(node, change, index),))
    items: list[Node] = []
    for i, item in enumerate(node.items):
        if isinstance(item, Chain):
            items.append(replace(item, items=_splice(item, change, (*index, i))))
        else:
            items += _splice(item, change, (*index, i))
    return tuple(items)


def _joined(node: Node, change: dict[Index, tuple[Node, ...]], index: Index) -> Node:
    """A leaf or a join with its branches rewritten; a branch that becomes several nodes becomes a chain of them."""
    branches: list[Node] = []
    for i, branch in enumerate(children(node)):
        new = _splice(branch, change, (*index, i))
        if isinstance(branch, Chain):
            branches.append(replace(branch, items=new))
        else:
            branches.append(new[0] if len(new) == 1 else Chain(new))
    if not branches:
        return node
    return replace(node, head=branches[0]) if isinstance(node, Tap) else replace(node, branches=tuple(branches))  # type: ignore[call-arg]
