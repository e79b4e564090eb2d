"""What `nas prune edges` says of a module: the live edges of each layer, and the groups that they would fit into."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.terminal import table
from pruning.edges import Edges
from pruning.regroup import Regrouped

HEAD = ["layer", "kind", "groups", "edges", "live", "dead in", "dead out", "parts", "supports", "to regroup"]
READING = (
    "edges: kernel slices W[o, c]. live: the share that is not zero{within}. dead in, dead out: channels that no live "
    "edge reads, makes. parts: live edges fall into so many. supports: the most equal groups that those fit into, "
    "channels reordered; a + where the search for more was cut short."
)


def record(layers: Sequence[Edges], tolerance: float = 0.0, regrouped: Regrouped | None = None) -> dict[str, object]:
    """The report for machines."""
    return {
        "format": "edges/1",
        "tolerance": tolerance,
        "layers": [layer.to_json() for layer in layers],
        "regrouped": None if regrouped is None else regrouped.to_json(),
    }


def text(layers: Sequence[Edges], tolerance: float = 0.0, regrouped: Regrouped | None = None) -> str:
    """The report for people: a layer a line, what could be regrouped, and what was with its proof."""
    within = f" nor at most {tolerance:g} of the layer's largest by norm" if tolerance else ""
    able = [layer.name for layer in layers if layer.regroups]
    lines = [table(HEAD, rows(layers)), "", READING.format(within=within)]
    if regrouped is not None:
        proof = regrouped.proof
        lines += [regrouped.words, f"Measured in float64 on {proof.samples} fresh inputs: {proof.inputs}."]
    elif able:
        lines.append(f"Can be regrouped: {', '.join(able)}.")
    else:
        lines.append("Nothing to regroup: no convolution's live edges fall into more groups than it has.")
    return "\n".join(lines)


def rows(layers: Sequence[Edges]) -> list[list[str]]:
    """The cells under `HEAD`."""
    return [
        [
            layer.name or "(itself)",
            layer.kind,
            str(layer.groups),
            f"{layer.edges:,}",
            f"{layer.live_share:.1%}",
            str(layer.out_degree.count(0)),
            str(layer.in_degree.count(0)),
            str(layer.components),
            f"{layer.groups_supported}{'' if layer.blocks.certain else '+'}",
            _verdict(layer),
        ]
        for layer in layers
    ]


def _verdict(layer: Edges) -> str:
    if layer.regroups:
        return "yes"
    if layer.groups_supported == layer.groups:
        return "no more groups"
    return f"no: {layer.obstacle}"
