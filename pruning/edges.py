"""Dead edges, apart from dead channels: which kernel slices W[o, c] of a layer are live, and what they connect.

An edge joins input c of a convolution or linear layer to its output o; it is dead where every tap of the kernel
between them is 0. Only weights are read here: nothing is run, nothing is changed (`regroup` does that). Transposed
convolutions are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from pruning.packing import Blocks, most_groups
from searchspace import architecture as language
from searchspace.layers import OctaveConv, StridedPointwise2d, StridedPointwise3d
from searchspace.network import Network

PLAIN = {kind.forward for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d, StridedPointwise2d, StridedPointwise3d)}
SLICES = 1 << 20  # kernel slices made edges of a graph at once: some 50 MB

Weighted = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """The edges of one layer; the up to four convolutions of an octave convolution are one, high channels first.

    Of all `edges` (those between different groups are none), `zero` are exactly 0; `negligible` are not, but their
    norm is at most the tolerance times the layer's largest. The others are live: `in_degree` of each output,
    `out_degree` of each input. `components` counts the parts that no live edge joins, channels without any left out.
    `obstacle` says why the layer cannot be regrouped, whatever its edges; it is empty where it can.
    """

    name: str
    kind: str
    groups: int
    edges: int
    zero: int
    negligible: int
    in_degree: tuple[int, ...] = field(repr=False)
    out_degree: tuple[int, ...] = field(repr=False)
    components: int
    blocks: Blocks = field(repr=False)
    obstacle: str

    @property
    def live(self) -> int:
        return self.edges - self.zero - self.negligible

    @property
    def live_share(self) -> float:
        return self.live / self.edges

    @property
    def groups_supported(self) -> int:
        """The most equal groups that the live edges fit into, channels reordered at will."""
        return self.blocks.groups

    @property
    def regroups(self) -> bool:
        return self.groups_supported > self.groups and not self.obstacle

    def to_json(self) -> dict[str, object]:
        """All but the order of the channels, as plain data."""
        plain = {name: value for name, value in asdict(self).items() if name != "blocks"}
        more = ("live", "live_share", "groups_supported", "regroups")
        return {**plain, **{name: getattr(self, name) for name in more}, "certain": self.blocks.certain}


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """One convolution or linear map of a layer, and the numbers that its inputs and outputs have in that."""

    module: Weighted
    columns: range
    rows: range

    @property
    def groups(self) -> int:
        return 1 if isinstance(self.module, nn.Linear) else self.module.groups

    def firsts(self) -> Tensor:
        """(outputs,): the number of the first input that each output could read."""
        group = torch.arange(len(self.rows)) // (len(self.rows) // self.groups)
        return self.columns.start + group * (len(self.columns) // self.groups)


def edges(module: nn.Module, tolerance: float = 0.0) -> list[Edges]:
    """The edges of every convolution and linear layer in `module`, in the order of their names."""
    if not 0 <= tolerance < 1:
        raise ValueError(f"`tolerance` is a share of a layer's largest norm, at least 0 and below 1; got {tolerance}.")
    owners = Counter(id(p) for m in module.modules() for p in m._parameters.values())
    sites = None
    if isinstance(module, Network):
        sites = {s.name for s in module.architecture.sites if isinstance(s.leaf, language.Conv | language.Linear)}
    found = []
    for name, layer in layers_of(module):
        silent = sites is not None and name not in sites
        obstacle = "the architecture has no groups here" if silent else _obstacle(layer, owners)
        found.append(_edges(name, layer, tolerance, obstacle))
    return found


def maps(layer: Weighted | OctaveConv) -> list[Map]:
    """The maps in `layer`: one, or the up to four of an octave convolution."""
    if not isinstance(layer, OctaveConv):
        return [Map(layer, range(_width(layer, 1)), range(_width(layer, 0)))]
    (high_in, low_in), (high_out, low_out) = frequencies(layer)
    high, low = range(high_in), range(high_in, high_in + low_in)
    to_high, to_low = range(high_out), range(high_out, high_out + low_out)
    paths = ((layer.hh, high, to_high), (layer.lh, low, to_high), (layer.hl, high, to_low), (layer.ll, low, to_low))
    return [Map(path, columns, rows) for path, columns, rows in paths if path is not None]  # type: ignore[arg-type]


def frequencies(layer: Weighted | OctaveConv) -> tuple[tuple[int, int], tuple[int, int]]:
    """(high, low) of the inputs, and of the outputs; without octaves all are high."""
    if not isinstance(layer, OctaveConv):
        return (_width(layer, 1), 0), (_width(layer, 0), 0)
    hh, lh, hl, ll = layer.hh, layer.lh, layer.hl, layer.ll
    return (_width(hh, 1) or _width(hl, 1), _width(lh, 1) or _width(ll, 1)), (
        _width(hh, 0) or _width(lh, 0),
        _width(hl, 0) or _width(ll, 0),
    )


def _width(layer: nn.Module | None, axis: int) -> int:
    """Outputs (axis 0) or inputs (axis 1) of a layer; 0 of none."""
    if layer is None:
        return 0
    weight, groups = layer.weight, getattr(layer, "groups", 1)
    assert isinstance(weight, Tensor)
    return weight.shape[axis] * (groups if axis else 1)


def layers_of(module: nn.Module) -> Iterator[tuple[str, Weighted | OctaveConv]]:
    """Every convolution and linear layer; an octave convolution is one."""
    inside: set[nn.Module] = set()
    for name, layer in module.named_modules():
        if isinstance(layer, OctaveConv):
            inside |= set(layer.modules())
            yield name, layer
        elif isinstance(layer, Weighted) and layer not in inside:
            yield name, layer


def _obstacle(layer: Weighted | OctaveConv, owners: Counter[int]) -> str:
    """Why `layer` cannot be regrouped; empty where it can."""
    for part in maps(layer):
        if isinstance(part.module, nn.Linear):
            return "a linear layer has no groups"
        if is_parametrized(part.module):
            return "its weight is parametrized"
        if type(part.module).forward not in PLAIN:
            return f"{type(part.module).__name__} computes in a way of its own"
        if owners[id(part.module.weight)] > 1:
            return "another layer shares its weight"
    return ""


def _edges(name: str, layer: Weighted | OctaveConv, tolerance: float, obstacle: str) -> Edges:
    parts = maps(layer)
    weights = [part.module.weight.detach()[..., None].flatten(2) for part in parts]
    used = live = [(weight != 0).any(2) for weight in weights]
    if tolerance:
        norms = [torch.linalg.vector_norm(weight.double(), dim=2) for weight in weights]
        largest = max(norm.max() for norm in norms)
        live = [some & ~(norm <= tolerance * largest) for some, norm in zip(used, norms)]
    live = [some.cpu() for some in live]
    total = sum(some.numel() for some in used)
    nonzero, alive = (sum(int(some.sum()) for some in each) for each in (used, live))
    joint = joined(parts, live)
    return Edges(
        name=name,
        kind=type(layer).__name__,
        groups=parts[0].groups,
        edges=total,
        zero=total - nonzero,
        negligible=nonzero - alive,
        in_degree=joint.in_degree,
        out_degree=joint.out_degree,
        components=joint.components,
        blocks=joint.blocks,
        obstacle=obstacle,
    )


@dataclass(frozen=True, slots=True)
class Joined:
    """What live edges join: see `Edges`."""

    in_degree: tuple[int, ...]
    out_degree: tuple[int, ...]
    components: int
    blocks: Blocks


def joined(parts: list[Map], live: list[Tensor]) -> Joined:
    """The degrees, components and most groups under `live`, (rows, columns / groups) of each part, on the CPU."""
    inputs, outputs = (max(getattr(part, end).stop for part in parts) for end in ("columns", "rows"))
    in_degree, out_degree = torch.zeros(outputs, dtype=torch.long), torch.zeros(inputs, dtype=torch.long)
    for part, some in zip(parts, live):
        in_degree[part.rows.start : part.rows.stop] += some.sum(1)
        by_group = some.view(part.groups, -1, some.shape[1]).sum(1)
        out_degree[part.columns.start : part.columns.stop] += by_group.flatten()
    labels = _labels(parts, live, in_degree, out_degree)
    spans = {part.columns for part in parts} | {range(inputs + p.rows.start, inputs + p.rows.stop) for p in parts}
    return Joined(
        tuple(in_degree.tolist()),
        tuple(out_degree.tolist()),
        len(np.unique(labels[:inputs][out_degree.numpy() > 0])),
        most_groups(labels, sorted(spans, key=lambda span: span.start), least=parts[0].groups),
    )


def _labels(parts: list[Map], live: list[Tensor], in_degree: Tensor, out_degree: Tensor) -> NDArray[np.int64]:
    """(inputs + outputs,): equal where live edges join two channels, directly or through others."""
    inputs, n = len(out_degree), len(out_degree) + len(in_degree)
    label: NDArray[np.int64] = np.arange(n)
    readers, read = (np.flatnonzero(degree.numpy()) for degree in (in_degree, out_degree))
    for part, some in zip(parts, live):
        firsts, step = part.firsts().numpy(), max(1, SLICES // some.shape[1])
        for start in range(0, len(some), step):
            rows, columns = some[start : start + step].numpy().nonzero()
            rows += start
            ends = label[inputs + part.rows.start + rows], label[firsts[rows] + columns]
            graph = coo_array((np.ones(len(rows), dtype=np.int8), ends), shape=(n, n))
            label = connected_components(graph, directed=False)[1][label]
            if len(read) and (label[read] == label[read[0]]).all():  # nothing is left to join: dense layers end here
                label[inputs + readers] = label[read[0]]
                return label
    return label
