"""What real samples and the weights say of each channel and edge of a module: the report behind `nas prune inspect`.

Nothing is changed. A *layer* is a convolution or linear layer (an octave convolution with all its paths), its channels
are followed to the activation that comes after it. What holds for every input is told from what was seen on samples,
whose number is given. APoZ, the average percentage of zeros, is that of [1].

[1] Hu, Peng, Tai, Tang: Network Trimming. 2016.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from pruning.channels import Names
from pruning.choice import Chooser
from pruning.edges import edges, joined, layers_of, maps
from pruning.exact import Pruned, remove_dead
from pruning.measures import Measured, measure
from pruning.pairs import Pairs
from pruning.places import PruneError, tensors
from pruning.report import Alike, Channel, Diluted, Layer, Report, Thresholds, Weak
from pruning.tracks import NOWHERE, OUTPUT, Spot, Track, Tracks, homes, lay_tracks
from searchspace.network import Network

POSITIONS = 4096  # places, over all samples, for moments of pairs: noise of a correlation 1/64
SECONDS = 600.0


def inspect(
    module: nn.Module,
    batches: Iterable[Tensor],
    *,
    thresholds: Thresholds | None = None,
    positions: int = POSITIONS,
    seed: int = 0,
    seconds: float = SECONDS,
) -> Report:
    """What `batches`, tensors of (batch, channels, *space), show of `module` in evaluation mode, which stays as it is.

    Some hundred samples are meant: they are all held at once, what they make in the module is not. Moments of pairs
    of channels take at least `positions` places over all samples, where maps have as many, drawn from `seed`. What
    `remove_dead` would take is asked of that itself, within `seconds`. Raises `PruneError` where the module does not
    run on the batches, and for fewer than 2 samples.
    """
    limits, data = thresholds or Thresholds(), list(batches)
    samples = _checked(module, data)
    plain = copy.deepcopy(module).cpu().double()
    tracks = lay_tracks(plain, torch.cat([x.cpu()[:2] for x in data])[:2].double())
    if not tracks.tracks:
        raise PruneError("A module to inspect must have a convolution or linear layer that runs, but it has none.")
    spots = {spot.place for track in tracks.tracks for spot in (*track.own.values(), *track.active.values())}
    alike = {spot.place for track in tracks.tracks for spot in track.own.values()}
    each = -(-positions // samples)
    measured = measure(plain, data, tracks.tracks, at=spots, alike=alike, each=each, seed=seed)
    if unseen := spots - measured.spreads.keys() | {track.place for track in tracks.tracks} - measured.inputs.keys():
        where = ", ".join(sorted({f"{place.operation} in {place.module or 'the module itself'}" for place in unseen}))
        raise PruneError(f"A module must run the same operations on every input, but some do not always run: {where}.")
    example = torch.zeros(2, *data[0].shape[1:])
    pruned, refusal = None, ""
    try:
        pruned = remove_dead(module, data, example=example, seed=seed, seconds=seconds)
    except PruneError as error:
        refusal = str(error)
    return Report(
        samples=samples,
        thresholds=limits,
        layers=tuple(_Inspection(plain, tracks, measured, pruned, limits).layers()),
        refusal=refusal,
    )


def _checked(module: nn.Module, data: Sequence[Tensor]) -> int:
    """The number of samples."""
    for x in data:
        if not isinstance(x, Tensor) or x.dim() < 2 or x.shape[1:] != data[0].shape[1:]:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise PruneError(f"Batches must be tensors of (batch, channels, *space) of one shape, but got {got}.")
        if not x.isfinite().all():
            raise PruneError("Batches must be finite, but one holds NaN or infinity.")
    if isinstance(module, Network) and data and data[0].shape[1:] != module.architecture.input:
        wanted = ", ".join(map(str, module.architecture.input))
        raise PruneError(f"Each batch must be a tensor of (batch, {wanted}), but got {tuple(data[0].shape)}.")
    samples = sum(map(len, data))
    if samples < 2:
        raise PruneError(f"At least 2 samples must be given to see what varies, but got {samples}.")
    plain = copy.deepcopy(module).cpu().float().eval()
    x = torch.cat([x[:2] for x in data])[:2].cpu().float()
    try:
        with torch.no_grad():
            found = tensors(plain(x))
    except Exception as error:  # whatever code that is not ours raises
        raise PruneError(f"A module must run on batches of {tuple(x.shape[1:])}, but: {error}") from error
    if not found:
        raise PruneError("A module must return a tensor of floating-point numbers, or several, but it returns none.")
    return samples


class _Inspection:
    """Everything that is known of a module, put together layer by layer."""

    def __init__(
        self, module: nn.Module, tracks: Tracks, measured: Measured, pruned: Pruned | None, limits: Thresholds
    ) -> None:
        self.module, self.tracks, self.measured, self.pruned, self.limits = module, tracks, measured, pruned, limits
        self.homes, self.names, self.graph = homes(module), Names(module), tracks.graph
        self.chooser = Chooser(self.graph, module)
        self.reads = {name: self.chooser.read(d, frozenset()) for name, d in self.graph.dense.items()}
        self.pairs = {name.rpartition(".")[0]: sums.result() for name, sums in measured.pairs.items()}
        self.structure = {name: maps(layer) for name, layer in layers_of(module)}
        self.edges = {e.name: e for e in edges(module, limits.negligible)}
        self.places: dict[str, list[Track]] = defaultdict(list)  # by weight
        for track in tracks.tracks:
            self.places[track.weight].append(track)
        self.readers = self._readers()
        self.removed = {} if pruned is None else pruned.removed
        self.kept = {} if pruned is None else pruned.kept
        self.equal = self._equal()

    def home(self, layer: str, channel: int = 0) -> tuple[str, int]:
        name, first = self.homes.get(layer, (layer, 0))
        return name, first + channel

    def layers(self) -> Iterator[Layer]:
        """In the order in which they first run."""
        by_layer: dict[str, list[Track]] = defaultdict(list)
        for track in self.tracks.tracks:
            by_layer[self.home(track.layer)[0]].append(track)
        names = {part: name for name, part in self.module.named_modules()}
        for name, tracks in by_layer.items():
            ways: dict[int, list[tuple[Track, int]]] = defaultdict(list)
            for track in tracks:
                for channel in sorted(track.own):
                    ways[self.home(track.layer, channel)[1]].append((track, channel))
            active = [spot.place for track in tracks for spot in track.active.values()]
            activation = f"{active[0].module or 'forward'}: {active[0].operation}" if active else ""
            parts = self.structure.get(name, [])
            spans = {names[part.module]: (part.rows, part.columns) for part in parts}
            measured = bool(parts) and all(part in self.pairs for part in spans)
            yield Layer(
                name=name,
                kind=type(self.module.get_submodule(name)).__name__,
                activation=activation,
                summed=any(track.summed for track in tracks),
                channels=tuple(self._channel(channel, ways[channel]) for channel in sorted(ways)),
                edges=self.edges.get(name),
                weak=self._weak(name, spans) if measured else None,
                diluted=self._diluted(spans) if measured else None,
                equal=tuple(self.equal.get(name, ())),
                close=tuple(self._close(name, ways)),
                matrices={part: self.pairs[part].correlation for part in spans} if measured else {},
                strong={part: self.pairs[part].strong(self.limits.weak, self.limits.tiny) for part in spans}
                if measured
                else {},
                spans=spans if measured else {},
            )

    # channels

    def _channel(self, number: int, ways: Sequence[tuple[Track, int]]) -> Channel:
        own = list(dict.fromkeys(track.own[c] for track, c in ways))
        active = list(dict.fromkeys(track.active[c] for track, c in ways if c in track.active))
        low, high = min(self._at(s, "low") for s in own), max(self._at(s, "high") for s in own)
        value = low if low == high else None
        count = sum(self.measured.spreads[s.place].count for s in active)
        zeros = sum(self._at(s, "zeros") for s in active)
        removed = self._removed(ways)
        cause, reason = removed or "", ""
        if value is not None and removed is None:
            cause = f"{'zero' if value == 0 else 'constant'} on all {self.measured.samples} samples"
            if (kept := self._kept(ways, value)) is not None:
                cause, reason = kept
            elif self.pruned is not None:
                reason = "is constant in float32 alone, or not followed"
        dead, live = self._readers_of(ways)
        return Channel(
            channel=number,
            value=value,
            cause=cause,
            apoz=zeros / count if active else None,
            mean=sum(self._at(s, "mean") for s in own) / len(own),
            deviation=max(self._at(s, "deviation") for s in own),
            dead_for=dead,
            live_for=live,
            removable=None if self.pruned is None else removed is not None,
            reason=reason,
        )

    def _at(self, spot: Spot, figure: str) -> float:
        return float(getattr(self.measured.spreads[spot.place], figure)[spot.index])

    def _removed(self, ways: Sequence[tuple[Track, int]]) -> str | None:
        """The cause for which `remove_dead` takes a channel; None where it does not."""
        for track, channel in ways:
            if track.slots:
                name, number = self.names(*self.graph.producers[track.slots[channel]])
                for constant in self.removed.get(name, ()):
                    if constant.channel == number:
                        return constant.cause
        return None

    def _kept(self, ways: Sequence[tuple[Track, int]], value: float) -> tuple[str, str] | None:
        """(cause, reason) of a constant that stays."""
        for track, channel in ways:
            for module, index in track.met[channel]:
                name, number = self.names(module, index)
                for kept in self.kept.get(name, ()):
                    found = kept.constant
                    if found.channel == number and found.value is not None and abs(found.value - value) < 1e-4:
                        return found.cause, kept.reason
        return None

    def _readers(self) -> dict[tuple[Track, int], dict[str, bool]]:
        """By track and channel: the layers that read it, and whether it can matter there."""
        found: dict[tuple[Track, int], dict[str, bool]] = defaultdict(dict)
        for weight, trails in self.tracks.reads.items():
            if weight == OUTPUT:
                name, matters = OUTPUT, None
            else:
                name = self.home(weight.rpartition(".")[0])[0]
                spreads = [self.measured.inputs[track.place] for track in self.places[weight]]
                matters = torch.stack([(s.low != 0) | (s.high != 0) for s in spreads]).any(0)
                if weight in self.reads:
                    matters = matters & self.reads[weight]
            for trail in trails:
                for column, channel in enumerate(trail.channels):
                    if channel != NOWHERE:
                        here = found[trail.track, channel]
                        here[name] = here.get(name, False) or matters is None or bool(matters[column])
        return found

    def _readers_of(self, ways: Sequence[tuple[Track, int]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(those that a channel is dead for, those it is not)."""
        together: dict[str, bool] = {}
        for way in ways:
            for name, matters in self.readers.get(way, {}).items():
                together[name] = together.get(name, False) or matters
        return tuple(n for n, live in together.items() if not live), tuple(n for n, live in together.items() if live)

    # pairs of channels

    def _equal(self) -> dict[str, list[Alike]]:
        """By layer, the channels that equal an earlier one wherever weights read both, whatever the input."""
        found: dict[str, dict[tuple[str, int], tuple[str, int]]] = defaultdict(dict)
        for weight, groups in self.chooser.twins.items():
            inputs = self.graph.dense[weight].inputs
            for columns in groups:
                some = [c for c in columns if torch.isnan(inputs.values[c])]
                named = [self.home(*self.graph.producers[inputs.slots[c]]) for c in some]
                for other in dict.fromkeys(named[1:]):
                    if other != named[0]:
                        found[other[0]].setdefault(other, named[0])
        return {
            layer: [Alike(first=first, second=second, correlation=None) for second, first in pairs.items()]
            for layer, pairs in found.items()
        }

    def _close(self, name: str, ways: Mapping[int, Sequence[tuple[Track, int]]]) -> Iterator[Alike]:
        """Each channel that nearly follows an earlier one of its layer on the samples, with the closest of those."""
        proved = {pair.second for pair in self.equal.get(name, ())}
        by_place: dict[object, dict[int, int]] = defaultdict(dict)
        for channel, listed in ways.items():
            spot = listed[0][0].own[listed[0][1]]
            by_place[spot.place][channel] = spot.index
        for place, channels in by_place.items():
            likeness = self.measured.likeness.get(place)  # type: ignore[call-overload]
            if likeness is None:
                continue
            numbers = sorted(channels)
            index = torch.tensor([channels[c] for c in numbers])
            alike = likeness.correlation()[index][:, index].tril(-1)
            best, first = alike.abs().max(1)
            for row in (best >= self.limits.close).nonzero().flatten().tolist():
                if (name, numbers[row]) not in proved:
                    column = int(first[row])
                    yield Alike(
                        first=(name, numbers[column]),
                        second=(name, numbers[row]),
                        correlation=float(alike[row, column]),
                    )

    # pairs of inputs and filters

    def _weak(self, name: str, spans: Mapping[str, tuple[range, range]]) -> Weak:
        pairs = [self.pairs[part] for part in spans]
        live = [p.strong(self.limits.weak, self.limits.tiny) for p in pairs]
        blocks = joined(self.structure[name], live).blocks
        strengths = torch.cat([p.correlation.abs().flatten() for p in pairs])
        return Weak(
            share=1 - sum(int(some.sum()) for some in live) / len(strengths),
            power=_weak_power(pairs, live, spans),
            groups=self.edges[name].groups,
            groups_supported=blocks.groups,
            certain=blocks.certain,
            histogram=tuple(int(n) for n in torch.histc(strengths, 20, 0, 1)),
            positions=min(p.positions for p in pairs),
            orders=blocks.orders,
        )

    def _diluted(self, spans: Mapping[str, tuple[range, range]]) -> Diluted | None:
        """Of a pointwise convolution; None of any other."""
        weights = [self.module.get_parameter(f"{part}.weight").detach() for part in spans]
        if any(w.dim() < 3 or w[0, 0].numel() != 1 for w in weights):
            return None
        coefficients = tiny = 0
        seen, heavy = (torch.zeros(max(columns.stop for _, columns in spans.values()), dtype=torch.bool) for _ in "ab")
        for (part, (_, columns)), weight in zip(spans.items(), weights, strict=True):
            pairs = self.pairs[part]
            flat = weight.flatten(1)
            small = (pairs.strength < self.limits.tiny) & (flat != 0)
            coefficients += int((flat != 0).sum())
            tiny += int(small.sum())
            by_group = [
                t.view(pairs.groups, -1, t.shape[1]).any(1).flatten() for t in (flat != 0, (flat != 0) & ~small)
            ]
            seen[columns.start : columns.stop] |= by_group[0]
            heavy[columns.start : columns.stop] |= by_group[1]
        return Diluted(coefficients=coefficients, tiny=tiny, inputs=tuple((seen & ~heavy).nonzero().flatten().tolist()))


def _weak_power(pairs: Sequence[Pairs], live: Sequence[Tensor], spans: Mapping[str, tuple[range, range]]) -> float:
    """The share of the variance of contributions that is in weak pairs, the mean over filters that vary."""
    filters = max(rows.stop for rows, _ in spans.values())
    weak, whole = torch.zeros(filters), torch.zeros(filters)
    for p, some, (rows, _) in zip(pairs, live, spans.values(), strict=True):
        weak[rows.start : rows.stop] += p.power.where(~some, 0).sum(1)
        whole[rows.start : rows.stop] += p.power.sum(1)
    varies = whole > 0
    return float((weak[varies] / whole[varies]).mean()) if varies.any() else 0.0
