"""How channels flow through a network: which are constant where, and which can only leave together.

One walk along the architecture gives every feature map a value per channel (`rules`) and a *slot* per channel:
channels of one slot share their fate, since the layers between them have no width of their own (norm, activation,
depthwise convolution, pooling), move channels about (shuffle, selection, concatenation), or add them up.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from math import isnan, prod
from typing import Literal

import torch
from torch import Tensor

from pruning import rules
from pruning.weights import Path, paths
from searchspace import architecture as language
from searchspace.architecture import Node, Site, children
from searchspace.layers import SqueezeExcite as SqueezeExciteModule
from searchspace.leaves import windows
from searchspace.network import Network, read_architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """Output `channel` of a module has one `value` over the whole map; `cause` says why, `at` in which module."""

    channel: int
    value: float
    cause: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What `samples` inputs showed: module name -> (channels,) values, NaN where a channel varied."""

    samples: int
    values: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Map:
    """A feature map's channels, high ones first: the slot of each, and its (channels,) values."""

    slots: list[int]
    values: Tensor
    low: int = 0

    @property
    def high(self) -> int:
        return len(self.slots) - self.low

    def moved(self, places: list[int], low: int) -> Map:
        """The channels at `places`, in that order."""
        return Map([self.slots[p] for p in places], self.values[places], low)


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """Weights between two maps of independent widths.

    `padded`: zero padding, where a non-zero constant varies at the border. `norm` names the norm that alone reads
    it. `certain` are those input values that hold for every input, not only for observed ones.
    """

    name: str
    paths: list[Path]
    inputs: Map
    outputs: Map
    padded: bool
    norm: str | None
    certain: Tensor

    def groups(self, end: Literal["columns", "rows"]) -> list[list[slice]]:
        """For each frequency of the inputs (columns) or outputs (rows), the channels of each group."""
        spans = {getattr(path, end).start: (getattr(path, end), path.groups) for path in self.paths}
        found = []
        for span, groups in spans.values():
            each = len(span) // groups
            found.append([slice(span.start + j * each, span.start + (j + 1) * each) for j in range(groups)])
        return found


