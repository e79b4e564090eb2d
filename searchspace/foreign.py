"""Weights of another library's module, loaded into the network that computes the same function.

Nothing is matched by name. Both are run on one random input and paired layer by layer in order of execution, each
pair compared in what it is and in what it reads: weights never land in a network of another function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from searchspace.architecture import ArchitectureError
from searchspace.network import Network

TOLERANCE = 1e-6  # as a share of the greatest value; both run in float64, what they read is compared in float32
SCALE = 10.0  # standard deviation of the input: wide enough for ReLU6 and its like to saturate


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A layer that holds weights, as it runs; `reads` is a copy of its input, as what follows may write over it."""

    name: str
    layer: nn.Module
    reads: Tensor

    @property
    def facts(self) -> dict[str, object]:
        return dict(_facts(self.layer))

    def __str__(self) -> str:
        kind, *rest = self.facts.items()
        return f"{self.name or 'itself'} ({', '.join((str(kind[1]), *(f'{key} {value}' for key, value in rest)))})"


def load_foreign(network: Network, module: nn.Module, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Copy into `network` the weights of `module`, or those of `state_dict`, whose keys are `module`'s.

    `module` must run on a batch of the network's input. It stays as it is, and so do the random state and the
    network's dtype and device. Raises `ArchitectureError` with the first layer that differs, an auxiliary head on one
    side only included, and then the network is unchanged too.
    """
    if not isinstance(network, Network):
        raise ArchitectureError(f"Weights load into a Network made by `build`, but got {type(network).__name__}.")
    if not isinstance(module, nn.Module):
        raise ArchitectureError(f"`module` must be the torch module of the weights, but got {type(module).__name__}.")
    title = type(module).__name__
    size = (1, *network.architecture.input)
    x = SCALE * torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    steps, unused, output = _foreign(module, state_dict, x)
    twin, left = deepcopy(network).to("cpu"), iter(steps)

    def pair(our: _Step) -> None:
        their = next(left, None)
        if their is None:
            raise _mismatch(title, f"{our} comes after the last layer of {title}")
        if difference := _difference(our, their):
            raise _mismatch(title, f"{our} meets {their}: {difference}")
        our.layer.load_state_dict(_tensors(their.layer), assign=True)

    ours = _run(twin, x, pair)
    if (rest := next(left, None)) is not None:
        raise _mismatch(title, f"{rest} comes after the last layer of the network")
    if unused:
        raise _mismatch(title, f"{title} holds weights that it does not use, first those of {unused[0]}")
    if not (gap := _gap(ours, output)) <= TOLERANCE:
        raise _mismatch(title, f"after the last layer, which is equal, the outputs differ by {gap:.1g} of the greatest")
    network.load_state_dict(twin.state_dict())


def _foreign(
    module: nn.Module, state_dict: Mapping[str, Tensor] | None, x: Tensor
) -> tuple[list[_Step], list[str], Tensor]:
    """The steps of a copy of `module` with the weights, its layers that never run, and its output."""
    title, steps = type(module).__name__, dict[str, _Step]()

    def note(step: _Step) -> None:
        if step.name in steps:
            raise _mismatch(title, f"{step} runs more than once, which no layer of a network does")
        steps[step.name] = step

    try:
        copy = deepcopy(module).to("cpu", torch.float64)
        if state_dict is not None:
            copy.load_state_dict(state_dict)
        output = _run(copy, x, note)
    except ArchitectureError:
        raise
    except Exception as error:  # whatever code that is not ours raises
        size = "x".join(map(str, x.shape))
        raise ArchitectureError(f"{title} must take the weights and run on a batch of {size}, but: {error}") from error
    unused = [name for name, part in copy.named_modules() if _tensors(part) and name not in steps]
    return list(steps.values()), unused, output


def _run(module: nn.Module, x: Tensor, visit: Callable[[_Step], None]) -> Tensor:
    """The first output of `module` on `x`; `visit` sees each layer that holds weights just before it runs.

    What has children is in training mode, so that auxiliary heads run; the layers are not, so that nothing is dropped
    and running statistics are used and stay.
    """

    def before(name: str, layer: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        reads = next(iter((*args, *kwargs.values())), None)
        visit(_Step(name, layer, reads.float() if isinstance(reads, Tensor) else torch.empty(0)))

    for name, part in module.named_modules():
        part.training = next(part.children(), None) is not None
        if _tensors(part):
            part.register_forward_pre_hook(partial(before, name), with_kwargs=True)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return _first(module(x)).float()


def _first(output: object) -> Tensor:
    if isinstance(output, Tensor):
        return output
    parts = list(output.values()) if isinstance(output, Mapping) else output
    if not isinstance(parts, list | tuple) or not parts:
        raise ArchitectureError(f"A module must return a tensor, or several, but got {type(output).__name__}.")
    return _first(parts[0])


def _tensors(layer: nn.Module) -> dict[str, Tensor]:
    """The parameters and kept buffers of `layer` itself, without those of its children."""
    return {name: tensor for name, tensor in layer.state_dict().items() if "." not in name}


def _facts(layer: nn.Module) -> Iterator[tuple[str, object]]:
    """What must be equal in two layers for one to take the other's weights, the kind first."""
    match layer:
        case nn.Conv2d() | nn.Conv3d():
            yield "kind", "convolution"
            for name in ("stride", "dilation", "groups", "padding_mode"):
                yield name, getattr(layer, name)
            yield "padding", _padding(layer)
        case _BatchNorm():
            yield "kind", "batch normalisation"
            yield "eps", layer.eps
        case nn.Linear():
            yield "kind", "linear"
        case _:
            yield "kind", type(layer).__name__
    for name, tensor in _tensors(layer).items():
        yield name, tuple(tensor.shape)


def _padding(conv: nn.Conv2d | nn.Conv3d) -> tuple[float, ...]:
    if not isinstance(conv.padding, str):
        return conv.padding
    share = 0.5 if conv.padding == "same" else 0  # not whole where the two sides differ: no padding of ours then
    return tuple(share * d * (k - 1) for k, d in zip(conv.kernel_size, conv.dilation, strict=True))


def _difference(our: _Step, their: _Step) -> str:
    """How the layers differ, or what they read; empty where nothing does."""
    ours, theirs = our.facts, their.facts
    differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if "kind" in differing:
        differing = ["kind"]
    if differing:
        return "; ".join(
            f"{name} is {ours.get(name, 'none')} here, {theirs.get(name, 'none')} there" for name in differing
        )
    if our.reads.shape != their.reads.shape:
        return f"they read {tuple(our.reads.shape)} here, {tuple(their.reads.shape)} there"
    if not (gap := _gap(our.reads, their.reads)) <= TOLERANCE:
        return (
            f"what they read differs by {gap:.1g} of the greatest value, as a part without weights before them "
            f"(activation, pooling, join) does"
        )
    return ""


def _gap(ours: Tensor, theirs: Tensor) -> float:
    """The greatest difference as a share of the greatest value; infinite where shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    greatest = theirs.abs().max().clamp_min(torch.finfo(theirs.dtype).tiny)
    return float((ours - theirs).abs().max() / greatest)


def _mismatch(title: str, what: str) -> ArchitectureError:
    return ArchitectureError(f"The network and {title} must have equal layers in order of execution, but {what}.")
