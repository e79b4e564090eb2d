"""Which slots leave: those constant or unread wherever weights read them, as far as legal widths allow.

Groups keep equal counts and at least one channel each; where zero padding borders a non-zero constant, one constant
channel of the group stays to carry the others. What must stay for such a rule is chosen so that few stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.flow import Dense, Flow
from pruning.narrow import carried
from pruning.weights import parts
from searchspace.leaves import Select


@dataclass(frozen=True, slots=True)
class Choice:
    """Roots of the slots that leave, and of those that stay with the reason."""

    removed: frozenset[int]
    stays: dict[int, str]


@dataclass(frozen=True, slots=True)
class _Width:
    """A width of the module `name`: the same count of slots (roots, listed by group) must leave every group."""

    name: str
    groups: list[list[int]]


def choose(flow: Flow) -> Choice:
    """The slots that can leave `flow`'s network exactly. A slot that leaves may leave others unread: repeated till none."""
    widths, everything = list(_widths(flow)), {flow.root(slot) for slot in range(len(flow.producers))}
    removed: frozenset[int] = frozenset()
    stays: dict[int, str] = {}
    for _ in range(len(flow.dense) + 1):
        blocked = _blocked(flow, removed)
        settling = _Settling(flow, widths, everything - blocked.keys(), removed)
        stays = settling.run() | blocked
        if settling.removed == removed:
            break
        removed = frozenset(settling.removed)
    return Choice(removed, stays)


def read(flow: Flow, dense: Dense, removed: frozenset[int] | set[int]) -> Tensor:
    """(inputs,): whether a weight other than 0 reads the channel for an output that stays and matters."""
    live = torch.tensor([flow.root(slot) not in removed for slot in dense.outputs.slots], dtype=torch.bool)
    if dense.norm is not None:
        for _, part, channels in parts(dense.norm, flow.network.get_submodule(dense.norm)):
            scale = part.weight
            assert isinstance(scale, Tensor)
            live[channels.start : channels.stop] &= (scale.detach() != 0).cpu()
    found = torch.zeros(len(dense.inputs.slots), dtype=torch.bool)
    for path in dense.paths:
        rows = slice(path.rows.start, path.rows.stop)
        found[path.columns.start : path.columns.stop] |= path.used[live[rows]].any(0)
    return found


def _blocked(flow: Flow, removed: frozenset[int]) -> dict[int, str]:
    """Slots that something needs, by root."""
    blocked = {flow.root(slot): reason for slot, reason in flow.pinned.items()}
    for dense in flow.dense.values():
        varying = read(flow, dense, removed) & dense.inputs.values.isnan()
        for c in varying.nonzero().flatten().tolist():
            blocked.setdefault(flow.root(dense.inputs.slots[c]), f"varies where {dense.name} reads it")
    return blocked


def _widths(flow: Flow) -> Iterator[_Width]:
    for dense in flow.dense.values():
        for x, ends in ((dense.inputs, dense.groups("columns")), (dense.outputs, dense.groups("rows"))):
            for groups in ends:
                yield _Width(dense.name, [[flow.root(slot) for slot in x.slots[group]] for group in groups])
    for site in flow.architecture.sites:
        if isinstance(site.leaf, Select):
            after = flow.after[site.name]
            roots = [flow.root(slot) for slot in after.slots]
            yield from (_Width(site.name, [part]) for part in (roots[: after.high], roots[after.high :]) if part)


class _Settling:
    """Slots go back, one by one, from `candidates` until every width is legal; those of `fixed` never do."""

    def __init__(self, flow: Flow, widths: list[_Width], candidates: set[int], fixed: frozenset[int]) -> None:
        self.flow, self.widths, self.fixed = flow, widths, fixed
        self.removed = set(candidates) | fixed
        self.stays: dict[int, str] = {}
        self.padded = [dense for dense in flow.dense.values() if dense.padded]
        self.members: dict[int, Counter[tuple[int, int]]] = {}
        for w, width in enumerate(widths):
            for g, group in enumerate(width.groups):
                for root in group:
                    self.members.setdefault(root, Counter())[w, g] += 1
        self.weight: dict[int, float] = {}  # the largest constant a slot could carry past a border
        for dense in self.padded:
            for slot, value in zip(dense.inputs.slots, dense.certain.nan_to_num(0.0).abs().tolist(), strict=True):
                self.weight[flow.root(slot)] = max(value, self.weight.get(flow.root(slot), 0.0))

    def run(self) -> dict[int, str]:
        """Why slots went back, by root. Ends since each pass but the last puts one back."""
        while self._balance() or self._carry():
            pass
        return self.stays

    def _restore(self, root: int, reason: str) -> None:
        self.removed.discard(root)
        self.stays[root] = reason

    def _balance(self) -> bool:
        """Put back what a group lost more of than it may; first what helps most widths at once."""
        counts = [[sum(root in self.removed for root in group) for group in width.groups] for width in self.widths]

        def over(w: int, g: int) -> int:
            return counts[w][g] - min(*counts[w], len(self.widths[w].groups[g]) - 1)

        excess = {(w, g): over(w, g) for w in range(len(counts)) for g in range(len(counts[w]))}
        groups = [place for place, n in excess.items() if n > 0]
        scores: Counter[int] = Counter()
        for w, g in groups:
            for root in set(self.widths[w].groups[g]) & self.removed - self.fixed:
                scores[root] = sum(max(0, excess[place]) for place in self.members[root])
        for root in sorted(scores, key=lambda r: (-scores[r], -self.weight.get(r, 0.0), r)):
            places = [place for place in self.members[root] if over(*place) > 0]
            if places:
                width = self.widths[places[0][0]]
                alone = counts[places[0][0]][places[0][1]] == len(width.groups[places[0][1]])
                rule = "keeps at least one channel" if alone else "needs as many channels in every group"
                self._restore(root, f"{width.name} {rule}{' in each group' if alone and len(width.groups) > 1 else ''}")
                for (w, g), n in self.members[root].items():
                    counts[w][g] -= n
        return bool(scores)

    def _carry(self) -> bool:
        """Where non-zero constants leave a group before zero padding, see that a sure one stays to carry them."""
        before = len(self.removed)
        for dense in self.padded:
            roots = [self.flow.root(slot) for slot in dense.inputs.slots]
            gone = torch.tensor([root in self.removed for root in roots], dtype=torch.bool)
            free = torch.tensor([root not in self.fixed for root in roots], dtype=torch.bool)
            leaving = gone & read(self.flow, dense, self.removed) & (dense.inputs.values != 0)
            sure = torch.where(gone & free, dense.certain.nan_to_num(0.0), 0.0).abs()
            for place in (group for groups in dense.groups("columns") for group in groups):
                if not leaving[place].any() or carried(dense, gone, place) is not None:
                    continue
                if sure[place].any():
                    carrier = place.start + int(sure[place].argmax())
                    self._restore(roots[carrier], f"carries its group's constants past the zero padding of {dense.name}")
                else:
                    for c in (leaving & free)[place].nonzero().flatten().tolist():
                        self._restore(roots[place.start + c], f"is not zero where {dense.name} pads with zeros")
        return len(self.removed) < before
