"""Exact removal of dead and constant channels: what is constant leaves, the function stays.

A new network is derived (`choice`, `narrow`) and handed out only with its proof; the network given is never touched,
so whatever fails, nothing has changed. What is constant and stays is named, with the reason.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isnan

from torch import Tensor, nn

from pruning.channels import observe
from pruning.choice import Choice, choose
from pruning.flow import Constant, Flow
from pruning.narrow import without
from pruning.proof import Proof, PruneError, prove
from searchspace.architecture import Architecture, ArchitectureError
from searchspace.cost import Cost, cost
from searchspace.network import Network, build, read_architecture

FORMAT = "pruned/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A `constant` channel that stays, and the `reason`."""

    constant: Constant
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a removal made.

    `removed`: by the module that made them (a convolution, a linear layer, a squeeze), channels of the original,
    the value that was read of each, and why. `kept`: by the module where they are constant, those that stay.
    """

    network: Network
    removed: dict[str, tuple[Constant, ...]]
    kept: dict[str, tuple[Kept, ...]]
    cost_before: Cost
    cost_after: Cost
    proof: Proof

    @property
    def architecture(self) -> Architecture:
        return self.network.architecture

    def to_json(self) -> dict[str, object]:
        """All but the network, as plain data."""
        return {
            "format": FORMAT,
            "removed": {name: [asdict(c) for c in found] for name, found in self.removed.items()},
            "kept": {name: [asdict(k) for k in found] for name, found in self.kept.items()},
            "cost_before": asdict(self.cost_before),
            "cost_after": asdict(self.cost_after),
            "proof": asdict(self.proof),
        }

    @property
    def words(self) -> str:
        """What happened, in a line."""
        stay = sum(map(len, self.kept.values()))
        rest = f"; {stay} constant channels stay" if stay else ""
        if not self.removed:
            return f"Nothing to remove: the network is unchanged{rest}."
        before, after, layers = self.cost_before, self.cost_after, len(self.removed)
        return (
            f"Removed {sum(map(len, self.removed.values()))} channels from {layers} layer{'s' if layers > 1 else ''}: "
            f"{before.flops:,} -> {after.flops:,} flops, {before.params:,} -> {after.params:,} params{rest}. "
            f"Relative error {self.proof.relative_error:.1e}."
        )


def remove_dead(
    network: nn.Module,
    batches: Iterable[Tensor] | None = None,
    *,
    proof_inputs: Iterable[Tensor] = (),
    seed: int = 0,
) -> Pruned:
    """`network` without its dead and constant channels; the function stays, in evaluation mode.

    Without `batches` only what the weights prove constant for every input leaves. With them (tensors of (batch,
    channels, *space), all held at once) also what is constant on all of them: the result is exact on those, and the
    proof says so. The proof runs on fresh inputs drawn from `seed`, on `proof_inputs` and on `batches`. The result
    has the precision, device and mode of `network`. Raises `PruneError` for anything but a plain Network, for
    weights that are not finite, for batches of another shape, and where the proof fails; `network` is untouched.
    """
    architecture = _checked(network)
    assert isinstance(network, Network)
    data = None if batches is None else [_fitting(x, architecture) for x in batches]
    more = [_fitting(x, architecture) for x in proof_inputs]
    flow = Flow(network, None if data is None else observe(copy.deepcopy(network).cpu().double(), data))
    choice = choose(flow)
    pruned = _built(flow, choice, network)
    silence, observed = _silence(flow, choice)
    proof = prove(network, pruned, silence, everywhere=not observed, data=data or (), more_inputs=more, seed=seed)
    like = next(network.parameters())
    return Pruned(
        network=pruned.to(like.device, like.dtype).train(network.training),
        removed=_removed(flow, choice),
        kept=_kept(flow, choice),
        cost_before=cost(architecture),
        cost_after=cost(pruned.architecture),
        proof=proof,
    )


def _checked(network: nn.Module) -> Architecture:
    for name, module in network.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            raise PruneError(f"A network to prune must have no hooks, but {name or 'it'} has: remove them first.")
    try:
        architecture = read_architecture(network)
    except ArchitectureError as error:
        raise PruneError(str(error)) from None
    floats = {name: t for name, t in network.state_dict().items() if t.is_floating_point()}
    if len({t.dtype for t in floats.values()}) != 1:
        kinds = ", ".join(sorted({str(t.dtype) for t in floats.values()}))
        raise PruneError(f"A network to prune must have weights of one precision, but got {kinds or 'none'}.")
    for name, tensor in floats.items():
        if not tensor.isfinite().all():
            raise PruneError(f"A network to prune must have finite weights, but {name} has not.")
    return architecture


def _fitting(x: Tensor, architecture: Architecture) -> Tensor:
    if not isinstance(x, Tensor) or tuple(x.shape[1:]) != architecture.input:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise PruneError(
            f"Each batch must be a tensor of (batch, {', '.join(map(str, architecture.input))}), but got {got}."
        )
    return x


def _built(flow: Flow, choice: Choice, network: Network) -> Network:
    """The narrow network in float64; what was frozen stays frozen."""
    try:
        architecture, state = without(flow, choice.removed)
        pruned = build(architecture, seed=0).double()
        pruned.load_state_dict(state)
    except (ArchitectureError, RuntimeError) as error:
        raise PruneError(f"The narrower network must be a network again, but {error}") from error
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    for name, parameter in pruned.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return pruned


def _shared(flow: Flow, choice: Choice) -> dict[int, list[int]]:
    """The slots that leave, as walked, by root."""
    shared: dict[int, list[int]] = defaultdict(list)
    for slot in range(len(flow.producers)):
        if flow.root(slot) in choice.removed:
            shared[flow.root(slot)].append(slot)
    return shared


def _silence(flow: Flow, choice: Choice) -> tuple[dict[str, dict[int, float]], bool]:
    """The channels to silence in the original, where they become constant; whether one was only observed so.

    A slot that no weight reads is silenced, to 0, where it is made.
    """
    silence: dict[str, dict[int, float]] = defaultdict(dict)
    sure = {name: {c.channel for c in found} for name, found in flow.proved.items()}
    observed = False
    for slots in _shared(flow, choice).values():
        starts = [start for slot in slots for start in flow.starts.get(slot, ())]
        for start in starts:
            silence[start.at][start.channel] = start.value
            observed |= start.channel not in sure.get(start.at, ())
        if not starts:
            for slot in slots:
                name, channel = flow.producers[slot]
                silence[name][channel] = 0.0
    return silence, observed


def _removed(flow: Flow, choice: Choice) -> dict[str, tuple[Constant, ...]]:
    values: dict[int, float] = {}
    for dense in flow.dense.values():
        for slot, value in zip(dense.inputs.slots, dense.inputs.values.tolist(), strict=True):
            if not isnan(value):
                values.setdefault(flow.root(slot), value)
    removed: dict[str, list[Constant]] = defaultdict(list)
    for root, slots in _shared(flow, choice).items():
        group = [start for slot in slots for start in flow.starts.get(slot, ())]
        for slot in slots:
            name, channel = flow.producers[slot]
            start = next(iter(flow.starts.get(slot, group)), None)
            cause, at = (start.cause, start.at) if start else ("read by no weight", name)
            constant = Constant(channel=channel, value=values.get(root, 0.0), cause=cause, at=at)
            removed[name].append(constant)
    return {name: tuple(sorted(found, key=lambda c: c.channel)) for name, found in removed.items()}


def _kept(flow: Flow, choice: Choice) -> dict[str, tuple[Kept, ...]]:
    kept: dict[str, list[Kept]] = defaultdict(list)
    for slot, starts in flow.starts.items():
        root = flow.root(slot)
        if root in choice.removed:
            continue
        reason = choice.stays[root]
        if reason.startswith("varies"):
            reason = flow.lost.get(slot, reason)
        for start in starts:
            kept[start.at].append(Kept(constant=start, reason=reason))
    return {name: tuple(sorted(found, key=lambda k: k.constant.channel)) for name, found in kept.items()}
