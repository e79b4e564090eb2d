"""A module without some of its channels: what they contributed is folded into what stays, then tensors are narrowed.

Folding is in float64: into the running mean of the norm that follows, else into a bias. At a zero-padded border a
constant is no bias; there one constant channel that stays carries the others of its group: its kernel takes theirs,
scaled by the ratio of the values. A channel that equals another hands its kernel to that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning.choice import Choice, Chooser
from pruning.graph import Dense, Graph, Moved
from searchspace import layers
from searchspace.network import Network, read_architecture


@dataclass(frozen=True, slots=True)
class Cuts:
    """What stays of each tensor of a module, by name: along whole axes, or within the groups of a convolution.

    `axes`: tensor -> axis -> the entries that stay. `groups`: weight -> the (rows, columns within the group) that
    stay, group by group. `added`: biases that were not there before.
    """

    axes: dict[str, dict[int, list[int]]]
    groups: dict[str, list[tuple[list[int], list[int]]]]
    added: frozenset[str] = frozenset()

    def __contains__(self, name: object) -> bool:
        return name in self.axes or name in self.groups

    def narrowed(self, name: str, tensor: Tensor) -> Tensor:
        """What stays of `tensor`, which has the shape that tensor `name` of the unpruned module has."""
        if name in self.groups:
            return torch.cat([tensor[rows][:, columns] for rows, columns in self.groups[name]])
        for axis, entries in self.axes.get(name, {}).items():
            tensor = tensor.index_select(axis, torch.tensor(entries, device=tensor.device))
        return tensor


def narrow(module: nn.Module, graph: Graph, chooser: Chooser, choice: Choice) -> tuple[Cuts, dict[int, int]]:
    """Fold and cut in place: `module`, in float64 on the CPU, loses what `choice` removes.

    Returns what stays, and for roots of slots that were merged, the slot that each was merged into.
    """
    cut = _Cut(module, graph, chooser, choice.removed)
    cut.fold()
    cuts = cut.cuts()
    _apply(module, cuts, cut.tensors)
    selections = {module.get_submodule(name): selection for name, selection in cut.selections().items()}
    for name, part in list(module.named_modules(remove_duplicate=False)):
        if part in selections:
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, selections[part])
    return cuts, cut.merged


@dataclass(eq=False)
class _Cut:
    module: nn.Module
    graph: Graph
    chooser: Chooser
    removed: frozenset[int]

    def __post_init__(self) -> None:
        self.tensors = {name: t.detach().clone() for name, t in _tensors(self.module)}
        self.added: dict[str, list[int]] = {}
        self.merged: dict[int, int] = {}

    def gone(self, slots: list[int]) -> Tensor:
        return self.chooser.gone(slots, self.removed)

    def stay(self, slots: list[int]) -> list[int]:
        """Places among `slots` that stay."""
        found: list[int] = (~self.gone(slots)).nonzero().flatten().tolist()
        return found

    def fold(self) -> None:
        for dense in self.graph.dense.values():
            offset = self._handed_on(dense)
            if not offset.any():
                continue
            if dense.norm is not None:
                self.tensors[dense.norm.mean] -= offset
                continue
            assert dense.takes is not None
            if dense.takes in self.tensors:
                self.tensors[dense.takes] += offset
            else:
                self.added[dense.takes] = dense.outputs
                self.tensors[dense.takes] = offset

    def _handed_on(self, dense: Dense) -> Tensor:
        """Hand the kernels of inputs that leave to those that stand in; returns what the outputs lack: constants."""
        gone = self.gone(dense.inputs.slots)
        leaving = torch.where(gone, dense.inputs.values.nan_to_num(0.0), 0.0)
        weight = self.tensors[dense.weight]
        twins = {c: same for same in self.chooser.twins.get(dense.weight, ()) for c in same}
        varies = gone & dense.inputs.values.isnan()
        for rows, columns in dense.blocks():
            start, values = columns.start, leaving[columns]
            if dense.padded and values.any():
                carrier = carried(dense, gone, columns)
                if carrier is not None:
                    block = weight[rows]
                    ratio = values / dense.certain[carrier]
                    block[:, carrier - start] += torch.tensordot(block, ratio, dims=([1], [0]))
            for c in varies[columns].nonzero().flatten().tolist():
                others = [d for d in twins.get(c + start, ()) if not gone[d]]
                if others:
                    weight[rows, others[0] - start] += weight[rows, c]
                    root = self.chooser.roots[dense.inputs.slots[c + start]]
                    self.merged.setdefault(root, dense.inputs.slots[others[0]])
        if dense.padded:
            return torch.zeros(len(dense.outputs), dtype=torch.float64)
        return dense.sums @ leaving

    def cuts(self) -> Cuts:
        axes: dict[str, dict[int, list[int]]] = {}
        groups: dict[str, list[tuple[list[int], list[int]]]] = {}
        for name, slots in self.added.items():
            axes[name] = {0: self.stay(slots)}
        for name, by_axis in self.graph.cuts.items():
            axes[name] = {axis: self.stay(slots) for axis, slots in by_axis.items() if self.gone(slots).any()}
        for dense in self.graph.dense.values():
            if self.gone(dense.outputs).any() or self.gone(dense.inputs.slots).any():
                groups[dense.weight] = [
                    (
                        [rows.start + r for r in self.stay(dense.outputs[rows])],
                        self.stay(dense.inputs.slots[columns]),
                    )
                    for rows, columns in dense.blocks()
                ]
        return Cuts({k: v for k, v in axes.items() if v}, groups, frozenset(self.added))

    def selections(self) -> dict[str, layers.Select]:
        """What takes the place of modules that move channels: of a shuffle that is none any more, of a selection.

        Both frequencies of an octave map have one selection together.
        """
        found: dict[str, layers.Select] = {}
        for name, moved in self.graph.moved.items():
            selection = self._selection(moved)
            if selection is None or self._still(name, selection):
                continue
            parent = name.rpartition(".")[0]
            if not isinstance(self.module.get_submodule(parent), layers.Branches):
                found[name] = selection
                continue
            high, low = (self._selection(self.graph.moved[f"{parent}.{k}"], always=True) for k in ("high", "low"))
            assert high is not None
            assert low is not None
            width = len(high.channels)
            found[parent] = layers.Select((*high.channels, *(c + width for c in low.channels)), width)
        return found

    def _selection(self, moved: Moved, *, always: bool = False) -> layers.Select | None:
        """Where each channel that stays goes; None where all stay."""
        gone = [self.gone(part).tolist() for part in moved.before]
        if not always and not any(any(part) for part in gone):
            return None
        new: dict[int, int] = {}
        staying = [
            slot
            for part, lost in zip(moved.before, gone, strict=True)
            for slot, g in zip(part, lost, strict=True)
            if not g
        ]
        for place, slot in enumerate(staying):
            new.setdefault(slot, place)
        channels = tuple(new[slot] for part in moved.after for slot in part if slot in new)
        return layers.Select(channels, gone[0].count(False))

    def _still(self, name: str, selection: layers.Select) -> bool:
        """Whether the shuffle there does the same by itself."""
        module = self.module.get_submodule(name)
        if not isinstance(module, nn.ChannelShuffle | layers.ChannelShuffle):
            return False
        each, rest = divmod(len(selection.channels), module.groups)
        order = tuple(g * each + place for place in range(each) for g in range(module.groups))
        return not rest and selection.channels == order


def carried(dense: Dense, gone: Tensor, columns: slice) -> int | None:
    """The channel among `columns` that stays (not `gone`) and is surely constant and largest, to carry others."""
    values = torch.where(gone, 0.0, dense.certain.nan_to_num(0.0)).abs()[columns]
    return columns.start + int(values.argmax()) if len(values) and values.max() > 0 else None


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _apply(module: nn.Module, cuts: Cuts, tensors: dict[str, Tensor]) -> None:
    """Put the narrowed `tensors` into the module and tell each layer its new widths."""
    new: dict[int, Tensor] = {}
    for name, old in list(_tensors(module)):
        narrowed = cuts.narrowed(name, tensors[name])
        if isinstance(old, nn.Parameter):
            narrowed = nn.Parameter(narrowed, requires_grad=old.requires_grad)
        new[id(old)] = narrowed
    for part in module.modules():
        for kind in (part._parameters, part._buffers):
            for key, value in kind.items():
                if value is not None:
                    kind[key] = new[id(value)]  # type: ignore[assignment]
    for name in cuts.added:
        owner, _, key = name.rpartition(".")
        setattr(module.get_submodule(owner), key, nn.Parameter(cuts.narrowed(name, tensors[name])))
    for part in module.modules():
        _tell_widths(part)


def _tell_widths(part: nn.Module) -> None:
    """The widths that a layer keeps beside its tensors, as its tensors now are."""
    weight = getattr(part, "weight", None)
    match part:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            depthwise = part.groups == part.in_channels == part.out_channels and part.groups > 1
            if depthwise:
                part.groups = len(part.weight)
            part.out_channels, part.in_channels = len(part.weight), part.weight.shape[1] * part.groups
        case nn.Linear():
            part.out_features, part.in_features = part.weight.shape
        case nn.modules.batchnorm._BatchNorm():
            if part.running_mean is not None:
                part.num_features = len(part.running_mean)
        case nn.PReLU() if isinstance(weight, Tensor):
            part.num_parameters = len(weight)


def tidied(network: Network) -> Network:
    """The Network that an architecture describes, with the tensors of a narrowed one; what was frozen stays frozen.

    An octave convolution has all of its biases or none, the first path into each frequency holding them.
    """
    for octave in (part for part in network.modules() if isinstance(part, layers.OctaveConv)):
        ends = [[p for p in pair if p is not None] for pair in ((octave.hh, octave.lh), (octave.hl, octave.ll))]
        biases = [[p.bias for p in end if isinstance(p.bias, Tensor)] for end in ends]
        if any(biases):
            for end, some in zip(ends, biases, strict=True):
                if end:
                    total = sum((b.detach() for b in some), torch.zeros(len(end[0].weight), dtype=torch.float64))  # type: ignore[arg-type]
                    for path in end:
                        path.register_parameter("bias", None)
                    end[0].bias = nn.Parameter(total)
    with torch.random.fork_rng(devices=[]):
        built = Network(read_architecture(network)).double()
    built.load_state_dict(network.state_dict())
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    for name, parameter in built.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return built