class Flow:
    """The walk and what it found.

    `before` and `after`: the maps around each leaf, by module name. `dense`: the weights between slots, by module.
    `constants`: all of them, by module; `starts`: by slot, those that varied a layer before. `lost`: by slot, where a
    constant began to vary again. `pinned`: by slot, why it cannot leave. `producers`: (module, channel) of each slot.
    Slots are as walked; `root` gives the one that stands for all that share a fate.
    """

    def __init__(self, network: Network, observed: Observed | None = None) -> None:
        self.network = network
        self.architecture = read_architecture(network)
        self.before: dict[str, Map] = {}
        self.after: dict[str, Map] = {}
        self.dense: dict[str, Dense] = {}
        self.constants: dict[str, list[Constant]] = {}
        self.starts: dict[int, list[Constant]] = defaultdict(list)
        self.lost: dict[int, str] = {}
        self.pinned: dict[int, str] = {}
        self.producers: list[tuple[str, int]] = []
        self._parents: list[int] = []
        self._observed = observed
        self._sure = Flow(network) if observed else None
        self._sites = {site.index: site for site in self.architecture.sites}
        width = self.architecture.input[0]
        image = Map(self._new("input", width), torch.full((width,), rules.VARIES, dtype=torch.float64))
        self._pin(image, "is an input of the network")
        self._pin(self._walk(self.architecture.body, image, (), None), "is an output of the network")

    @property
    def proved(self) -> dict[str, list[Constant]]:
        """The constants that hold for every input."""
        return self._sure.constants if self._sure else self.constants

    def root(self, slot: int) -> int:
        """The slot that stands for all that `slot` was added up with."""
        while self._parents[slot] != slot:
            slot = self._parents[slot]
        return slot

    def _new(self, name: str, width: int) -> list[int]:
        first = len(self._parents)
        self._parents += range(first, first + width)
        self.producers += [(name, c) for c in range(width)]
        return list(range(first, first + width))

    def _pin(self, x: Map, reason: str) -> None:
        for slot in x.slots:
            self.pinned.setdefault(slot, reason)

    def _walk(self, node: Node, x: Map, index: tuple[int, ...], norm: str | None) -> Map:
        """The map after `node`; `norm` names the norm that alone reads it, if one does."""
        below = children(node)
        match node:
            case language.Chain():
                for i, item in enumerate(below):
                    last = i + 1 == len(below)
                    normed = not last and isinstance(below[i + 1], language.Norm)
                    reader = norm if last else _name((*index, i + 1)) if normed else None
                    x = self._walk(item, x, (*index, i), reader)
                return x
            case language.Tap():
                self._pin(self._walk(node.head, x, (*index, 0), None), "is an output of an auxiliary head")
                return x
            case language.Add():
                return self._add([self._walk(b, x, (*index, i), None) for i, b in enumerate(below)])
            case language.Concat():
                return _side_by_side([self._walk(b, x, (*index, i), None) for i, b in enumerate(below)])
        site = self._sites[index]
        self.before[site.name] = x
        self.after[site.name] = y = self._leaf(site, x, norm)
        if site.name not in self.constants:  # channels passed on as they are, or moved about
            self._list(site.name, y, ["constant input"] * len(y.slots))
        return y

    def _add(self, summands: list[Map]) -> Map:
        values = torch.stack([m.values for m in summands])
        lost = (values.isnan().any(0) & ~values.isnan().all(0)).tolist()
        for c, slots in enumerate(zip(*(m.slots for m in summands), strict=True)):
            for slot in slots:
                self._parents[self.root(slot)] = self.root(slots[0])
                if lost[c]:
                    self.lost[slot] = "is added to a channel that varies"
        return replace(summands[0], values=values.sum(0))

    def _leaf(self, site: Site, x: Map, norm: str | None) -> Map:
        name, leaf, module = site.name, site.leaf, self.network.get_submodule(site.name)
        padded = isinstance(leaf, language.Conv | language.Depthwise | language.Pool) and any(
            windows(leaf, len(site.before.space))[2]
        )
        border = f"varies at the zero-padded border in {name}"
        match leaf:
            case language.Conv() | language.Linear():
                return self._dense(name, paths(name, module), x, site.after.low, padded, norm)
            case language.Depthwise():
                return self._same(name, x, rules.depthwise(name, module, x.values, padded), border)
            case language.Norm():
                return self._same(name, x, rules.norm(name, module, x.values))
            case language.Activation():
                return self._same(name, x, rules.activation(leaf.kind, x.values))
            case language.Pool(kind="average") if padded:
                return self._same(name, x, rules.padded_average(x.values), border)
            case language.SqueezeExcite():
                assert isinstance(module, SqueezeExciteModule)
                return self._squeeze_excite(name, leaf, module, x)
            case language.LocalNorm():
                self._pin(x, f"is read by its neighbours in {name}")
                return replace(x, values=torch.full_like(x.values, rules.VARIES))
            case language.AdaptivePool():
                return replace(x, low=0)
            case language.Flatten():
                return x.moved([c for c in range(len(x.slots)) for _ in range(prod(site.before.space))], 0)
            case language.Shuffle():
                return x.moved(rules.shuffle(leaf.groups, x.high, x.low), x.low)
            case language.Select():
                return x.moved(list(leaf.channels), site.after.low)
        return x  # dropout, max pooling, average pooling without padding

    def _dense(self, name: str, maps: list[Path], x: Map, low: int, padded: bool, norm: str | None) -> Map:
        """Weights to new slots."""
        width = max(path.rows.stop for path in maps)
        y = Map(self._new(name, width), torch.full((width,), rules.VARIES, dtype=torch.float64), low)
        y = self._same(name, y, rules.dense(maps, x.values, width, padded))
        self._join(name, maps, x, y, padded, norm)
        return y

    def _join(self, name: str, maps: list[Path], x: Map, y: Map, padded: bool = False, norm: str | None = None) -> None:
        certain = self._sure.dense[name].inputs.values if self._sure else x.values
        self.dense[name] = Dense(name, maps, x, y, padded, norm, certain)

    def _squeeze_excite(self, name: str, leaf: language.SqueezeExcite, module: SqueezeExciteModule, x: Map) -> Map:
        """Two dense maps around the hidden units, then a product with `x`, whose channels keep their slots."""
        hidden = self._dense(f"{name}.squeeze", paths(f"{name}.squeeze", module.squeeze), x, 0, False, None)
        hidden = self._same(f"{name}.activation", hidden, rules.activation(leaf.activation, hidden.values))
        expand = paths(f"{name}.expand", module.expand)
        gate, _ = rules.dense(expand, hidden.values, len(x.slots), False)
        y = self._same(
            name,
            x,
            rules.gated(x.values, rules.activation(leaf.gate, gate)[0]),
            f"is multiplied by a gate that varies in {name}",
        )
        self._join(f"{name}.expand", expand, hidden, y)
        return y

    def _same(self, name: str, x: Map, known: rules.Known, lost: str = "") -> Map:
        """`x` with its slots and new values, in module `name`; what was observed is added, what changed is noted."""
        values, causes = known
        if self._observed and name in self._observed.values:
            seen = self._observed.values[name]
            for c in (values.isnan() & ~seen.isnan()).nonzero().flatten().tolist():
                causes[c] = f"{'zero' if seen[c] == 0 else 'constant'} on all {self._observed.samples} samples"
            values = torch.where(values.isnan(), seen, values)
        y = replace(x, values=values)
        varied, varies = x.values.isnan().tolist(), values.isnan().tolist()
        self.lost |= {slot: lost for slot, old, new in zip(x.slots, varied, varies, strict=True) if new and not old}
        for constant in self._list(name, y, causes):
            if varied[constant.channel]:
                self.starts[y.slots[constant.channel]].append(constant)
        return y

    def _list(self, name: str, y: Map, causes: list[str]) -> list[Constant]:
        found = [
            Constant(channel=c, value=value, cause=causes[c], at=name)
            for c, value in enumerate(y.values.tolist())
            if not isnan(value)
        ]
        if found:
            self.constants[name] = found
        return found


def _name(index: tuple[int, ...]) -> str:
    return ".".join(("body", *map(str, index)))


def _side_by_side(branches: list[Map]) -> Map:
    """All high channels, then all low ones."""
    ends = [(m.moved(list(range(m.high)), 0), m.moved(list(range(m.high, len(m.slots))), m.low)) for m in branches]
    ordered = [high for high, _ in ends] + [low for _, low in ends]
    values = torch.cat([m.values for m in ordered])
    return Map([slot for m in ordered for slot in m.slots], values, sum(m.low for m in branches))
