"""How channels flow through a module: which are constant or equal where, and which can only leave together.

Channels of one *slot* share their fate, since what lies between them has no width of its own (norms, activations,
depthwise convolutions, pooling), moves channels about (views, shuffles, concatenation), or adds them up. Weights
between slots are `Dense`. A graph holds no tensor of a run but the weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from pruning.cells import FIXED, VARIES
from pruning.places import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """Output `channel` of a module has one `value` over the whole map; `cause` says why, `at` in which module.

    Of a channel that varies, but equals another one, the value is None.
    """

    channel: int
    value: float | None
    cause: str
    at: str


@dataclass(frozen=True, slots=True)
class Made:
    """Where a channel is made or becomes constant: `indices` along axis `axis` of the output at `place`."""

    place: Place
    axis: int
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """A channel that varied before `made` and is `constant` there."""

    made: Made
    constant: Constant


@dataclass(frozen=True, slots=True)
class Map:
    """Channels where weights read them: the slot of each, its value, and the number that equal ones share."""

    slots: list[int]
    values: Tensor
    equal: list[Hashable]


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm by running statistics: the names of its scale, if it has one, and of its mean."""

    scale: str | None
    mean: str


@dataclass(eq=False)
class Dense:
    """Weights between two maps of independent widths: a convolution or linear layer, `weight` by its parameter's name.

    `tensor`: (rows, columns / groups, *kernel) in float64. `padded`: zero padding, where a non-zero constant varies
    at the border. `takes` names the bias that takes constants, there already or not; None where nothing can. `norm`
    is what alone reads it. `certain` are those input values that hold for every input, not only for observed ones.
    """

    name: str
    weight: str
    takes: str | None
    tensor: Tensor
    offset: Tensor | None
    groups: int
    padded: bool
    inputs: Map
    outputs: list[int]
    norm: Norm | None = None
    certain: Tensor = field(default_factory=lambda: torch.empty(0))

    @cached_property
    def sums(self) -> Tensor:
        """(rows, columns): each kernel summed over its taps, which a constant input is multiplied by."""
        return self._dense(self.tensor.flatten(2).sum(2) if self.tensor.dim() > 2 else self.tensor)

    @cached_property
    def used(self) -> Tensor:
        """(rows, columns): whether any tap is other than 0."""
        return self._dense((self.tensor.flatten(2) != 0).any(2) if self.tensor.dim() > 2 else self.tensor != 0)

    def _dense(self, blocks: Tensor) -> Tensor:
        if self.groups == 1:
            return blocks
        whole = blocks.new_zeros(len(self.outputs), len(self.inputs.slots))
        for rows, columns in self.blocks():
            whole[rows, columns] = blocks[rows]
        return whole

    def blocks(self) -> list[tuple[slice, slice]]:
        """(rows, columns) of each group."""
        rows, columns = len(self.outputs) // self.groups, len(self.inputs.slots) // self.groups
        return [(slice(j * rows, (j + 1) * rows), slice(j * columns, (j + 1) * columns)) for j in range(self.groups)]


@dataclass(frozen=True, slots=True)
class Width:
    """A width of the module `name`: the same count of slots, listed by group, must leave every group; one stays."""

    name: str
    groups: list[list[int]]


@dataclass(frozen=True, slots=True)
class Moved:
    """A module that only moves channels: the slots of its input and output, each frequency by itself."""

    before: tuple[list[int], ...]
    after: tuple[list[int], ...]


class Graph:
    """What was found. Slots are as numbered; `root` gives the one that stands for all that share a fate.

    `producers`: (module, channel) of each slot. `made`: where it is made. `pinned`: by slot, why it cannot leave.
    `lost`: by slot, where a constant began to vary again. `starts`: by slot, where a channel becomes constant.
    `constants`: by module, those of its last operation. `followers`: slots of gates, which leave with what they
    scale. `cuts`: by parameter or buffer, the slots along each axis that has them. `moved`: by module.
    """

    def __init__(self) -> None:
        self.producers: list[tuple[str, int]] = [("", 0)]
        self.made: dict[int, list[Made]] = defaultdict(list)
        self.pinned: dict[int, str] = {FIXED: "is not followed"}
        self.lost: dict[int, str] = {}
        self.starts: dict[int, list[Start]] = defaultdict(list)
        self.constants: dict[str, list[Constant]] = {}
        self.followers: set[int] = set()
        self.dense: dict[str, Dense] = {}
        self.widths: list[Width] = []
        self.cuts: dict[str, dict[int, list[int]]] = defaultdict(dict)
        self.moved: dict[str, Moved] = {}
        self._parents: list[int] = [FIXED]
        self._keys: dict[Hashable, int] = {}

    def root(self, slot: int) -> int:
        """The slot that stands for all that `slot` shares its fate with."""
        parents = self._parents
        while parents[slot] != slot:
            parents[slot] = parents[parents[slot]]
            slot = parents[slot]
        return slot

    def new(self, name: str, width: int) -> list[int]:
        """Slots of the channels that module `name` makes."""
        first = len(self._parents)
        self._parents += range(first, first + width)
        self.producers += [(name, c) for c in range(width)]
        return list(range(first, first + width))

    def tie(self, slots: Sequence[int]) -> int:
        """Let `slots` share one fate; what is fixed stays the root."""
        first = min(self.root(slot) for slot in slots)
        for slot in slots:
            self._parents[self.root(slot)] = first
        return first

    def pin(self, slots: Sequence[int], reason: str) -> None:
        for slot in slots:
            self.pinned.setdefault(slot, reason)

    def cut(self, tensor: str, axis: int, slots: list[int]) -> None:
        """`tensor` has one entry along `axis` for each of `slots`; used a second time, both uses are tied."""
        known = self.cuts[tensor].setdefault(axis, slots)
        self.tie_all(known, slots)

    def read(self, dense: Dense) -> None:
        """Note that `dense` runs; at a second run only what holds in both is kept."""
        known = self.dense.setdefault(dense.weight, dense)
        if known is dense:
            return
        self.tie_all(known.inputs.slots, dense.inputs.slots)
        same = known.inputs.values == dense.inputs.values
        known.inputs = Map(
            known.inputs.slots,
            torch.where(same, known.inputs.values, VARIES),
            list(zip(known.inputs.equal, dense.inputs.equal, strict=True)),
        )
        known.padded |= dense.padded
        if dense.takes != known.takes:
            known.takes = None

    def tie_all(self, some: Sequence[int], others: Sequence[int]) -> None:
        """Tie slots pairwise."""
        for a, b in zip(some, others, strict=True):
            if a != b:
                self.tie((a, b))

    def tie_rows(self, rows: Sequence[Sequence[int]], slots: Sequence[int]) -> None:
        """Tie the slots of the cells in each row."""
        for row in rows:
            self.tie([slots[cell] for cell in row])

    def add_made(self, slot: int, made: Made) -> None:
        if made not in self.made[slot]:
            self.made[slot].append(made)

    def add_start(self, slot: int, start: Start) -> None:
        if start not in self.starts[slot]:
            self.starts[slot].append(start)

    def key(self, facts: Hashable) -> int:
        """A number for `facts`, the same for equal ones."""
        return self._keys.setdefault(facts, len(self._keys))
