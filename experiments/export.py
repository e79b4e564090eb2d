"""A model as ONNX or as torch.export's own file, for any batch size, its outputs compared with the module's.

The file is loaded again and run on random inputs before it takes its name. Beside it, FILE.json says how far it is
from the module.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves

from experiments.models import Model, ModelError
from nas.folder import write_json
from searchspace.factory import one_line

FORMAT = "export/1"
BATCHES = (1, 4)
LIMIT = 1000  # rounding errors of the model's precision, as a share of the greatest output

Run = Callable[[Tensor], Sequence[Tensor]]


class ExportError(RuntimeError):
    """A model that cannot be exported, or whose file does not compute what the model does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written. Errors, by batch size: the largest difference as a share of the largest output."""

    file: str
    model: str
    input: tuple[int, ...]
    outputs: int
    size_bytes: int
    relative_errors: dict[int, float]

    def to_json(self) -> dict[str, object]:
        return {"format": FORMAT, **asdict(self)}


def export(model: Model, path: Path) -> Exported:
    """Write `model` as .onnx or .pt2 and a record beside it. Raises `ExportError`, and leaves no file then."""
    if path.suffix not in _WRITERS:
        raise ModelError(f"--out must end in {' or '.join(_WRITERS)} (got {str(path)!r}).")
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if path.suffix == ".onnx" and absent:
        raise ModelError(f".onnx files need {absent[0]}, which is not installed: pip install 'convsearch[export]'.")
    if path.suffix == ".onnx" and model.example.dtype != torch.float32:
        dtype = str(model.example.dtype).removeprefix("torch.")
        raise ModelError(
            f"{model.name}: .onnx files are of float32 weights, but got {dtype}: write a .pt2 file instead."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        run = _WRITERS[path.suffix](_traced(model), model, temporary)
        outputs, errors = _compared(model, run)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    exported = Exported(
        file=str(path),
        model=model.name,
        input=model.input,
        outputs=outputs,
        size_bytes=path.stat().st_size,
        relative_errors=errors,
    )
    write_json(path.with_name(f"{path.name}.json"), exported.to_json())
    return exported


def _traced(model: Model) -> ExportedProgram:
    try:
        program = torch.export.export(model.module, (model.example,), dynamic_shapes=({0: Dim("batch")},))
    except Exception as error:  # torch tells with many kinds what it cannot trace
        raise ExportError(f"{model.name} must be traceable for any batch size, but: {one_line(error)}") from error
    program.example_inputs = None  # torch would pickle them into the file
    return program


def _compared(model: Model, run: Run) -> tuple[int, dict[int, float]]:
    """How many outputs there are, and how far they are from the module's by batch size."""
    errors = {}
    generator = torch.Generator().manual_seed(1)
    limit = LIMIT * torch.finfo(model.example.dtype).eps
    for batch in BATCHES:
        x = torch.randn(batch, *model.input, generator=generator).to(model.example.dtype)
        with torch.no_grad():
            wanted = [leaf for leaf in tree_leaves(model.module(x)) if isinstance(leaf, Tensor)]
        got = run(x)
        if [w.shape for w in wanted] != [g.shape for g in got]:
            raise ExportError(f"{model.name}: the file's outputs must have the model's shapes, but at {batch=} not.")
        greatest = max(float(w.abs().max()) for w in wanted) or 1.0
        errors[batch] = max(float((w - g).abs().max()) for w, g in zip(wanted, got, strict=True)) / greatest
        if not errors[batch] <= limit:
            raise ExportError(
                f"{model.name}: the file's outputs must be the model's to {limit:.1g} of the greatest, but at {batch=} "
                f"they are {errors[batch]:.2g} apart. No file is left."
            )
    return len(wanted), errors


def _write_onnx(program: ExportedProgram, model: Model, path: Path) -> Run:
    import onnxruntime

    try:
        with warnings.catch_warnings():
            # torch 2.13 copies its own tree specs in the way that it deprecates.
            warnings.filterwarnings("ignore", message="`isinstance.treespec, LeafSpec.` is deprecated")
            made = torch.onnx.export(
                program,
                (model.example,),
                input_names=["input"],
                dynamic_shapes=({0: "batch"},),
                dynamo=True,
                verbose=False,
            )
        assert made is not None
        made.save(path, external_data=False)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exporter and the runtime raise of every kind
        raise ExportError(f"{model.name} must have an ONNX form, but: {one_line(_root(error))}") from error

    def run(x: Tensor) -> list[Tensor]:
        return [torch.from_numpy(y) for y in session.run(None, {"input": x.numpy()})]

    return run


def _root(error: BaseException) -> BaseException:
    """What started it: the exporter wraps errors in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _write_torch(program: ExportedProgram, model: Model, path: Path) -> Run:
    try:
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
    except Exception as error:
        raise ExportError(f"{model.name} must have a torch.export file, but: {one_line(error)}") from error

    def run(x: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return [leaf for leaf in tree_leaves(loaded(x)) if isinstance(leaf, Tensor)]

    return run


_WRITERS: dict[str, Callable[[ExportedProgram, Model, Path], Run]] = {".onnx": _write_onnx, ".pt2": _write_torch}
