"""Before a module is changed: what it must be, whether it runs, and what it costs."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_flatten

from pruning.places import Place, Places, PruneError, evaluating, tensors
from searchspace.architecture import ArchitectureError
from searchspace.cost import Cost, cost, trace_flops
from searchspace.factory import one_line
from searchspace.network import Network, read_architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What a module that is no Network costs: `params`; `flops` by fvcore, 1 multiply-add = 1, batch of 1.

    `flops` is None where fvcore cannot trace the module.
    """

    flops: int | None
    params: int

    def values(self) -> dict[str, float]:
        """The counts by name, as `Cost` gives them."""
        return {name: float(count) for name, count in asdict(self).items() if count is not None}


def checked(network: nn.Module, example: Tensor | None, *, parametrized: bool = False) -> tuple[int, ...]:
    """The shape of one input, (channels, *space), of a module that can be pruned; raises `PruneError` for others.

    `example`, a tensor of (batch, channels, *space), says the shape for what is no Network. `parametrized` allows
    weights that are computed.
    """
    if not isinstance(network, nn.Module):
        raise PruneError(f"What is pruned must be a torch module, but got {type(network).__name__}.")
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
            raise PruneError(
                f"A network to prune must be plain Python, but {name or 'it'} is compiled: give the original."
            )
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            raise PruneError(f"A network to prune must have no hooks, but {name or 'it'} has: remove them first.")
        if is_parametrized(module) and not parametrized:
            raise PruneError(f"A network to prune must have plain weights, but {name or 'it'} is parametrized.")
    if isinstance(network, Network):
        try:
            size = read_architecture(network).input
        except ArchitectureError as error:
            raise PruneError(str(error)) from None
    elif example is None or not isinstance(example, Tensor) or example.dim() < 2:
        got = "nothing" if example is None else tuple(example.shape) if isinstance(example, Tensor) else example
        raise PruneError(
            f"A module of another kind than Network must come with an example, a tensor of (batch, channels, *space) "
            f"that it runs on, but got {got}."
        )
    else:
        size = tuple(example.shape[1:])
    floats = {name: t for name, t in network.state_dict().items() if t.is_floating_point()}
    if len({t.dtype for t in floats.values()}) != 1:
        kinds = ", ".join(sorted({str(t.dtype) for t in floats.values()}))
        raise PruneError(f"A network to prune must have weights of one precision, but got {kinds or 'none'}.")
    for name, tensor in floats.items():
        if not tensor.isfinite().all():
            raise PruneError(f"A network to prune must have finite weights, but {name} has not.")
    return size


def copied(network: nn.Module) -> nn.Module:
    """A copy in float64 on the CPU."""
    try:
        return copy.deepcopy(network).cpu().double()
    except Exception as error:  # a tensor that it keeps from a run, a lock, or the like
        raise PruneError(f"A network to prune must be one that copy.deepcopy copies, but: {one_line(error)}") from error


def fitting(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """`x`, where it is a batch of that size."""
    if not isinstance(x, Tensor) or tuple(x.shape[1:]) != size:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise PruneError(f"Each batch must be a tensor of (batch, {', '.join(map(str, size))}), but got {got}.")
    return x


def runs(module: nn.Module, x: Tensor) -> tuple[bool, float]:
    """Whether heads run in training mode that do not in evaluation, and the seconds that one run takes.

    Raises `PruneError` where the module does not run at all, where it writes into its parameters, and where its
    training run fails, but alone reads some of them.
    """
    started = time.monotonic()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    reads = _Reads(module)
    try:
        with evaluating(module, heads=False), reads:
            plain = tensors(module(x.clone()))
    except PruneError:
        raise
    except Exception as error:  # whatever code that is not ours raises
        raise PruneError(
            f"A module must run on inputs of {tuple(x.shape)} in float64, but: {one_line(error)}"
        ) from error
    took = time.monotonic() - started
    if not plain:
        raise PruneError("A module must return a tensor of floating-point numbers, or several, but it returns none.")
    heads, started = False, time.monotonic()
    try:
        with evaluating(module, heads=True):
            trained = tensors(module(x.clone()))
        took = min(took, time.monotonic() - started)  # the first run of a process pays for what torch loads
        heads = len(plain) != len(trained) or not all(map(torch.equal, plain, trained))
    except PruneError:
        raise
    except Exception as error:  # of a loss that needs labels, or the like
        for name in sorted(before.keys() - reads.read):
            raise PruneError(
                f"A module must run in training mode if only then it reads {name}, but: {one_line(error)}"
            ) from error
    for name, parameter in module.named_parameters():
        if not torch.equal(parameter, before[name]):
            raise PruneError(f"A module to prune must not write into its parameters as it runs, but it writes {name}.")
    return heads, took


class _Reads(Places):
    """The names of the parameters that a run reads."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.owned = {id(parameter): name for name, parameter in module.named_parameters()}
        self.read: set[str] = set()

    def ran(self, place: Place, func: Any, args: Any, kwargs: Any) -> Any:
        self.read |= {self.owned[id(a)] for a in tree_flatten((args, kwargs))[0] if id(a) in self.owned}
        return func(*args, **kwargs)


def cost_of(module: nn.Module, size: tuple[int, ...]) -> Cost | Count:
    """By `searchspace.cost` for a Network, else as fvcore traces it."""
    if isinstance(module, Network):
        return cost(read_architecture(module))
    params = sum(p.numel() for p in module.parameters())
    try:
        return Count(flops=trace_flops(copy.deepcopy(module).float(), size), params=params)
    except Exception:  # torch's tracer refuses some modules that run
        return Count(flops=None, params=params)
