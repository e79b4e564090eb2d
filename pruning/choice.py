"""Which slots leave: those constant or unread wherever weights read them, as far as legal widths allow.

Groups keep equal counts and at least one channel each; where zero padding borders a non-zero constant, one constant
channel of the group stays to carry the others. Most channels leave: a small integer program finds them, since a slot
may stand in many widths at once (a shuffle between grouped convolutions; putting channels back one by one until
all widths are legal can put back every one of them).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import torch
from scipy.optimize import Bounds, LinearConstraint, milp  # type: ignore[import-untyped]
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from torch import Tensor

from pruning.flow import Dense, Flow
from pruning.weights import parts
from searchspace.leaves import Select

SECONDS = 10.0  # for one integer program; it takes milliseconds, and what it has by then is legal, too


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
    """The slots that can leave exactly. Those that leave may leave others unread: repeated till there are none."""
    widths, everything = list(_widths(flow)), {flow.root(slot) for slot in range(len(flow.producers))}
    removed: frozenset[int] = frozenset()
    stays: dict[int, str] = {}
    for _ in range(len(flow.dense) + 1):
        blocked = _blocked(flow, removed)
        candidates = frozenset(everything - blocked.keys())
        most = _most(flow, widths, candidates, removed)
        stays = blocked | _reasons(flow, widths, candidates - most, most)
        if most == removed:
            break
        removed = most
    return Choice(removed, stays)


def read(flow: Flow, dense: Dense, removed: frozenset[int]) -> Tensor:
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


def _most(flow: Flow, widths: list[_Width], candidates: frozenset[int], fixed: frozenset[int]) -> frozenset[int]:
    """The most `candidates` that can leave together, `fixed` ones among them: a small integer program.

    Every group of a width loses as many as the others and keeps one; a non-zero constant leaves a group before zero
    padding only if a sure one of that group stays.
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

    for width in widths:
        leaving = [Counter(number[root] for root in group if root in number) for group in width.groups]
        for group, count in zip(width.groups, leaving, strict=True):
            rule(dict(count), -inf, len(group) - 1)
        for count in leaving[1:]:
            rule({i: count[i] - leaving[0][i] for i in count | leaving[0] if count[i] != leaving[0][i]}, 0, 0)
    for dense, place in _borders(flow):
        heavy, sure = _constants(flow, dense, place, fixed)
        if all(root in number for root in sure):
            for root in (root for root in heavy if root in number):
                weights = dict.fromkeys((number[r] for r in sure), 1.0)
                weights[number[root]] = weights.get(number[root], 0.0) + 1
                rule(weights, -inf, len(sure))
    sizes = Counter(flow.root(slot) for slot in range(len(flow.producers)))
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


def _borders(flow: Flow) -> Iterator[tuple[Dense, slice]]:
    """Each group of channels that is read through zero padding."""
    for dense in flow.dense.values():
        if dense.padded:
            yield from ((dense, group) for groups in dense.groups("columns") for group in groups)


def _constants(flow: Flow, dense: Dense, place: slice, removed: frozenset[int]) -> tuple[set[int], set[int]]:
    """Roots of the non-zero constants in `place`: those that are read, and those sure for every input."""
    roots = [flow.root(slot) for slot in dense.inputs.slots[place]]
    wanted = read(flow, dense, removed) & (dense.inputs.values != 0) & ~dense.inputs.values.isnan()
    certain = dense.certain.nan_to_num(0.0) != 0
    heavy = {root for root, here in zip(roots, wanted[place].tolist(), strict=True) if here}
    return heavy, {root for root, here in zip(roots, certain[place].tolist(), strict=True) if here}


def _reasons(flow: Flow, widths: list[_Width], roots: frozenset[int], removed: frozenset[int]) -> dict[int, str]:
    """Why each of `roots`, which could leave by itself, stays when `removed` leave."""
    reasons: dict[int, str] = {}
    for dense, place in _borders(flow):
        heavy, sure = _constants(flow, dense, place, removed)
        last = sure if len(sure - removed) == 1 else set[int]()
        for root in (heavy - sure | last) & roots:
            carries = root in last and heavy & removed
            rule = (
                "carries its group's constants past the zero padding of"
                if carries
                else "is not zero where zeros are padded in"
            )
            reasons.setdefault(root, f"{rule} {dense.name}")
    for width in widths:
        rule = "needs as many channels in every group" if len(width.groups) > 1 else "keeps at least one channel"
        for group in width.groups:
            stay = set(group) - removed
            if len(stay) == 1 and len(width.groups) > 1:
                rule = "keeps at least one channel in each group"
            if len(stay) == 1 or len(width.groups) > 1:
                for root in stay & roots:
                    reasons.setdefault(root, f"{width.name} {rule}")
    return {root: reasons.get(root, "may leave only with others that stay") for root in roots}
