"""The report of an inspection as plain data: what was found of each channel, edge and pair of a module's layers.

It becomes JSON, and a line a layer for a terminal. `statistics.inspect` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from pruning.edges import Edges

FORMAT = "inspect/1"
HEAD = [
    *("layer", "channels", "zero", "const", "APoZ", "max", "dead edges", "weak", "groups", "supports", "alike", "tiny"),
    *("removable", "activation"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Where a number becomes a finding.

    `tiny`: a pair of input and filter whose contribution deviates by less than this share of the filter's largest one.
    `weak`: a pair whose |correlation| is below, or which is tiny. `close`: two channels whose |correlation| is at least
    this. `negligible`: a kernel slice whose norm is at most this share of its layer's largest.
    """

    weak: float = 0.1
    close: float = 0.99
    tiny: float = 0.01
    negligible: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < 1:
                raise ValueError(f"`{name}` must be at least 0 and below 1, but got {value}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One channel of a layer.

    `value`: what it is where it is constant on all samples, None where it varies. `cause`: why it is constant, or why
    what varies is removable. `apoz`, a share, counts zeros after the activation; None where none follows. `mean` and
    `deviation` are over samples and places, after the activation if that comes before any sum, else after the norm, or
    of the output itself. `dead_for` and `live_for`: the layers that read it, by whether that can matter: weights read
    it, and it is not zero there on all samples. `removable`: whether `remove_dead` takes it, with these samples; None
    where that refuses the module. `reason`: why what is constant stays.
    """

    channel: int
    value: float | None
    cause: str
    apoz: float | None
    mean: float
    deviation: float
    dead_for: tuple[str, ...]
    live_for: tuple[str, ...]
    removable: bool | None
    reason: str

    @property
    def zero(self) -> bool:
        return self.value == 0

    @property
    def constant(self) -> bool:
        """Constant, but not zero."""
        return self.value is not None and self.value != 0

    @property
    def dead(self) -> str:
        """ "everywhere", "for some" of those that read it, or ""."""
        return "" if not self.dead_for else "for some" if self.live_for else "everywhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Two channels, each as (layer, channel): equal for every input, or with a `correlation` on the samples.

    At a correlation of 1 one is a multiple of the other, and a constant more.
    """

    first: tuple[str, int]
    second: tuple[str, int]
    correlation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weak:
    """The pairs of inputs and filters of a layer, and what is left without those that correlate weakly.

    `share` of the pairs are weak; `power` is the share of the variance of contributions that lies in them, the mean
    over filters. The others fit into `groups_supported` groups, channels reordered: `orders` has those of the inputs
    and outputs. `histogram`: how many pairs have |correlation| in each twentieth from 0 to 1. `positions`: places
    looked at.
    """

    share: float
    power: float
    groups: int
    groups_supported: int
    certain: bool
    histogram: tuple[int, ...]
    positions: int
    orders: tuple[tuple[int, ...], ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diluted:
    """Coefficients of a pointwise convolution: how many are not zero, how many of them are `tiny`.

    `inputs`: those whose coefficients are all tiny, or zero.
    """

    coefficients: int
    tiny: int
    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer. `activation`: the module and operation of what follows it, in `summed` only after a sum.

    `matrices`: of each of its convolutions by name, (filters, inputs / groups) correlations, and where in the layer
    those stand: `spans` has the outputs and inputs; `strong` has those pairs that are not weak.
    """

    name: str
    kind: str
    activation: str
    summed: bool
    channels: tuple[Channel, ...] = field(repr=False)
    edges: Edges | None
    weak: Weak | None
    diluted: Diluted | None
    equal: tuple[Alike, ...] = field(repr=False)
    close: tuple[Alike, ...] = field(repr=False)
    matrices: Mapping[str, Tensor] = field(repr=False)
    strong: Mapping[str, Tensor] = field(repr=False)
    spans: Mapping[str, tuple[range, range]] = field(repr=False)

    @property
    def doubled(self) -> int:
        """Channels that equal another one, or nearly."""
        return len({pair.second for pair in (*self.equal, *self.close) if pair.second[0] == self.name})

    @property
    def apoz(self) -> list[float]:
        return [c.apoz for c in self.channels if c.apoz is not None]

    def matrix(self, *, strong: bool = False) -> Tensor | None:
        """(outputs, inputs): the correlations, or the `strong` ones; NaN for the others. None where not known."""
        if self.edges is None or not self.matrices:
            return None
        whole = torch.full((len(self.edges.in_degree), len(self.edges.out_degree)), torch.nan)
        for name, (rows, columns) in self.spans.items():
            part = self.matrices[name]
            if strong:
                part = part.where(self.strong[name], torch.nan)
            groups = len(columns) // part.shape[1]
            block = whole[rows.start : rows.stop, columns.start : columns.stop]
            for row, column, values in zip(block.chunk(groups), range(groups), part.chunk(groups)):
                row.narrow(1, column * part.shape[1], part.shape[1]).copy_(values)
        return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found of a module on `samples`; `refusal` is why `remove_dead` refused it, or empty."""

    samples: int
    thresholds: Thresholds
    layers: tuple[Layer, ...]
    refusal: str

    def to_json(self) -> dict[str, object]:
        """All but the correlation matrices, as plain data."""
        return {
            "format": FORMAT,
            "samples": self.samples,
            "thresholds": asdict(self.thresholds),
            "refusal": self.refusal,
            "layers": [_layer_json(layer) for layer in self.layers],
        }

    @property
    def reading(self) -> str:
        """What the columns of `HEAD` mean, with the thresholds and how much was looked at."""
        limits, places = self.thresholds, sorted({layer.weak.positions for layer in self.layers if layer.weak})
        many = " to ".join(f"{n:,}" for n in dict.fromkeys((places[0], places[-1]))) if places else "no"
        most = f"zero, or at most {limits.negligible:g} of the largest by norm" if limits.negligible else "zero"
        return (
            f"On {self.samples:,} samples, pairs of channels at {many} places. zero, const: channels that are always "
            "zero, or another constant. APoZ, max: average percentage of zeros after the activation, the mean and the "
            f"greatest of the channels. dead edges: kernel slices W[o, c] that are {most}. weak: pairs of input and "
            "filter, where what the filter makes of that input alone correlates with its whole output by less than "
            f"{limits.weak:g}, or moves it less than {limits.tiny:g} of the largest. supports: the most groups that "
            "the other pairs fit into, channels reordered; a + where the search for more was cut short. alike: "
            "channels that equal an earlier one, or correlate with it by at least "
            f"{limits.close:g}. tiny: coefficients of a pointwise convolution that move their filter less than "
            f"{limits.tiny:g} of the largest. removable: channels that leave exactly."
        )

    def rows(self) -> list[list[str]]:
        """A line a layer, under `HEAD`."""
        return [_row(layer) for layer in self.layers]


def _layer_json(layer: Layer) -> dict[str, object]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "activation": layer.activation,
        "summed": layer.summed,
        "channels": [{**asdict(c), "dead": c.dead} for c in layer.channels],
        "edges": None if layer.edges is None else layer.edges.to_json(),
        "weak": None if layer.weak is None else {k: v for k, v in asdict(layer.weak).items() if k != "orders"},
        "diluted": None if layer.diluted is None else asdict(layer.diluted),
        "equal": [asdict(pair) for pair in layer.equal],
        "close": [asdict(pair) for pair in layer.close],
    }


def _row(layer: Layer) -> list[str]:
    channels, edges, weak, diluted = layer.channels, layer.edges, layer.weak, layer.diluted
    mean = sum(layer.apoz) / len(layer.apoz) if layer.apoz else None
    sure = "" if weak is None or weak.certain else "+"
    known = [c.removable for c in channels if c.removable is not None]
    return [
        layer.name or "(itself)",
        str(len(channels)),
        str(sum(c.zero for c in channels)),
        str(sum(c.constant for c in channels)),
        _share(mean),
        _share(max(layer.apoz, default=None)),
        "-" if edges is None else _share(1 - edges.live_share),
        "-" if weak is None else _share(weak.share),
        "-" if edges is None else str(edges.groups),
        "-" if weak is None else f"{weak.groups_supported}{sure}",
        str(layer.doubled),
        "-" if diluted is None else _share(diluted.tiny / max(diluted.coefficients, 1)),
        str(sum(known)) if known else "-",
        (layer.activation or "-") + (" after a sum" if layer.summed else ""),
    ]


def _share(value: float | None) -> str:
    """In percent; what is not all, or nothing, does not look so."""
    if value is None:
        return "-"
    if 0 < value < 0.005 or 0.995 <= value < 1:
        return "<1%" if value < 0.5 else ">99%"
    return f"{value:.0%}"
