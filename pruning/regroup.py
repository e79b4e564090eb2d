"""Regrouping: a convolution whose live edges fall into equal blocks becomes a grouped one, the function stays.

In its place stand a selection of its inputs, the grouped convolution and a selection of its outputs, in a plain
`nn.Sequential`; a selection that would change nothing is left out, and without any the convolution alone stands there.
A Network becomes a Network again. The module given is never touched, so whatever fails, nothing has changed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pruning.edges import Edges, Map, Weighted, edges, frequencies, maps
from pruning.places import PruneError
from pruning.preflight import Count, checked, cost_of, runs
from pruning.proof import LIMIT, Proof, prove
from searchspace import architecture as language
from searchspace.architecture import Architecture, Chain, Node, map_leaves
from searchspace.cost import Cost
from searchspace.layers import Feature, OctaveConv, Select
from searchspace.network import Network, read_architecture

FORMAT = "regrouped/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A convolution that was regrouped: its groups before and after, and which of its channels were put in order.

    `relative_error`: of the convolution by itself on random maps, in float64.
    """

    name: str
    groups_before: int
    groups_after: int
    inputs_moved: bool
    outputs_moved: bool
    relative_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Regrouped:
    """What a regrouping made: `network` of the kind that was given, `changed` by layer, costs and proof.

    Where `tolerance` is above 0, edges that were not zero have left, and the proof's error is what that changed.
    """

    network: nn.Module
    changed: tuple[Change, ...]
    tolerance: float
    cost_before: Cost | Count
    cost_after: Cost | Count
    proof: Proof

    def to_json(self) -> dict[str, object]:
        """All but the network, as plain data."""
        return {
            "format": FORMAT,
            "tolerance": self.tolerance,
            "changed": [asdict(change) for change in self.changed],
            "cost_before": self.cost_before.values(),
            "cost_after": self.cost_after.values(),
            "proof": asdict(self.proof),
        }

    @property
    def words(self) -> str:
        """What happened, in a line."""
        if not self.changed:
            return "Nothing to regroup: the network is unchanged."
        before, after = self.cost_before.values(), self.cost_after.values()
        fell = ", ".join(f"{before[k]:,.0f} -> {after[k]:,.0f} {k}" for k in ("flops", "params") if k in before)
        error = f"relative error {self.proof.relative_error:.1e}."
        if self.tolerance:
            error = f"not exact, since edges up to {self.tolerance:g} of their layer's largest are dropped: {error}"
        return f"Regrouped {len(self.changed)} convolution{'s' if len(self.changed) > 1 else ''}: {fell}; {error}"


def regroup(
    module: nn.Module,
    example: Tensor | None = None,
    names: Collection[str] | None = None,
    *,
    tolerance: float = 0.0,
    seed: int = 0,
) -> Regrouped:
    """`module` with its convolutions in as many groups as their live edges allow; the function stays.

    `names` are the layers to regroup, all that can be where it is None. `example` is a tensor (batch, *input) that the
    module runs on; a Network needs none. Edges whose norm is at most `tolerance` times their layer's largest count as
    dead: above 0 the function changes, and the proof says by how much. Raises `PruneError` for a module with hooks or
    weights that are not finite, for names that cannot be regrouped, and where the proof fails.
    """
    size = checked(module, example, parametrized=True)
    changing = _chosen(module, tolerance, names)
    result, limit = copy.deepcopy(module), math.inf if tolerance else LIMIT
    aliases, changed = list(module.named_modules(remove_duplicate=False)), []
    for layer in changing:
        old = module.get_submodule(layer.name)
        new = _module(old, layer)
        changed.append(_change(layer, _layer_error(old, new, seed, limit)))
        for name in (name for name, other in aliases if other is old):
            if name:
                result.set_submodule(name, new)
            else:
                result = new
    if isinstance(module, Network):
        assert isinstance(result, Network)
        result.architecture = _architecture(module.architecture, changing)
        if read_architecture(result) != result.architecture:
            raise PruneError("A regrouped Network must be a Network again, but its architecture reads otherwise.")
    before, after = (copy.deepcopy(m).cpu().double() for m in (module, result))
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(seed)).double()
    heads = any(runs(m, x)[0] for m in (before, after))
    proof = prove(before, after, {}, size, heads=heads, seed=seed, limit=limit)
    return Regrouped(
        network=result,
        changed=tuple(changed),
        tolerance=tolerance,
        cost_before=cost_of(module, size),
        cost_after=cost_of(result, size),
        proof=proof,
    )


def _chosen(module: nn.Module, tolerance: float, names: Collection[str] | None) -> list[Edges]:
    """The layers that will change."""
    found = {layer.name: layer for layer in edges(module, tolerance)}
    if names is None:
        return [layer for layer in found.values() if layer.regroups]
    for name in names:
        if name not in found:
            known = ", ".join(found) or "none"
            raise PruneError(f"A name must be that of a convolution, but got {name!r}. There are: {known}.")
        if not found[name].regroups:
            why = found[name].obstacle or f"its live edges support no more than {found[name].groups_supported} groups"
            raise PruneError(f"{name} cannot be regrouped: {why}.")
    return [layer for layer in found.values() if layer.name in names]


def _orders(layer: Edges) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The inputs and the outputs, group after group; of an octave convolution high ones before low ones."""
    nodes = [node for order in layer.blocks.orders for node in order]
    inputs = len(layer.out_degree)
    return tuple(nodes[:inputs]), tuple(node - inputs for node in nodes[inputs:])


def _places(order: tuple[int, ...]) -> tuple[int, ...]:
    """Where each channel stands in `order`."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _moved(order: tuple[int, ...]) -> bool:
    return order != tuple(range(len(order)))


