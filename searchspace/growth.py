"""What a stage of a published network can grow into, and what a file says of it.

| option | transform | does nothing |
|---|---|---|
| `width` | `widen` by this factor | 1 |
| `kernel` | square kernels wider than 1 become this one | the network's own |
| `groups` | `regroup` with shuffles, where it divides the widths | 1 |
| `alpha` | `octave` | 0 |
| `factorization` | `factorize`, where kernels are odd and paddings "same" | none |

The options are applied in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from searchspace.architecture import (
    Architecture,
    Axes,
    Chain,
    Conv,
    Depthwise,
    Node,
    Site,
    axes,
    children,
    map_leaves,
)
from searchspace.choices import RULES, Place, Reader, Rule, SpaceError, Value
from searchspace.named import Record, network, read_network
from searchspace.transforms import Where, divisible_by, everywhere, factorize, octave, regroup, widen

POSITIVE = RULES["expansion"]
OPTIONS: dict[str, Rule] = {"width": POSITIVE, **{n: RULES[n] for n in ("kernel", "groups", "alpha", "factorization")}}
NOTHING: dict[str, Value] = {"width": 1, "groups": 1, "alpha": 0, "factorization": "none"}
APART = ("stem", "head")  # stages that `every` leaves alone

Options = dict[str, tuple[Value, ...]]


def read(record: object) -> tuple[Record, Options, dict[str, Options]]:
    """(base, overall values, options by stage) of a file's mapping; raises `SpaceError` with every problem found."""
    reader = Reader()
    top = reader.mapping(record, (), ("name", "purpose", "base", "width", "resolution", "stages", "every"))
    base, problems = read_network(top.get("base"), ("base",))
    reader.problems += problems
    overall = {n: reader.values(top[n], (n,), POSITIVE) if n in top else (1.0,) for n in ("width", "resolution")}
    every = _options(reader, top.get("every"), ("every",))
    labels = _stages(network(base)) if base and not problems else []
    stages: dict[str, Options] = {label: dict(every) for label in labels if label not in APART}
    if labels:
        for label, given in reader.mapping(top.get("stages"), ("stages",), labels).items():
            found = {**stages.get(label, {}), **_options(reader, given, ("stages", label))}
            stages[label] = {name: found[name] for name in OPTIONS if name in found}
    if reader.problems:
        raise SpaceError(reader.problems)
    return base, overall, {label: stages[label] for label in labels if stages.get(label)}


def _options(reader: Reader, record: object, place: Place) -> Options:
    given = reader.mapping(record, place, OPTIONS)
    return {name: reader.values(given[name], (*place, name), OPTIONS[name]) for name in OPTIONS if name in given}


def _stages(architecture: Architecture) -> list[str]:
    """The labelled chains of the body that hold a convolution."""
    return [item.label for item in architecture.body.items if item.label and _convolves(item)]


def _convolves(node: Node) -> bool:
    return isinstance(node, Conv | Depthwise) or any(map(_convolves, children(node)))


# What an option does --------------------------------------------------------------------------------------------


def rekernel(architecture: Architecture, kernel: Axes, where: Where) -> Architecture:
    """Convolutions of a square kernel wider than 1 with another of padding "same": every map keeps its size.

    One number replaces every axis on which the kernel is wider than 1; a number per axis replaces the kernel.
    """
    change: dict[tuple[int, ...], Node] = {}
    for site in architecture.sites:
        if isinstance(site.leaf, Conv | Depthwise) and site.leaf.padding == "same" and where(site):
            own = axes(site.leaf.kernel, len(site.before.space))
            if own[-1] == own[-2] > 1:
                new = (
                    axes(kernel, len(own)) if isinstance(kernel, tuple) else tuple(kernel if k > 1 else 1 for k in own)
                )
                change[site.index] = replace(site.leaf, kernel=new)
    body = map_leaves(architecture.body, change)
    assert isinstance(body, Chain)
    return Architecture(architecture.input, body)


def factorizable(site: Site) -> bool:
    """Whether `factorize` can take its kernel apart: odd, with padding "same"."""
    leaf = site.leaf
    if not isinstance(leaf, Conv | Depthwise) or leaf.padding != "same":
        return False
    return all(k % 2 for k in axes(leaf.kernel, len(site.before.space)))


Step = Callable[[Architecture, Value, Where], Architecture]
STEPS: dict[str, Step] = {
    "width": lambda a, value, where: widen(a, value, where),  # type: ignore[arg-type]
    "kernel": lambda a, value, where: rekernel(a, value, where),  # type: ignore[arg-type]
    "groups": lambda a, value, where: regroup(a, value, True, divisible_by(value) & where),  # type: ignore[arg-type]
    "alpha": lambda a, value, where: octave(a, value, where),  # type: ignore[arg-type]
    "factorization": lambda a, value, where: factorize(a, value, everywhere & factorizable & where),  # type: ignore[arg-type]
}
