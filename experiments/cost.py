"""What `nas cost` says of one architecture: its costs, and the design principles that it breaks."""

from __future__ import annotations

import textwrap
from dataclasses import asdict

from searchspace.architecture import Architecture
from searchspace.cost import cost
from searchspace.notation import words
from searchspace.principles import breaches

UNITS = {
    "flops": "fvcore's total: 1 multiply-add = 1, norms, pools included",
    "macs": "multiply-adds of convolutions and linear: papers' FLOPs",
    "params": "trainable",
    "activations": "elements put out by convolutions and linear layers",
    "peak_activations": "most elements one layer reads and writes",
    "interactions": "pairs of input channels joined by a filter",
    "params_without_bn": "weights and biases, as some papers count",
    "macs_without_classifier": "without the last layer, as some papers count",
    "receptive_field": "of the last map before global pooling",
}


def figures(architecture: Architecture) -> dict[str, int | tuple[int, ...]]:
    """Everything that `Cost` says, by name."""
    price = cost(architecture)
    return {name: getattr(price, name) for name in UNITS}


def record(architecture: Architecture) -> dict[str, object]:
    """The cost and the breaches for machines."""
    return {
        "format": "cost/1",
        "digest": architecture.digest,
        "input": list(architecture.input),
        **figures(architecture),
        "breaches": [asdict(breach) for breach in breaches(architecture)],
    }


def lines(architecture: Architecture, width: int = 100) -> list[str]:
    """The cost and the breaches for people, a figure a line."""
    text = [words(architecture)]
    numbers = {
        name: " x ".join(map(str, value)) if isinstance(value, tuple) else f"{value:,}"
        for name, value in figures(architecture).items()
    }
    longest = max(16, *map(len, numbers.values()))
    text += [f"{name:<24}{number:>{longest}}   {UNITS[name]}" for name, number in numbers.items()]
    found = breaches(architecture)
    if not found:
        text.append(f"{'breaches':<24}{'':>{longest}}   none of the design principles that are checked")
    for breach in found:
        said = f"breach: {breach.principle} at {breach.place}: {breach.message}"
        text += textwrap.wrap(said, width, subsequent_indent="  ", break_on_hyphens=False)
    return text