def _change(layer: Edges, error: float) -> Change:
    inputs, outputs = map(_moved, _orders(layer))
    return Change(
        name=layer.name,
        groups_before=layer.groups,
        groups_after=layer.groups_supported,
        inputs_moved=inputs,
        outputs_moved=outputs,
        relative_error=error,
    )


def _module(old: nn.Module, layer: Edges) -> nn.Module:
    """What stands for the convolution `old`."""
    assert isinstance(old, Weighted | OctaveConv)
    inputs, outputs = _orders(layer)
    (high_in, _), (high_out, _) = frequencies(old)
    new = copy.deepcopy(old)
    for part in maps(new):
        _group(
            part,
            layer.groups_supported,
            torch.tensor(inputs)[part.columns.start : part.columns.stop] - part.columns.start,
            torch.tensor(outputs)[part.rows.start : part.rows.stop] - part.rows.start,
        )
    steps: list[nn.Module] = [new]
    if _moved(inputs):
        steps.insert(0, Select(inputs, high_in))
    if _moved(outputs):
        steps.append(Select(_places(outputs), high_out))
    device = maps(old)[0].module.weight.device
    return new if len(steps) == 1 else nn.Sequential(*steps).to(device).train(old.training)


def _group(part: Map, groups: int, inputs: Tensor, outputs: Tensor) -> None:
    """Regroup a convolution in place; `inputs` and `outputs` are its channels, group after group."""
    conv, weight = part.module, part.module.weight
    assert not isinstance(conv, nn.Linear)
    read = inputs.view(groups, -1).repeat_interleave(len(outputs) // groups, 0)  # (outputs, inputs of a group)
    column = read - (part.firsts() - part.columns.start)[outputs, None]  # where the old weight has it
    there = (column >= 0) & (column < weight.shape[1])
    rows, column, there = (t.to(weight.device) for t in (outputs[:, None], column.clamp(0, weight.shape[1] - 1), there))
    slices = weight.detach()[rows, column]
    slices = torch.where(there[(..., *(None,) * (weight.dim() - 2))], slices, 0)
    conv.weight = nn.Parameter(slices, requires_grad=weight.requires_grad)
    if conv.bias is not None:
        bias = conv.bias.detach()[rows[:, 0]]
        conv.bias = nn.Parameter(bias, requires_grad=conv.bias.requires_grad)
    conv.groups = groups


def _architecture(architecture: Architecture, changing: Collection[Edges]) -> Architecture:
    layers = {layer.name: layer for layer in changing}
    change: dict[tuple[int, ...], Node] = {}
    for site in architecture.sites:
        if site.name in layers:
            layer = layers[site.name]
            assert isinstance(site.leaf, language.Conv)
            conv = replace(site.leaf, groups=layer.groups_supported)
            inputs, outputs = _orders(layer)
            before = (language.Select(inputs),) if _moved(inputs) else ()
            after = (language.Select(_places(outputs)),) if _moved(outputs) else ()
            change[site.index] = Chain((*before, conv, *after)) if before or after else conv
    body = map_leaves(architecture.body, change)
    assert isinstance(body, Chain)
    return Architecture(architecture.input, body)


def _outputs(module: nn.Module, x: Feature, seed: int) -> list[Tensor]:
    """Every tensor that `module` puts out for `x`."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            y = module(x)
        except Exception as error:
            shape = " and ".join(str(tuple(t.shape)) for t in tree_leaves(x) if t is not None)
            raise PruneError(f"The module must run on inputs of {shape} in float64, but {error}") from error
    outputs = [leaf for leaf in tree_leaves(y) if isinstance(leaf, Tensor)]
    if not outputs:
        raise PruneError(
            f"The module must put out a tensor, or tensors in tuples and dicts, but got {type(y).__name__}."
        )
    return outputs


def _layer_error(old: nn.Module, new: nn.Module, seed: int, limit: float) -> float:
    """How far a layer and what stands for it are apart on random maps, relative to the largest output.

    In a whole network a wrong channel can drown: behind a constant, or a layer that hardly counts.
    """
    assert isinstance(old, Weighted | OctaveConv)
    conv = maps(old)[0].module
    assert not isinstance(conv, nn.Linear)
    pads = (0,) * len(conv.stride) if isinstance(conv.padding, str) else conv.padding
    strides = old.stride if isinstance(old, OctaveConv) else conv.stride
    windows = zip(conv.kernel_size, conv.dilation, strides, pads, strict=True)
    space = [2 * max(d * (k - 1) + s, p + 1) for k, d, s, p in windows]  # even: low maps have half the image axes
    half = [*space[:-2], *(size // 2 for size in space[-2:])]
    rng = torch.Generator().manual_seed(seed)
    widths, _ = frequencies(old)
    high, low = (
        torch.randn(2, width, *size, generator=rng, dtype=torch.float64) if width else None
        for width, size in zip(widths, (space, half))
    )
    x: Feature = (high, low) if high is None or low is not None else high
    wanted, got = (_outputs(copy.deepcopy(module).cpu().double().eval(), x, seed) for module in (old, new))
    return _apart(wanted, got, limit)[1]


def _apart(wanted: list[Tensor], got: list[Tensor], limit: float) -> tuple[float, float]:
    """(largest difference, relative to the largest value); raises `PruneError` above `limit`, or at NaN."""
    a, b = (torch.cat([tensor.flatten().double() for tensor in tensors]) for tensors in (wanted, got))
    if a.shape != b.shape:
        raise PruneError(f"What is regrouped must put out as much as before, {len(a)} values, but got {len(b)}.")
    apart, scale = (a - b).abs().max().item(), a.abs().max().item()
    relative = apart / scale if scale else apart
    if not relative <= limit:
        raise PruneError(f"What is regrouped must equal the original to {limit:g}, but is {relative:.3g} apart.")
    return apart, relative
