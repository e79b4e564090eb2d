"""Exact removal of dead and constant channels: what is constant leaves, the function stays.

A narrower copy is derived (`trace`, `choice`, `cut`) and handed out only with its proof; the module given is never
touched, so whatever fails, nothing has changed. What is constant and stays is named, with the reason.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import isnan

import torch
from torch import Tensor, nn

from pruning.channels import Names
from pruning.choice import Choice, Chooser
from pruning.cut import Cuts, narrow, tidied
from pruning.graph import Constant, Graph, Made
from pruning.places import Observed, PruneError, evaluating, observe
from pruning.preflight import Count, checked, copied, cost_of, fitting, runs
from pruning.proof import Proof, prove
from pruning.trace import trace
from searchspace.architecture import Architecture
from searchspace.cost import Cost
from searchspace.factory import one_line
from searchspace.network import Network, read_architecture

FORMAT = "pruned/1"
SECONDS = 600.0
SLOW = 0.5  # seconds that a run on two inputs takes, above which the proof takes fewer of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A `constant` channel that stays, and the `reason`."""

    constant: Constant
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a removal made.

    `network`: a Network of a Network, else a module of the class that was given. `removed`: by the module that made
    them (a convolution, a linear layer), channels of the original, the value that was read of each, and why. `kept`:
    by the module where they are constant, those that stay. `cuts`: what stayed of each tensor.
    """

    network: nn.Module
    removed: dict[str, tuple[Constant, ...]]
    kept: dict[str, tuple[Kept, ...]]
    cost_before: Cost | Count
    cost_after: Cost | Count
    proof: Proof
    cuts: Cuts

    @property
    def architecture(self) -> Architecture:
        """Of a Network."""
        return read_architecture(self.network)

    def to_json(self) -> dict[str, object]:
        """All but the network, as plain data."""
        return {
            "format": FORMAT,
            "removed": {name: [asdict(c) for c in found] for name, found in self.removed.items()},
            "kept": {name: [asdict(k) for k in found] for name, found in self.kept.items()},
            "cost_before": {name: int(count) for name, count in self.cost_before.values().items()},
            "cost_after": {name: int(count) for name, count in self.cost_after.values().items()},
            "proof": asdict(self.proof),
        }

    @property
    def words(self) -> str:
        """What happened, in a line."""
        stay = sum(map(len, self.kept.values()))
        rest = f"; {stay} constant channels stay" if stay else ""
        if not self.removed:
            return f"Nothing to remove: the network is unchanged{rest}."
        before, after, many = self.cost_before, self.cost_after, "s" if len(self.removed) > 1 else ""
        flops = f"{before.flops:,} -> {after.flops:,} flops, " if before.flops and after.flops else ""
        return (
            f"Removed {sum(map(len, self.removed.values()))} channels from {len(self.removed)} layer{many}: "
            f"{flops}{before.params:,} -> {after.params:,} params{rest}. "
            f"Relative error {self.proof.relative_error:.1e}."
        )


def remove_dead(
    network: nn.Module,
    batches: Iterable[Tensor] | None = None,
    *,
    example: Tensor | None = None,
    proof_inputs: Iterable[Tensor] = (),
    seed: int = 0,
    seconds: float = SECONDS,
) -> Pruned:
    """`network` without its dead, constant and doubled channels; the function stays, in evaluation mode.

    `network` is a Network, or any module that runs on inputs of the shape of `example`: (batch, channels, *space).
    Without `batches` only what the weights prove for every input leaves. With them (tensors of (batch, channels,
    *space), all held at once) also what is constant on all of them: the result is exact on those, and the proof says
    so. The proof runs on fresh inputs drawn from `seed`, on `proof_inputs` and on `batches`. The result has the
    precision, device and mode of `network`. Raises `PruneError` for a module that cannot be followed, for weights
    that are not finite, for batches of another shape, where the proof fails, and after `seconds`; `network` is
    untouched.
    """
    until = time.monotonic() + seconds
    size = checked(network, example)
    data = None if batches is None else [fitting(x, size).double().cpu() for x in batches]
    more = [fitting(x, size).double().cpu() for x in proof_inputs]
    plain = copied(network)
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    heads, took = runs(plain, x)
    seen = None if data is None else observe(plain, data, heads, until)
    failure: PruneError | None = None
    for rigid in (False, True):
        graph, sure = _graphs(plain, x, heads, seen, rigid, until)
        chooser = Chooser(graph, plain, merge=not rigid)
        choice = chooser.choose()
        try:
            pruned, cuts, merged = _narrowed(plain, graph, chooser, choice, x, heads)
            silence, observed = _silence(graph, sure, choice, merged)
            proof = prove(
                plain,
                pruned,
                silence,
                size,
                everywhere=not observed,
                heads=heads,
                data=data or (),
                more_inputs=more,
                seed=seed,
                few=took > SLOW,
                until=until,
            )
        except PruneError as error:
            failure = failure or error
            continue
        before, after = (cost_of(m, size) for m in (plain, pruned))
        return Pruned(
            network=_like(network, pruned),
            removed=_removed(graph, choice, merged, plain),
            kept=_kept(graph, choice, plain),
            cost_before=before,
            cost_after=after,
            proof=proof,
            cuts=cuts,
        )
    assert failure is not None
    raise failure


def _graphs(
    plain: nn.Module, x: Tensor, heads: bool, seen: Observed | None, rigid: bool, until: float
) -> tuple[Graph, Graph]:
    """(with what was seen, without): the second holds for every input."""
    sure = trace(plain, x, heads=heads, rigid=rigid, until=until)
    graph = sure if seen is None else trace(plain, x, heads=heads, seen=seen, rigid=rigid, until=until)
    for name, dense in graph.dense.items():
        dense.certain = sure.dense[name].inputs.values
    return graph, sure


def _narrowed(
    plain: nn.Module, graph: Graph, chooser: Chooser, choice: Choice, x: Tensor, heads: bool
) -> tuple[nn.Module, Cuts, dict[int, int]]:
    """The narrow module in float64, once it has run."""
    pruned = copy.deepcopy(plain)
    cuts, merged = narrow(pruned, graph, chooser, choice)
    try:
        if isinstance(pruned, Network):
            pruned = tidied(pruned)
        for with_heads in (False, True) if heads else (False,):
            with evaluating(pruned, heads=with_heads):
                pruned(x.clone())
    except Exception as error:  # whatever code that is not ours raises
        raise PruneError(f"The narrower network must run as the one given does, but: {one_line(error)}") from error
    return pruned, cuts, merged


def _like(network: nn.Module, pruned: nn.Module) -> nn.Module:
    """`pruned` with the precision, device and mode of `network`."""
    like = next(t for t in network.state_dict().values() if t.is_floating_point())
    modes = {name: part.training for name, part in network.named_modules()}
    for name, part in pruned.named_modules():
        part.training = modes.get(name, network.training)
    return pruned.to(like.device, like.dtype)


def _shared(graph: Graph, choice: Choice) -> dict[int, list[int]]:
    """The slots that leave, as numbered, by root."""
    shared: dict[int, list[int]] = defaultdict(list)
    for slot in range(len(graph.producers)):
        if graph.root(slot) in choice.removed:
            shared[graph.root(slot)].append(slot)
    return shared


def _silence(graph: Graph, sure: Graph, choice: Choice, merged: Mapping[int, int]) -> tuple[dict[Made, float], bool]:
    """The channels to silence in the original, where they become constant; whether one was only observed so.

    A slot that no weight reads is silenced, to 0, where it is made; one that equals another goes on as it is.
    """
    silence: dict[Made, float] = {}
    observed = False
    for root, slots in _shared(graph, choice).items():
        starts = [start for slot in slots for start in graph.starts.get(slot, ())]
        proved = {start.made for slot in slots for start in sure.starts.get(slot, ())}
        for start in starts:
            assert start.constant.value is not None
            silence[start.made] = start.constant.value
            observed |= start.made not in proved
        if not starts and root not in merged:
            for slot in slots:
                for made in graph.made[slot]:
                    silence[made] = 0.0
    return silence, observed


def _removed(
    graph: Graph, choice: Choice, merged: Mapping[int, int], module: nn.Module
) -> dict[str, tuple[Constant, ...]]:
    values: dict[int, float] = {}
    for dense in graph.dense.values():
        for slot, read in zip(dense.inputs.slots, dense.inputs.values.tolist(), strict=True):
            if not isnan(read):
                values.setdefault(graph.root(slot), read)
    names, removed = Names(module), dict[str, dict[int, Constant]]()
    for root, slots in _shared(graph, choice).items():
        group = [start for slot in slots for start in graph.starts.get(slot, ())]
        for slot in slots:
            if slot in graph.followers:
                continue
            name, channel = names(*graph.producers[slot])
            start = next(iter(graph.starts.get(slot, group)), None)
            value: float | None = values.get(root, 0.0)
            cause, at = ("read by no weight", name)
            if start is not None:
                cause, at = start.constant.cause, names(start.constant.at, start.constant.channel)[0]
            elif root in merged:
                other, number = names(*graph.producers[merged[root]])
                value, cause = None, f"equals channel {number} of {other}"
            constant = Constant(channel=channel, value=value, cause=cause, at=at)
            removed.setdefault(name, {}).setdefault(channel, constant)
    return {name: tuple(found[c] for c in sorted(found)) for name, found in removed.items()}


def _kept(graph: Graph, choice: Choice, module: nn.Module) -> dict[str, tuple[Kept, ...]]:
    names, kept = Names(module), dict[str, list[Kept]]()
    for slot, starts in graph.starts.items():
        root = graph.root(slot)
        if root in choice.removed or slot in graph.followers:
            continue
        reason = choice.stays[root]
        if reason.startswith("varies"):
            reason = graph.lost.get(slot, reason)
        for start in starts:
            at, channel = names(start.constant.at, start.constant.channel)
            constant = Constant(channel=channel, value=start.constant.value, cause=start.constant.cause, at=at)
            kept.setdefault(at, []).append(Kept(constant=constant, reason=reason))
    return {name: tuple(sorted(found, key=lambda k: k.constant.channel)) for name, found in kept.items()}
