"""What MODEL means on the command line: a network, or a module of somebody else's, with its weights, ready to run.

In this order: with a trial, a sweep's folder · a published network of ours by name · a file (a network or a pruned
module as .safetensors, an architecture as JSON) · package.module:function, torchvision:NAME or timm:NAME · a plain
name that torchvision or timm knows. A name beats a file of that name: ./NAME is the file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from experiments.named import find, read_settings, read_sizes
from pruning import checkpoint as pruned_file
from searchspace import checkpoint as network_file
from searchspace import factory as factories
from searchspace.choices import meant
from searchspace.factory import LIBRARIES, Factory, one_line
from searchspace.network import Network, build
from searchspace.published import NETWORKS

Size = tuple[int, ...]
KEYS = ("state_dict", "model")  # where training scripts put the weights in what they save
PREFIX = "module."  # what torch's data parallel wrappers put before every name


class ModelError(ValueError):
    """A model that is not there, does not run, or whose weights do not fit."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A module in evaluation mode that runs on `example`, (2, channels, *space); `classes` where it classifies.

    `factory` makes the module afresh; None for a `Network`, which its architecture makes. `notes` say what was done
    to read the weights.
    """

    name: str
    module: nn.Module
    example: Tensor
    classes: int | None
    factory: Factory | None
    notes: tuple[str, ...] = ()

    @property
    def input(self) -> Size:
        """(channels, *space)."""
        return tuple(self.example.shape[1:])


def open_model(
    text: str,
    settings: Sequence[str] = (),
    weights: Path | None = None,
    input: str | None = None,
    trial: int | None = None,
) -> Model:
    """The model that `text` names, with NAME=VALUE settings, the weights in a file, and input sizes such as 3x32x32.

    Raises `ModelError`, `FactoryError`, `ArchitectureError`, `CheckpointError` or `SweepError`.
    """
    size = None if input is None else read_sizes("--input", input)
    if trial is not None:
        return _of_trial(Path(text), trial, given=bool(settings or weights or input))
    if text in NETWORKS:
        return _of_network(text, build(find(text, settings, input), 0), weights)
    path = Path(text)
    if path.exists() or path.suffix in (".json", ".safetensors", ".pt", ".pth") or ("/" in text and ":" not in text):
        return _of_file(path, settings, weights, size)
    factory = Factory(name=text if ":" in text else _library_name(text))
    return _of_factory(factory, settings, weights, size)


def save_model(path: Path, model: Model, module: nn.Module, metadata: Mapping[str, str] | None = None) -> None:
    """Write `module`, which `model` became, as a file that `open_model` reads."""
    if isinstance(module, Network):
        network_file.save(path, module, metadata)
    elif model.factory is not None:
        pruned_file.save(path, module, model.factory, metadata, model.input)
    else:
        raise ModelError(f"{model.name} must be a network, or be made by a factory, to be saved.")


# Where models come from -----------------------------------------------------------------------------------------


def _of_trial(out: Path, trial: int, *, given: bool) -> Model:
    from nas.folder import find_trial, read_front, weights
    from nas.sweep import SweepError

    if given:
        raise ModelError("--trial says all of its network: --set, --weights and --input do not go with it.")
    find_trial(out, trial)
    if not (path := weights(out, trial)).exists():
        front = ", ".join(str(member.trial) for member in read_front(out))
        raise SweepError([f"--trial: must be on the front, whose weights are kept (got {trial}; front: {front})"])
    return _of_network(f"{out} trial {trial}", network_file.load(path), None)


def _of_file(path: Path, settings: Sequence[str], weights: Path | None, size: Size | None) -> Model:
    if path.is_dir():
        raise ModelError(f"{path}: must be a file, but it is a folder: a sweep's folder needs --trial.")
    if path.suffix in (".pt", ".pth"):
        raise ModelError(f"{path}: holds weights alone: name what makes the model, and give --weights {path}.")
    if settings:
        raise ModelError(f"{path}: a file says all of its model: --set goes with a name.")
    if path.suffix == ".safetensors" and (network_file.format_of(path) or "").startswith("pruned/"):
        loaded = pruned_file.load_all(path)
        return _running(str(path), loaded.module, size or loaded.input, loaded.factory, _filled(loaded.module, weights))
    network = network_file.load(path) if path.suffix == ".safetensors" else build(find(str(path)), 0)
    return _of_network(str(path), network, weights, size)


def _of_network(name: str, network: Network, weights: Path | None, size: Size | None = None) -> Model:
    if size not in (None, network.architecture.input):
        said = "x".join(map(str, network.architecture.input))
        raise ModelError(f"{name}: a network says its input, here {said}: another --input does not go with it.")
    return _running(name, network, network.architecture.input, None, _filled(network, weights))


def _of_factory(factory: Factory, settings: Sequence[str], weights: Path | None, size: Size | None) -> Model:
    name = factory.name
    made = factory if not settings else _set(factory, settings)
    module = made.make()
    if isinstance(module, Network):
        return _of_network(name, module, weights, size)
    return _running(name, module, size or _known_input(name, module), made, _filled(module, weights))


def _set(factory: Factory, settings: Sequence[str]) -> Factory:
    return Factory(name=factory.name, arguments=read_settings(factory.name, factories.find(factory.name), settings))


def _library_name(text: str) -> str:
    """LIBRARY:NAME of a plain name."""
    listed = {library: factories.names(library) for library in LIBRARIES}
    having = [library for library, known in listed.items() if text in known]
    if len(having) == 1:
        return f"{having[0]}:{text}"
    if having:
        forms = " or ".join(f"{library}:{text}" for library in having)
        raise ModelError(f"{text} must be one model, but more than one library has it: write {forms}.")
    close = meant(text, [*NETWORKS, *(name for known in listed.values() for name in known)])
    absent = ", ".join(library for library, known in listed.items() if not known)
    raise ModelError(
        f"MODEL must be a published network ({', '.join(NETWORKS)}), a file, package.module:function, torchvision:NAME "
        f"or timm:NAME (got {text!r}{close}{absent and f'; not installed: {absent}'})."
    )


def _known_input(name: str, module: nn.Module) -> Size | None:
    """What the library says its model of that name reads; None where nobody does."""
    library, _, model = name.partition(":")
    if library == "timm":
        known = getattr(module, "pretrained_cfg", None) or {}
        return tuple(known["input_size"]) if "input_size" in known else None
    if library == "torchvision":
        best = next(iter(factories.torchvision().models.get_model_weights(model)), None)
        crop = best.transforms.keywords.get("crop_size") if best is not None else None
        return (3, crop, crop) if isinstance(crop, int) else None
    return None


# Running --------------------------------------------------------------------------------------------------------


def _running(name: str, module: nn.Module, size: Size | None, factory: Factory | None, notes: tuple[str, ...]) -> Model:
    """The model, once it has run."""
    if size is None:
        raise ModelError(f"{name}: what it reads is not known: say it by --input, such as 3x224x224 or 3x8x112x112.")
    module.eval()
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    example = torch.randn(2, *size, generator=torch.Generator().manual_seed(0)).to(dtype)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = module(example)
    except Exception as error:  # whatever code that is not ours raises
        shape = "x".join(map(str, example.shape))
        raise ModelError(f"{name} must run on a batch of {shape} (--input says it), but: {one_line(error)}") from error
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    if not tensors:
        raise ModelError(f"{name} must return a tensor, or several, but it returned {type(output).__name__}.")
    classes = tensors[0].shape[1] if tensors[0].dim() == 2 else None
    return Model(name=name, module=module, example=example, classes=classes, factory=factory, notes=notes)


# Weights --------------------------------------------------------------------------------------------------------


def _filled(module: nn.Module, path: Path | None) -> tuple[str, ...]:
    """Load the weights in the file into `module`; what was done to read them."""
    if path is None:
        return ()
    tensors, notes = read_weights(path)
    expected = {n: t for n, t in module.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    if all(name.startswith(PREFIX) for name in tensors) and not any(name.startswith(PREFIX) for name in expected):
        tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
        notes += (f"{path}: read without the {PREFIX!r} before every name.",)
    for name, tensor in expected.items():  # safetensors keeps a tied tensor under one of its names
        twin = next((n for n, t in expected.items() if t is tensor and n in tensors), None)
        if name not in tensors and twin is not None:
            tensors[name] = tensors[twin]
    missing = [n for n in expected if n not in tensors and not n.endswith("num_batches_tracked")]  # old files lack it
    unexpected = [n for n in tensors if n not in expected]
    other = [
        f"{n} is {_shape(tensors[n])} in the file, {_shape(t)} in the model"
        for n, t in expected.items()
        if n in tensors and tensors[n].shape != t.shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    if said := [f"{len(names)} {what} ({_some(names)})" for what, names in found.items() if names]:
        raise ModelError(f"{path}: the weights must fit the model, but of {len(expected)} tensors: {'; '.join(said)}.")
    if casts := {f"{tensors[n].dtype} to {t.dtype}" for n, t in expected.items() if tensors.get(n, t).dtype != t.dtype}:
        notes += (f"{path}: weights were changed from {', '.join(sorted(casts)).replace('torch.', '')}.",)
    module.load_state_dict(tensors, strict=False)
    return notes


def read_weights(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a state dict in a .safetensors, .pt or .pth file by name, and a note where it lay under a key.

    Nothing is unpickled but tensors: torch's `weights_only`. Raises `ModelError`.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there must be a file of weights here, but there is none.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path), ()
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: must be a safetensors file, but {error}") from None
    if path.suffix not in (".pt", ".pth"):
        raise ModelError(f"{path}: weights must be a .safetensors, .pt or .pth file.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*looks like a TorchScript archive")  # refused below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise of every kind
        held = re.search(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)", str(error))
        but = f"it holds {held[1]}, whose loading could run any code" if held else one_line(error).split(". ")[0]
        raise ModelError(
            f"{path}: must be a state dict, tensors alone, but {but}. Where you have the module, save "
            "`module.state_dict()` by torch.save, or as safetensors, and give that file."
        ) from None
    notes: tuple[str, ...] = ()
    for key in KEYS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found, notes = found[key], (f"{path}: the weights are those under {key!r}.",)
            break
    if not isinstance(found, Mapping):
        got = f"a {type(found).__name__}"
    elif wrong := [key for key, value in found.items() if not isinstance(value, Tensor)]:
        got = f"{wrong[0]!r}, a {type(found[wrong[0]]).__name__}"
    elif found:
        return dict(found), notes
    else:
        got = "nothing"
    keys = " or ".join(map(repr, KEYS))
    raise ModelError(f"{path}: must hold a state dict, names and tensors, itself or under {keys}, but it has {got}.")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
