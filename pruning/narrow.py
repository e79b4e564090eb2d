"""A network without some of its slots: the architecture with the widths that stay, and the weights that go with it.

What the removed channels contributed is folded, in float64, into what stays: into the running mean of the norm that
follows, else into a bias. At a zero-padded border a constant is no bias; there one constant channel that stays
carries the others of its group: its kernel takes theirs, scaled by the ratio of the values.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pruning import rules
from pruning.flow import Dense, Flow, Map
from pruning.weights import exact, parts
from searchspace import architecture as language
from searchspace.architecture import Architecture, Node, Site, map_leaves

State = dict[str, Tensor]


def without(flow: Flow, removed: Collection[int]) -> tuple[Architecture, State]:
    """The narrower architecture and its state dict (floats in float64); `removed` are roots of slots."""
    cut = _Cut(flow, frozenset(removed))
    change: dict[tuple[int, ...], Node] = {}
    for site in flow.architecture.sites:
        leaf = cut.leaf(site)
        if leaf != site.leaf:
            change[site.index] = leaf
    body = map_leaves(flow.architecture.body, change)
    assert isinstance(body, language.Chain)
    return Architecture(flow.architecture.input, body), cut.state


def carried(dense: Dense, gone: Tensor, columns: slice) -> int | None:
    """The channel among `columns` that stays (not `gone`) and is surely constant and largest, to carry others."""
    values = torch.where(gone, 0.0, dense.certain.nan_to_num(0.0)).abs()[columns]
    return columns.start + int(values.argmax()) if len(values) and values.max() > 0 else None


@dataclass(eq=False)
class _Cut:
    """The removal under way; `state` fills leaf by leaf."""

    flow: Flow
    removed: frozenset[int]

    def __post_init__(self) -> None:
        state = self.flow.network.state_dict()
        self.state = {k: exact(v) if v.is_floating_point() else v.detach().cpu().clone() for k, v in state.items()}

    def leaf(self, site: Site) -> language.Leaf:
        """The leaf at `site` as it will be; its tensors are cut on the way."""
        name, leaf, before = site.name, site.leaf, self.flow.before[site.name]
        match leaf:
            case language.Conv() | language.Linear():
                dense = self.flow.dense[name]
                stay = ~self._gone(dense.outputs)
                offset = self._dense(dense)
                if offset.any() and not leaf.bias:
                    if dense.norm is None:
                        leaf = replace(leaf, bias=True)
                    else:
                        self._shift(dense.norm, offset)
                        offset = torch.zeros_like(offset)
                if leaf.bias:
                    self._bias(dense, offset)
                if isinstance(leaf, language.Linear):
                    return replace(leaf, out=int(stay.sum()))
                return replace(leaf, out=int(stay.sum()), low=int(stay[dense.outputs.high :].sum()))
            case language.SqueezeExcite():
                squeeze, expand = (self.flow.dense[f"{name}.{key}"] for key in ("squeeze", "expand"))
                for dense in (squeeze, expand):
                    self._bias(dense, self._dense(dense))
                return replace(leaf, squeeze=int((~self._gone(squeeze.outputs)).sum()))
            case language.Norm() | language.Depthwise():
                self._channels(name, before)
            case language.Select():
                return self._select(leaf, before, list(leaf.channels))
            case language.Shuffle():
                return self._shuffle(leaf, before)
        return leaf

    def _gone(self, x: Map) -> Tensor:
        return torch.tensor([self.flow.root(slot) in self.removed for slot in x.slots], dtype=torch.bool)

    def _dense(self, dense: Dense) -> Tensor:
        """Cut the weights of `dense`; returns what its (uncut) outputs lack now: a constant for each."""
        gone_in, gone_out = self._gone(dense.inputs), self._gone(dense.outputs)
        leaving = torch.where(gone_in, dense.inputs.values.nan_to_num(0.0), 0.0)
        offset = torch.zeros(len(gone_out), dtype=torch.float64)
        for path in dense.paths:
            weight = path.weight.clone()
            start, first = path.columns.start, path.rows.start
            blocks = []
            for rows, columns in path.blocks():
                place = slice(start + columns.start, start + columns.stop)
                block, values = weight[rows], leaving[place]
                if dense.padded and values.any():
                    carrier = carried(dense, gone_in, place)
                    if carrier is not None:
                        ratio = values / dense.certain[carrier]
                        block[:, carrier - place.start] += torch.tensordot(block, ratio, dims=([1], [0]))
                stay = block[~gone_out[first + rows.start : first + rows.stop]]
                blocks.append(stay[:, ~gone_in[place]])
            if not dense.padded:
                offset[first : path.rows.stop] += path.sums @ leaving[start : path.columns.stop]
            self.state[f"{path.name}.weight"] = torch.cat(blocks)
        return offset

    def _bias(self, dense: Dense, offset: Tensor) -> None:
        """Biases with `offset` added; one sits in the first path into each frequency."""
        gone, done = self._gone(dense.outputs), set[int]()
        for path in dense.paths:
            if path.rows.start not in done:
                done.add(path.rows.start)
                rows = slice(path.rows.start, path.rows.stop)
                bias = offset[rows] if path.bias is None else path.bias + offset[rows]
                self.state[f"{path.name}.bias"] = bias[~gone[rows]]

    def _shift(self, norm: str, offset: Tensor) -> None:
        for name, _, channels in parts(norm, self.flow.network.get_submodule(norm)):
            mean = self.state[f"{name}.running_mean"]
            self.state[f"{name}.running_mean"] = mean - offset[channels.start : channels.stop]

    def _channels(self, name: str, x: Map) -> None:
        """Per-channel tensors without the channels that leave."""
        gone = self._gone(x)
        for part, _, channels in parts(name, self.flow.network.get_submodule(name)):
            stay = ~gone[channels.start : channels.stop]
            for key in ("weight", "bias", "running_mean", "running_var"):
                if f"{part}.{key}" in self.state:
                    self.state[f"{part}.{key}"] = self.state[f"{part}.{key}"][stay]

    def _select(self, leaf: language.Leaf, x: Map, places: list[int]) -> language.Select:
        """What is left of taking the channels at `places`."""
        gone = self._gone(x).tolist()
        number = {c: i for i, c in enumerate(c for c, g in enumerate(gone) if not g)}
        return language.Select(tuple(number[p] for p in places if not gone[p]), label=leaf.label)

    def _shuffle(self, leaf: language.Shuffle, x: Map) -> language.Leaf:
        """A shuffle where the same places stay in every group, else the selection that says where each goes."""
        gone = self._gone(x).tolist()
        select = self._select(leaf, x, rules.shuffle(leaf.groups, x.high, x.low))
        high = gone[: x.high].count(False)
        low = gone[x.high :].count(False)
        whole = high % leaf.groups == 0 and low % leaf.groups == 0
        return leaf if whole and select.channels == tuple(rules.shuffle(leaf.groups, high, low)) else select
