"""Which slots leave: those that weights can do without wherever they read them, as far as legal widths allow.

A channel can be done without where it is constant, or equal to one that stays in the same group. Groups keep equal
counts and at least one channel each; where zero padding borders a non-zero constant, one constant channel of the
group stays to carry the others. Most channels leave: a small integer program finds them, since a slot may stand in
many widths at once (a shuffle between grouped convolutions; putting channels back one by one until all widths are
legal can put back every one of them).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from math import inf

import torch
from scipy.optimize import Bounds, LinearConstraint, milp  # type: ignore[import-untyped]
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from torch import Tensor, nn

from pruning.graph import Dense, Graph, Width

SECONDS = 10.0  # for one integer program; it takes milliseconds, and what it has by then is legal, too


@dataclass(frozen=True, slots=True)
class Choice:
    """Roots of the slots that leave, and of those that stay with the reason."""

    removed: frozenset[int]
    stays: dict[int, str]


class Chooser:
    """The search for what leaves `graph`; with `merge`, channels that equal others leave, too."""

    def __init__(self, graph: Graph, module: nn.Module, merge: bool = True) -> None:
        self.graph, self.merge = graph, merge
        self.roots = [graph.root(slot) for slot in range(len(graph.producers))]
        self.widths = list(self._widths())
        self.scales: dict[str, Tensor] = {}
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for dense in graph.dense.values():
            if dense.norm is not None and dense.norm.scale is not None:
                self.scales[dense.weight] = (tensors[dense.norm.scale].detach() != 0).cpu()
        self.twins = {dense.weight: list(self._twins(dense)) for dense in graph.dense.values()} if merge else {}

    def choose(self) -> Choice:
        """The slots that can leave exactly. Those that leave may leave others unread: repeated till there are none."""
        everything = set(self.roots)
        removed: frozenset[int] = frozenset()
        stays: dict[int, str] = {}
        for _ in range(len(self.graph.dense) + 1):
            reads = {dense.weight: self.read(dense, removed) for dense in self.graph.dense.values()}
            blocked = self._blocked(reads)
            candidates = frozenset(everything - blocked.keys())
            most = self._most(candidates, removed, reads)
            stays = blocked | self._reasons(candidates - most, most, reads)
            if most == removed:
                break
            removed = most
        return Choice(removed, stays)

    def gone(self, slots: list[int], removed: frozenset[int]) -> Tensor:
        return torch.tensor([self.roots[slot] in removed for slot in slots], dtype=torch.bool)

    def read(self, dense: Dense, removed: frozenset[int]) -> Tensor:
        """(inputs,): whether a weight other than 0 reads the channel for an output that stays and matters."""
        live = ~self.gone(dense.outputs, removed)
        if dense.weight in self.scales:
            live &= self.scales[dense.weight]
        return dense.used[live].any(0)

    def _twins(self, dense: Dense) -> Iterator[list[int]]:
        """Inputs of `dense` that are equal for every input, group by group; of a flattened map, place by place."""
        for _, columns in dense.blocks():
            alike: dict[Hashable, list[int]] = defaultdict(list)
            turns: Counter[tuple[int, Hashable]] = Counter()
            for c in range(columns.start, columns.stop):
                slot, key = dense.inputs.slots[c], dense.inputs.equal[c]
                turns[slot, key] += 1
                if key is not None and not (isinstance(key, tuple) and None in key):
                    alike[key, turns[slot, key]].append(c)
            yield from (same for same in alike.values() if len({self.roots[dense.inputs.slots[c]] for c in same}) > 1)

    def _twin(self, dense: Dense) -> dict[int, list[int]]:
        """For each input the other inputs that equal it."""
        return {c: [d for d in same if d != c] for same in self.twins.get(dense.weight, ()) for c in same}

    def _blocked(self, reads: dict[str, Tensor]) -> dict[int, str]:
        """Slots that something needs, by root."""
        blocked = {self.roots[slot]: reason for slot, reason in self.graph.pinned.items()}
        for dense in self.graph.dense.values():
            twin = self._twin(dense)
            varying = reads[dense.weight] & dense.inputs.values.isnan()
            for c in varying.nonzero().flatten().tolist():
                if c not in twin:
                    blocked.setdefault(self.roots[dense.inputs.slots[c]], f"varies where {dense.name} reads it")
            if dense.norm is None and dense.takes is None and not dense.padded:
                heavy = reads[dense.weight] & (dense.inputs.values.nan_to_num(0.0) != 0)
                for c in heavy.nonzero().flatten().tolist():
                    reason = f"is a constant that {dense.weight} has no bias of its own to take"
                    blocked.setdefault(self.roots[dense.inputs.slots[c]], reason)
        return blocked

    def _widths(self) -> Iterator[Width]:
        for dense in self.graph.dense.values():
            blocks = dense.blocks()
            for slots, places in (
                (dense.inputs.slots, [c for _, c in blocks]),
                (dense.outputs, [r for r, _ in blocks]),
            ):
                yield Width(dense.name, [[self.roots[s] for s in slots[place]] for place in places])
        for name, moved in self.graph.moved.items():
            for part in moved.after:
                yield Width(name, [[self.roots[s] for s in part]])
        for width in self.graph.widths:
            yield Width(width.name, [[self.roots[s] for s in part] for part in width.groups])

    def _most(self, candidates: frozenset[int], fixed: frozenset[int], reads: dict[str, Tensor]) -> frozenset[int]:
        """The most `candidates` that can leave together, `fixed` ones among them: a small integer program.

        Every group of a width loses as many as the others and keeps one; a channel that another must stand in for
        leaves only if one of those stays.
        """
        if not candidates:
            return frozenset()
        number = {root: i for i, root in enumerate(sorted(candidates))}
        rows: list[dict[int, float]] = []  # each: at most `most`, at least `least`, of the sum of weight * leaves
        least: list[float] = []
        most: list[float] = []

        def rule(weights: dict[int, float], low: float, high: float) -> None:
            if weights:
                rows.append(weights)
                least.append(low)
                most.append(high)

        for width in self.widths:
            leaving = [Counter(number[root] for root in group if root in number) for group in width.groups]
            for group, count in zip(width.groups, leaving, strict=True):
                rule(dict(count), -inf, len(group) - 1)
            for count in leaving[1:]:
                rule({i: count[i] - leaving[0][i] for i in count | leaving[0] if count[i] != leaving[0][i]}, 0, 0)
        for root, others in self._needs(reads):
            if root in number and all(other in number for other in others):
                weights = dict.fromkeys((number[other] for other in others), 1.0)
                weights[number[root]] = weights.get(number[root], 0.0) + 1
                rule(weights, -inf, len(others))
        sizes = Counter(self.roots)
        matrix = coo_array(
            (
                [weight for weights in rows for weight in weights.values()],
                ([r for r, weights in enumerate(rows) for _ in weights], [i for weights in rows for i in weights]),
            ),
            shape=(len(rows), len(number)),
        )
        solved = milp(
            [-sizes[root] for root in number],
            integrality=1,
            bounds=Bounds([float(root in fixed) for root in number], 1),
            constraints=LinearConstraint(matrix, least, most),
            options={"time_limit": SECONDS},
        )
        if solved.x is None:
            return fixed
        return frozenset(root for root, i in number.items() if solved.x[i] > 0.5)

    def _needs(self, reads: dict[str, Tensor]) -> set[tuple[int, frozenset[int]]]:
        """(root, those of which one must stay for it to leave)."""
        found = set()
        for dense, place in self._borders():
            heavy, sure = self._constants(dense, place, reads)
            found |= {(root, frozenset(sure)) for root in heavy}
        for dense in self.graph.dense.values():
            roots = [self.roots[slot] for slot in dense.inputs.slots]
            wanted = reads[dense.weight] & dense.inputs.values.isnan()
            for c, others in self._twin(dense).items():
                if wanted[c]:
                    found.add((roots[c], frozenset(roots[other] for other in others)))
        return found

    def _borders(self) -> Iterator[tuple[Dense, slice]]:
        """Each group of channels that is read through zero padding."""
        for dense in self.graph.dense.values():
            if dense.padded:
                yield from ((dense, columns) for _, columns in dense.blocks())

    def _constants(self, dense: Dense, place: slice, reads: dict[str, Tensor]) -> tuple[set[int], set[int]]:
        """Roots of the non-zero constants in `place`: those that are read, and those sure for every input."""
        roots = [self.roots[slot] for slot in dense.inputs.slots[place]]
        wanted = reads[dense.weight] & (dense.inputs.values != 0) & ~dense.inputs.values.isnan()
        certain = dense.certain.nan_to_num(0.0) != 0
        heavy = {root for root, here in zip(roots, wanted[place].tolist(), strict=True) if here}
        return heavy, {root for root, here in zip(roots, certain[place].tolist(), strict=True) if here}

    def _reasons(self, roots: frozenset[int], removed: frozenset[int], reads: dict[str, Tensor]) -> dict[int, str]:
        """Why each of `roots`, which could leave by itself, stays when `removed` leave."""
        reasons: dict[int, str] = {}
        for dense, place in self._borders():
            heavy, sure = self._constants(dense, place, reads)
            last = sure if len(sure - removed) == 1 else set[int]()
            for root in (heavy - sure | last) & roots:
                carries = root in last and heavy & removed
                rule = (
                    "carries its group's constants past the zero padding of"
                    if carries
                    else "is not zero where zeros are padded in"
                )
                reasons.setdefault(root, f"{rule} {dense.name}")
        for width in self.widths:
            rule = "needs as many channels in every group" if len(width.groups) > 1 else "keeps at least one channel"
            for group in width.groups:
                stay = set(group) - removed
                if len(stay) == 1 and len(width.groups) > 1:
                    rule = "keeps at least one channel in each group"
                if len(stay) == 1 or len(width.groups) > 1:
                    for root in stay & roots:
                        reasons.setdefault(root, f"{width.name} {rule}")
        return {root: reasons.get(root, "may leave only with others that stay") for root in roots}
