"""Where each operation of a run is: the order in which torch executes a module, numbered alike in every run.

A dispatch mode sits below Python's control flow, so that only a few dozen operations exist, whatever the module's
code. Auxiliary heads run where what has children is in training mode and the layers are not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DROPOUTS = frozenset(
    getattr(owner, name)
    for name in (
        "dropout",
        "alpha_dropout",
        "feature_alpha_dropout",
        "feature_dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
    )
    for owner in (functional, torch)
    if hasattr(owner, name)
)
POINTWISE = frozenset(("hardswish", "hardsigmoid", "hardtanh", "silu", "mish", "_prelu_kernel", "elu", "celu", "selu"))
NORMS = frozenset(("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"))


class PruneError(ValueError):
    """A removal that cannot be made, or whose proof failed. The module it was asked of is untouched."""


@dataclass(frozen=True, slots=True)
class Place:
    """An operation of a run: the innermost `module` that runs it, its aten name, and its turn among those there."""

    module: str
    operation: str
    turn: int


def in_place(func: Any) -> bool:
    """Whether an aten operation writes into its first argument."""
    return bool(func.overloadpacket.__name__.endswith("_"))


def operation(func: Any) -> str:
    """The name of an aten operation; that of an in-place form is the plain one's."""
    name: str = func.overloadpacket.__name__
    return name[:-1] if in_place(func) else name


def pointwise(func: Any) -> bool:
    """Whether an operation works on each element by itself."""
    return torch.Tag.pointwise in func.tags or operation(func) in POINTWISE


class Places(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that tells each operation its place; raises `PruneError` at `until` on the monotonic clock."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]

    def __init__(self, module: nn.Module, until: float = inf) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = {part: name for name, part in module.named_modules()}
        self.until = until
        self._turns: Counter[tuple[str, str]] = Counter()
        self._stack: list[str] = []
        self._handles: list[Any] = []
        self._resting = False

    def __enter__(self) -> Any:
        self._turns.clear()
        for module in self.names:
            self._handles.append(module.register_forward_pre_hook(self._enters))
            self._handles.append(module.register_forward_hook(self._leaves, always_call=True))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._stack.clear()

    def _enters(self, module: nn.Module, inputs: Any) -> None:
        self._stack.append(self.names[module])
        with self._rest():
            self.entering(module, inputs)

    def _leaves(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._stack.pop()
        if output is not None:  # None where it raised
            with self._rest():
                self.leaving(module, inputs, output)

    @contextmanager
    def _rest(self) -> Iterator[None]:
        self._resting = True
        try:
            yield
        finally:
            self._resting = False

    def entering(self, module: nn.Module, inputs: Any) -> None:
        """Called before `module` runs."""

    def leaving(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Called after `module` ran."""

    def ran(self, place: Place, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operation at `place`."""
        return func(*args, **kwargs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._resting:
            return func(*args, **(kwargs or {}))
        if time.monotonic() > self.until:
            raise PruneError("Pruning must end within its time limit, but did not: give it more seconds.")
        if torch.is_inference_mode_enabled():  # its tensors do not tell when they are written to
            raise PruneError("A module to prune must not run under torch.inference_mode: use torch.no_grad there.")
        name, where = operation(func), self._stack[-1] if self._stack else ""
        turn = self._turns[where, name]
        self._turns[where, name] += 1
        return self.ran(Place(where, name, turn), func, args, kwargs or {})


class _Undropped(TorchFunctionMode):
    """A head in training drops nothing, so that two runs are comparable."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DROPOUTS:
            return args[0] if args else (kwargs or {})["input"]
        return func(*args, **(kwargs or {}))


@contextmanager
def evaluating(module: nn.Module, heads: bool = True) -> Iterator[None]:
    """Layers in evaluation mode, no gradients; with `heads`, what has children trains, so that auxiliary heads run.

    What runs write into buffers is undone.
    """
    modes = {part: part.training for part in module.modules()}
    buffers = [
        (part, name, buffer, buffer.clone())
        for part in modes
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    for part in modes:
        part.training = heads and next(part.children(), None) is not None
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _Undropped():
            yield
    finally:
        for part, training in modes.items():
            part.training = training
        with torch.no_grad():
            for part, name, buffer, before in buffers:
                part._buffers[name] = buffer.copy_(before)


def tensors(output: Any) -> list[Tensor]:
    """The tensors in what a module returns, in order. Raises `PruneError` for objects that could hide some."""
    if isinstance(output, Tensor):
        return [output]
    if is_dataclass(output) and not isinstance(output, type):
        output = [getattr(output, f.name) for f in fields(output)]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple | set | frozenset):
        return [t for part in output for t in tensors(part)]
    if output is None or isinstance(output, str | bytes | int | float | complex | torch.Size | torch.dtype):
        return []
    kind = type(output).__name__
    raise PruneError(f"A module must return tensors, in lists, tuples, mappings or dataclasses, but there is a {kind}.")


@dataclass(frozen=True, slots=True)
class Observed:
    """What `samples` inputs showed: by place, (channels,) values along axis 1, NaN where a channel varied."""

    samples: int
    values: Mapping[Place, Tensor]


class _Watch(Places):
    """The least and greatest value of each channel (along axis 1) of each operation's output."""

    def __init__(self, module: nn.Module, until: float) -> None:
        super().__init__(module, until)
        self.ends: dict[Place, tuple[Tensor, Tensor]] = {}

    def ran(self, place: Place, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        y = out[0] if place.operation in NORMS else out
        watched = place.operation in (*NORMS, "convolution", "addmm", "mm") or pointwise(func)
        if watched and isinstance(y, Tensor) and y.dim() > 1 and y.is_floating_point():
            flat = y.transpose(0, 1).flatten(1)
            low, high = flat.amin(1), flat.amax(1)
            known = self.ends.get(place, (low, high))
            if known[0].shape == low.shape:
                self.ends[place] = torch.minimum(known[0], low), torch.maximum(known[1], high)
        return out


def observe(module: nn.Module, batches: Sequence[Tensor], heads: bool = True, until: float = inf) -> Observed:
    """Which channels kept one value over whole maps on all of `batches`, (batch, channels, *space) each.

    Values are those of `module` in its own precision. Raises `PruneError` with fewer than 2 samples, on which
    everything after a global pooling would look constant.
    """
    samples = sum(len(x) for x in batches)
    if samples < 2:
        raise PruneError(f"At least 2 samples must be given to see what is constant, but got {samples}.")
    watch = _Watch(module, until)
    for with_heads in (False, True) if heads else (False,):
        with evaluating(module, with_heads):
            for x in batches:
                with watch:
                    module(x.clone())
    values = {place: torch.where(low == high, low, torch.nan).double() for place, (low, high) in watch.ends.items()}
    return Observed(samples, values)
