"""A network on disk: its weights as safetensors, its architecture as JSON in the same file. No pickle.

Written to a temporary name and renamed, so a file that is there is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from searchspace.architecture import ArchitectureError
from searchspace.network import Network, build, read_architecture
from searchspace.notation import from_json, to_json

FORMAT = "network/1"


class CheckpointError(ValueError):
    """A file that is not a whole network of this format."""


def save(path: Path, network: Network, metadata: Mapping[str, str] | None = None) -> None:
    """Write `network`, as its tensors are now, with `metadata` beside it."""
    architecture = read_architecture(network)
    header = {**(metadata or {}), "format": FORMAT, "architecture": json.dumps(to_json(architecture))}
    write(path, {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, header)


def load(path: Path) -> Network:
    """The network in `path`, in evaluation mode. Raises `CheckpointError` where it is missing, cut short or other."""
    network, _ = load_with_metadata(path)
    return network


def load_with_metadata(path: Path) -> tuple[Network, dict[str, str]]:
    """The network in `path` and what was written beside it."""
    tensors, header = read(path, FORMAT)
    try:
        network = build(from_json(json.loads(header.pop("architecture"))))
        network.load_state_dict(tensors, assign=True)  # keeps their dtype
    except (ArchitectureError, KeyError, json.JSONDecodeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: must be a network file of this format, but {error}") from None
    return network.eval(), header


def write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Tensors and words, whole or not at all."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    whole = save(dict(tensors), metadata=dict(header))  # its save_file has a temporary of its own, of any name
    try:
        temporary.write_bytes(whole)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read(path: Path, form: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and words in a file whose format is `form`. Raises `CheckpointError`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            if (got := header.get("format")) != form:
                newer = "; another version of this package reads it" if _kind(got) == _kind(form) else ""
                raise CheckpointError(f"{path}: the format must be {form!r}, but got {got!r}{newer}.")
            # Copied, so that they lie in memory aligned as fresh tensors do: kernels round by alignment, and outputs
            # would differ in the last bit from the network's that was saved.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, header  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there must be a network file here, but there is none.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: must be a network file of this format, but {error}") from None


def format_of(path: Path) -> str | None:
    """The format that a safetensors file says; None where it says none, or is no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format")
    except (SafetensorError, OSError):
        return None


def _kind(form: str | None) -> str:
    return str(form).partition("/")[0]
