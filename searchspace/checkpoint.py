"""A network on disk: its weights as safetensors, its architecture as JSON in the same file. No pickle.

Written to a temporary name and renamed, so a file that is there is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from searchspace.architecture import ArchitectureError
from searchspace.network import Network, build, read_architecture
from searchspace.notation import from_json, to_json

FORMAT = "network/1"


class CheckpointError(ValueError):
    """A file that is not a whole network of this format."""


def save(path: Path, network: Network, metadata: Mapping[str, str] | None = None) -> None:
    """Write `network`, as its tensors are now, with `metadata` beside it."""
    from safetensors.torch import save_file

    architecture = read_architecture(network)
    header = {**(metadata or {}), "format": FORMAT, "architecture": json.dumps(to_json(architecture))}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, temporary, metadata=header)
    os.replace(temporary, path)


def load(path: Path) -> Network:
    """The network in `path`, in evaluation mode. Raises `CheckpointError` where it is missing, cut short or other."""
    network, _ = load_with_metadata(path)
    return network


def load_with_metadata(path: Path) -> tuple[Network, dict[str, str]]:
    """The network in `path` and what was written beside it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            if header.get("format") != FORMAT:
                raise CheckpointError(f"{path}: the format must be {FORMAT!r}, but got {header.get('format')!r}.")
            # Copied, so that they lie in memory aligned as fresh tensors do: kernels round by alignment, and outputs
            # would differ in the last bit from the network's that was saved.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        network = build(from_json(json.loads(header.pop("architecture"))))
        network.load_state_dict(tensors, assign=True)  # keeps their dtype
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there must be a network file here, but there is none.") from None
    except (SafetensorError, OSError, ArchitectureError, KeyError, json.JSONDecodeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: must be a network file of this format, but {error}") from None
    return network.eval(), header
