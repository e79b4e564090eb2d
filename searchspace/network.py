"""A network: the module built from an architecture, and back.

`build` makes plain torch modules whose names are the index paths of the architecture's sites. `read_architecture`
reads the widths from the tensors, builds what it read without memory, and compares: so it is right after a network
was narrowed, and refuses whatever no architecture describes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from searchspace import architecture as language
from searchspace import layers
from searchspace.architecture import (
    Architecture,
    ArchitectureError,
    Leaf,
    Node,
    Shape,
    Site,
    axes,
    children,
    map_leaves,
    windows,
)


class Network(nn.Module):
    """The module of `architecture`: (batch, channels, *space) -> (batch, classes).

    In training mode, where the architecture has auxiliary heads, the output is (logits, (auxiliary logits, ...)),
    weighted in a loss by `tap_weights`.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.body = _module(architecture.body, iter(architecture.sites))
        self.tap_weights = tuple(_tap_weights(architecture.body))
        self.built = _description(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, tuple[Tensor, ...]]:
        y: Tensor = self.body(x)
        if self.training and self.tap_weights:
            heads = [m for m in self.body.modules() if isinstance(m, layers.AuxiliaryHead)]
            return y, tuple(head.take() for head in heads)
        return y


def build(architecture: Architecture, seed: int | None = None) -> Network:
    """The network of `architecture`, its weights drawn from `seed`, or from torch's generator where it is None."""
    if seed is None:
        return Network(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(architecture)


def _tap_weights(node: Node) -> Iterator[float]:
    if isinstance(node, language.Tap):
        yield node.weight
    for child in children(node):
        yield from _tap_weights(child)


def _module(node: Node, sites: Iterator[Site]) -> nn.Module:
    if isinstance(node, Leaf):
        site = next(sites)
        module = leaf_module(node, site.before, site.after)
    else:
        below = [_module(child, sites) for child in children(node)]
        if isinstance(node, language.Tap):
            module = layers.AuxiliaryHead(below[0])
        else:
            join: dict[type[Node], type[nn.Module]] = {
                language.Chain: nn.Sequential,
                language.Add: layers.Sum,
                language.Concat: layers.Concatenation,
            }
            module = join[type(node)]()
            for i, child in enumerate(below):
                module.add_module(str(i), child)
    return module


def leaf_module(leaf: Leaf, before: Shape, after: Shape) -> nn.Module:
    """The module of one leaf between two shapes."""
    dims = len(before.space) or 2
    octave = bool(before.low or after.low)
    match leaf:
        case language.Conv():
            return _conv(leaf, before, after, dims)
        case language.Depthwise():
            kernel, stride, padding, dilation = windows(leaf, dims)
            conv = nn.Conv2d if dims == 2 else nn.Conv3d

            def path(width: int, stride: tuple[int, ...]) -> nn.Module | None:
                if not width:
                    return None
                return conv(width, width, kernel, stride, padding, dilation, groups=width, bias=leaf.bias)  # type: ignore[arg-type]

            if octave:
                one = (1,) * dims
                return layers.Branches(path(before.high, one), path(before.low, one), stride)
            only = path(before.channels, stride)
            assert only is not None
            return only
        case language.Norm():
            norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
            if octave:
                high, low = (norm(c, eps=leaf.eps) if c else None for c in (before.high, before.low))
                return layers.Branches(high, low)
            return norm(before.channels, eps=leaf.eps)
        case language.SqueezeExcite():
            return layers.SqueezeExcite(before.channels, leaf.squeeze, leaf.activation, leaf.gate, dims)
        case language.Select():
            return layers.Select(leaf.channels, before.high)
        case language.AdaptivePool() if octave:
            return layers.JoinFrequencies()
        case language.Linear():
            return nn.Linear(before.channels, leaf.out, bias=leaf.bias)
        case language.Flatten():
            return nn.Flatten()
        case _:
            if octave:
                return layers.Branches(
                    _without_weights(leaf, before, dims) if before.high else None,
                    _without_weights(leaf, before, dims) if before.low else None,
                )
            return _without_weights(leaf, before, dims)


def _conv(leaf: language.Conv, before: Shape, after: Shape, dims: int) -> nn.Module:
    kernel, stride, padding, dilation = windows(leaf, dims)
    conv = nn.Conv2d if dims == 2 else nn.Conv3d

    def path(inputs: int, outputs: int, bias: bool, stride: tuple[int, ...] = (1,) * dims) -> nn.Module:
        return conv(inputs, outputs, kernel, stride, padding, dilation, groups=leaf.groups, bias=bias)  # type: ignore[arg-type]

    if not before.low and not after.low:
        if max(kernel) == 1 and max(stride) > 1 and not any(padding):
            conv = layers.StridedPointwise2d if dims == 2 else layers.StridedPointwise3d
        return path(before.channels, leaf.out, leaf.bias, stride)
    return layers.OctaveConv((before.high, before.low), (after.high, after.low), path, stride, leaf.bias, after.space)


def _without_weights(leaf: Leaf, before: Shape, dims: int) -> nn.Module:
    match leaf:
        case language.Activation():
            return layers.ACTIVATION_MODULES[leaf.kind]()
        case language.Dropout():
            return nn.Dropout(leaf.p)
        case language.Shuffle():
            return layers.ChannelShuffle(leaf.groups)
        case language.LocalNorm():
            return nn.LocalResponseNorm(leaf.size, leaf.alpha, leaf.beta, leaf.k)
        case language.AdaptivePool():
            size = axes(leaf.size, dims)
            return nn.AdaptiveAvgPool2d(size) if dims == 2 else nn.AdaptiveAvgPool3d(size)  # type: ignore[arg-type]
        case language.Pool():
            kernel, stride, padding, _ = windows(leaf, dims)
            ceil = leaf.rounding(before)
            if leaf.kind == "max":
                return (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(kernel, stride, padding, ceil_mode=ceil)
            average: type[nn.AvgPool2d | nn.AvgPool3d] = nn.AvgPool2d if dims == 2 else nn.AvgPool3d
            smallest = before.low_space if before.low else before.space
            if dims == 3 and any(k > size for k, size in zip(kernel, smallest, strict=True)):
                average = layers.PaddedAvgPool3d
            return average(kernel, stride, padding, ceil_mode=ceil)  # type: ignore[arg-type]
        case _:
            raise ArchitectureError(f"`build` must know every leaf, but got {leaf}.")


def read_architecture(network: nn.Module) -> Architecture:
    """The architecture of `network` as its tensors are now.

    Raises `ArchitectureError`, naming the first module that differs, where no architecture describes the network.
    """
    if not isinstance(network, Network):
        raise ArchitectureError(f"Only a Network made by `build` can be read back, but got {type(network).__name__}.")
    change: dict[tuple[int, ...], Node] = {}
    for site in network.architecture.sites:
        try:
            module = network.get_submodule(site.name)
        except AttributeError:
            raise ArchitectureError(f"The network must have a module {site.name}, but it is gone.") from None
        leaf = _read(site.leaf, module)
        if leaf != site.leaf:
            change[site.index] = leaf
    body = map_leaves(network.architecture.body, change)
    assert isinstance(body, language.Chain)
    found = Architecture(network.architecture.input, body)
    _compare(network, found)
    return found


def _read(leaf: Leaf, module: nn.Module) -> Leaf:
    """`leaf` with the widths of `module`'s tensors; what does not fit is left for the comparison to refuse."""
    match leaf, module:
        case language.Conv(), layers.OctaveConv():
            high, low = (_rows(a) or _rows(b) for a, b in ((module.hh, module.lh), (module.hl, module.ll)))
            bias = any(path is not None and path.bias is not None for path in module.children())
            return replace(leaf, out=high + low, low=low, bias=bias)
        case language.Conv(), nn.Conv2d() | nn.Conv3d():
            return replace(leaf, out=_rows(module), groups=module.groups, bias=module.bias is not None)
        case language.Linear(), nn.Linear():
            return replace(leaf, out=_rows(module), bias=module.bias is not None)
        case language.Shuffle() | language.Select(), layers.Select():
            return language.Select(module.channels, label=leaf.label)
        case language.SqueezeExcite(), layers.SqueezeExcite():
            return replace(leaf, squeeze=_rows(module.squeeze))
    return leaf


def _rows(module: nn.Module | None) -> int:
    weight = getattr(module, "weight", None)
    return len(weight) if isinstance(weight, Tensor) else 0


def _settings(module: nn.Module) -> object:
    """What decides a module's function beside its tensors; widths are left out, the tensors tell them."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        return module.stride, module.padding, module.dilation, module.groups, module.padding_mode
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
        return module.eps, module.affine, module.track_running_stats
    return None if isinstance(module, nn.Linear) else module.extra_repr()


def _description(network: Network) -> object:
    """Each module's class and settings, each tensor's shape."""
    modules = [(name, type(module), _settings(module)) for name, module in network.named_modules()]
    return modules, [(name, tensor.shape) for name, tensor in network.state_dict().items()]


def _compare(network: Network, found: Architecture) -> None:
    if found == network.architecture and _description(network) == network.built:
        return  # as it was built: nothing to build again
    with torch.device("meta"):
        expected = Network(found)
    modules, wanted = dict(network.named_modules()), dict(expected.named_modules())
    for name in {**wanted, **modules}:
        a, b = modules.get(name), wanted.get(name)
        if type(a) is not type(b) or (a is not None and b is not None and _settings(a) != _settings(b)):
            raise ArchitectureError(f"No architecture describes this network: {name} is {a}, where {b} was expected.")
    tensors, shapes = network.state_dict(), expected.state_dict()
    for name in {**shapes, **tensors}:
        got, want = (tuple(d[name].shape) if name in d else None for d in (tensors, shapes))
        if got != want:
            raise ArchitectureError(
                f"No architecture describes this network: {name} has shape {got}, where {want} was expected."
            )
