"""How an architecture is written down: JSON (with labels), the digest (without), and words for people."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING
from functools import lru_cache
from typing import cast

from searchspace import architecture as language
from searchspace.architecture import Architecture, ArchitectureError, Chain, Leaf, Node, Tap, children, leaf_fields

FORMAT = "architecture/1"

KINDS: dict[str, type[Node]] = {
    "conv": language.Conv,
    "depthwise": language.Depthwise,
    "norm": language.Norm,
    "local_norm": language.LocalNorm,
    "activation": language.Activation,
    "dropout": language.Dropout,
    "pool": language.Pool,
    "adaptive_pool": language.AdaptivePool,
    "flatten": language.Flatten,
    "linear": language.Linear,
    "shuffle": language.Shuffle,
    "squeeze_excite": language.SqueezeExcite,
    "select": language.Select,
    "chain": language.Chain,
    "add": language.Add,
    "concat": language.Concat,
    "tap": language.Tap,
}
NAMES = {kind: name for name, kind in KINDS.items()}
BELOW = {"items", "branches", "head"}


def to_json(architecture: Architecture) -> dict[str, object]:
    """The architecture as plain data, `node` naming each leaf or join; fields at their defaults are left out."""
    return {"format": FORMAT, "input": list(architecture.input), "body": _node_to_json(architecture.body, True)}


def _node_to_json(node: Node, labels: bool) -> dict[str, object]:
    record: dict[str, object] = {"node": NAMES[type(node)]}
    if labels and node.label:
        record["label"] = node.label
    for name, value, default in leaf_fields(node):
        if name in BELOW:
            below = [_node_to_json(child, labels) for child in children(node)]
            record[name] = below[0] if name == "head" else below
        elif default is MISSING or value != default:
            record[name] = list(value) if isinstance(value, tuple) else value
    return record


def from_json(record: object) -> Architecture:
    """The architecture in `record`. Raises `ArchitectureError` for another format, an unknown kind or field."""
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        got = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise ArchitectureError(f"An architecture must be an object with format {FORMAT!r}, but got {got!r}.")
    size = record.get("input")
    if not isinstance(size, list | tuple):
        raise ArchitectureError(f"`input` must be a list of sizes, but got {size!r}.")
    body = _node_from_json(record.get("body"), "body", 0)
    return Architecture(tuple(size), cast(Chain, body))


def _node_from_json(record: object, where: str, depth: int) -> Node:
    if depth > 100:
        raise ArchitectureError(f"An architecture must nest at most 100 deep, but goes on at {where}.")
    kind = KINDS.get(str(record.get("node"))) if isinstance(record, dict) else None
    if not isinstance(record, dict) or kind is None:
        got = record.get("node") if isinstance(record, dict) else record
        raise ArchitectureError(f"`node` at {where} must be one of {', '.join(KINDS)}, but got {got!r}.")
    values: dict[str, object] = {}
    known = {*kind.__dataclass_fields__, "node"}
    for name, value in record.items():
        if name not in known:
            raise ArchitectureError(
                f"{record['node']} at {where} has no field {name!r}; it has {', '.join(sorted(known))}."
            )
        if name == "head":
            values[name] = _node_from_json(value, f"{where}.0", depth + 1)
        elif name in BELOW:
            if not isinstance(value, list):
                raise ArchitectureError(f"`{name}` at {where} must be a list, but got {value!r}.")
            values[name] = tuple(_node_from_json(v, f"{where}.{i}", depth + 1) for i, v in enumerate(value))
        elif name == "label":
            values[name] = str(value)
        elif name != "node":
            values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**values)  # type: ignore[arg-type]
    except TypeError as error:
        raise ArchitectureError(f"{record['node']} at {where} must have all its fields: {error}.") from None


def digest(architecture: Architecture) -> str:
    """16 hexadecimal digits of the SHA-256 of the input and the body as JSON without labels."""
    canonical = f"[[{','.join(map(str, architecture.input))}],{_text(architecture.body, {})}]"
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _text(node: Node, known: dict[int, str]) -> str:
    """`_dumped(_node_to_json(node, False))`, from the texts of leaves; a node that stands several times is put once."""
    if isinstance(node, Leaf) or isinstance(node, Tap):  # noqa: SIM101 - a union is made anew each time
        text = _leaf_text(node)
    else:
        name, below = ("items", node.items) if isinstance(node, Chain) else ("branches", children(node))
        parts = ",".join([known.get(id(child)) or _text(child, known) for child in below])
        text = f'{{"{name}":[{parts}],"node":"{NAMES[type(node)]}"}}'
    known[id(node)] = text
    return text


@lru_cache(maxsize=1 << 16)
def _leaf_text(node: Node) -> str:
    return _dumped(_node_to_json(node, False))


_dumped = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def words(architecture: Architecture) -> str:
    """The architecture in a line a person of the field can read: `16x16x1 > stem 3x3 16 > stage1 2x[...] > ...`."""
    channels, *space = architecture.input
    parts = [f"{'x'.join(map(str, space))}x{channels}"]
    parts += [part for item in architecture.body.items if (part := _words(item))]
    return " > ".join(parts)


def _words(node: Node) -> str:
    match node:
        case language.Conv():
            kernel = _kernel(node.kernel)
            text = f"{kernel} {node.out}{_options(node)}"
            text += f" g{node.groups}" if node.groups > 1 else ""
            text += f" α{node.low / node.out:.3g}" if node.low else ""
        case language.Depthwise():
            text = f"dw{_kernel(node.kernel)}{_options(node)}"
        case language.Pool():
            kind = "avg" if node.kind == "average" else node.kind
            text = f"{kind}{_kernel(node.kernel)}{_options(node)}"
        case language.Shuffle():
            text = "shuffle"
        case language.SqueezeExcite():
            text = f"se{node.squeeze}"
        case language.AdaptivePool():
            text = "pool" if node.size == 1 else f"pool to {node.size}"
        case language.Linear():
            text = f"fc {node.out}"
        case language.Activation():
            text = "" if node.kind == "relu" else node.kind
        case language.Select():
            text = f"select {len(node.channels)}"
        case language.LocalNorm():
            text = "lrn"
        case language.Tap():
            text = f"aux({_words(node.head)})"
        case language.Add():
            text = " + ".join(f"({_words(b)})" if children(b) else _words(b) or "x" for b in node.branches)
            text = text.replace("()", "x")
        case language.Concat():
            text = "{" + " | ".join(_words(b) or "x" for b in node.branches) + "}"
        case language.Chain():
            text = _repeated([part for item in node.items if (part := _words(item))])
            if node.label and text and not node.label.startswith("block"):
                return f"{node.label} {text}"
        case _:
            text = ""
    return text


def _repeated(parts: list[str]) -> str:
    """Equal neighbours said once, with their count."""
    runs: list[tuple[str, int]] = []
    for part in parts:
        if runs and runs[-1][0] == part:
            runs[-1] = (part, runs[-1][1] + 1)
        else:
            runs.append((part, 1))
    return ", ".join(part if count == 1 else f"{count}x[{part}]" for part, count in runs)


def _kernel(kernel: language.Axes) -> str:
    return f"{kernel}x{kernel}" if isinstance(kernel, int) else "x".join(map(str, kernel))


def _options(node: language.Conv | language.Depthwise | language.Pool) -> str:
    stride = "" if node.stride == 1 else f"/{node.stride}".replace(" ", "")
    dilation = getattr(node, "dilation", 1)
    return stride + ("" if dilation == 1 else f" d{dilation}".replace(", ", ","))
