"""A space grown from a published network: its width and resolution, and per stage what the papers' plug-ins change.

A file names the network (`base: mobilenet_v2`, or a mapping with its arguments) and the values of the options in
`searchspace.growth`, for stages by their label (`stages: {stage2: {alpha: [0, 0.25]}}`) or for each but stem and head
(`every: {...}`). `width` at the top is the network's own multiplier where it has one, `widen` of everything where not.

Stage after stage is rewritten, as it stands behind what its predecessors became and before the base's own next
stages: what it becomes depends on its input and its own options alone, and is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from inspect import signature
from itertools import product
from math import prod
from random import Random

from searchspace.architecture import Architecture, ArchitectureError, Chain, Conv, Node, Shape, shape_after
from searchspace.blocks import SPATIOTEMPORAL
from searchspace.choices import Place, SpaceError, Value
from searchspace.codes import Candidate, Code, Codes
from searchspace.growth import NOTHING, STEPS, Options, read
from searchspace.named import call, network
from searchspace.published import NETWORKS
from searchspace.transforms import Predicate, everywhere, widen
from searchspace.widths import Flow


class Grown(Codes):
    """The architectures that a published network grows into, on inputs of (channels, *space)."""

    def __init__(self, record: Mapping[str, object], *, input: tuple[int, ...], classes: int) -> None:
        self._record, overall, self._stages = read(record)
        values = {**overall, **{f"{s}.{n}": v for s, options in self._stages.items() for n, v in options.items()}}
        super().__init__(values, input, classes)
        self._base = lru_cache(maxsize=64)(self._build_base)
        self._fragment = lru_cache(maxsize=1 << 12)(self._build_fragment)
        self._stage = lru_cache(maxsize=1 << 16)(self._build_stage)
        self._check(record)

    def _check(self, record: Mapping[str, object]) -> None:
        """What only the data tells: whether the base reads it and ends in its classes, and how many axes there are."""
        name, dims = call(self._record), len(self.input) - 1
        problems: dict[tuple[Place, str], None] = {}
        try:
            output = network(self._record, input=self.input, classes=self.classes).output
            if output != Shape(self.classes, ()):
                rule = f"must be a classifier that ends in {self.classes} values (got {name}: {output})"
                problems[("base",), rule] = None
        except ArchitectureError as error:
            size = "x".join(map(str, self.input))
            problems[("base",), f"must fit the data's input {size} (got {name}: {error})"] = None
        for label, option, value in ((s, n, v) for s, o in self._stages.items() for n, vs in o.items() for v in vs):
            said = record.get("stages") or {}
            own = isinstance(said, Mapping) and option in (said.get(label) or {})
            place: Place = ("stages", label, option) if own else ("every", option)
            if isinstance(value, tuple) and len(value) != dims:
                problems[place, f"must give {dims} axes on this data (got {list(value)})"] = None
            if dims == 2 and value in SPATIOTEMPORAL:
                problems[place, f"must do without a time axis on images (got {value!r})"] = None
        if problems:
            raise SpaceError(list(problems))

    # Codes and architectures ------------------------------------------------------------------------------------

    def _decode(self, full: Code) -> Architecture:
        base = self._base(full["width"], full["resolution"])
        items = [item for item, _ in self._walk(full, base)]
        return Architecture(base.input, Chain(tuple(items), label=base.body.label))

    def _walk(self, full: Code, base: Architecture) -> Iterator[tuple[Node, Shape]]:
        """Each item of the body, as `full` has it, with the shape it reads."""
        shape = Shape(base.input[0], base.input[1:])
        for number, item in enumerate(base.body.items):
            if item.label in self._stages:
                setting = self._setting(item.label, full)
                stage, after = self._stage(full["width"], full["resolution"], number, shape, setting)
                yield stage, shape
                shape = after
            else:
                yield item, shape
                shape = shape_after(item, shape)

    def _setting(self, label: str, full: Code) -> tuple[Value, ...]:
        return tuple(full[f"{label}.{name}"] for name in self._stages[label])

    def canonical(self, code: Mapping[str, Value]) -> Code:
        """The first code of the same architecture: each option at the first value that makes the same of the stage,
        then the first resolution and width. Raises as `decode`."""
        full = self._complete(code)
        base = self._base(full["width"], full["resolution"])
        for number, (_, shape) in enumerate(self._walk(full, base)):
            label = base.body.items[number].label
            if label in self._stages:
                place = full["width"], full["resolution"], number, shape
                for depth, (name, values) in enumerate(self._stages[label].items()):
                    setting = self._setting(label, full)
                    same = (v for v in values if self._same(place, setting[: depth + 1], v))
                    full[f"{label}.{name}"] = next(same)
        return {name: full[name] for name in self.choices} | self._narrowest(full)

    def _same(self, place: tuple[Value, Value, int, Shape], setting: tuple[Value, ...], value: Value) -> bool:
        """Whether `value` as the last of `setting` makes the same of a stage."""
        if value == setting[-1]:
            return True
        try:
            return self._fragment(*place, (*setting[:-1], value)) == self._fragment(*place, setting)
        except ArchitectureError:
            return False

    def _narrowest(self, full: Code) -> Code:
        """What the first resolution and the first width change in `full` that make the same architecture."""
        space = self._space(full["resolution"])
        full["resolution"] = next(r for r in self._values["resolution"] if self._space(r) == space)
        widths = self._values["width"]
        for width in widths[: widths.index(full["width"])]:
            found = self._parse(self._decode(full), width, full["resolution"])
            if found is not None:
                return found
        return self._chosen(full)

    def _chosen(self, full: Code) -> Code:
        return {name: full[name] for name in self.choices}

    def active(self, code: Mapping[str, Value]) -> list[str]:
        full = self._complete(code)
        base = self._base(full["width"], full["resolution"])
        active = {"width", "resolution"}
        for number, (_, shape) in enumerate(self._walk(full, base)):
            label = base.body.items[number].label
            if label in self._stages:
                place, setting = (full["width"], full["resolution"], number, shape), self._setting(label, full)
                for depth, (name, values) in enumerate(self._stages[label].items()):
                    if not all(self._same(place, setting[: depth + 1], value) for value in values):
                        active.add(f"{label}.{name}")
        return [name for name in self.choices if name in active]

    def encode(self, architecture: Architecture) -> Code:
        for resolution, width in product(self._values["resolution"], self._values["width"]):
            if (self.input[0], *self._space(resolution)) == architecture.input:
                code = self._parse(architecture, width, resolution)
                if code is not None:
                    return code
        raise SpaceError([((), f"must hold the architecture to encode it (got {architecture})")])

    def _parse(self, architecture: Architecture, width: Value, resolution: Value) -> Code | None:
        """The first code at this width and resolution that makes `architecture`, if any."""
        try:
            base = self._base(width, resolution)
        except ArchitectureError:
            return None
        shape = Shape(base.input[0], base.input[1:])
        full: Code = {"width": width, "resolution": resolution}
        if len(base.body.items) != len(architecture.body.items):
            return None
        for number, (item, wanted) in enumerate(zip(base.body.items, architecture.body.items, strict=True)):
            if item.label in self._stages:
                setting = self._found((width, resolution, number, shape), self._stages[item.label], wanted)
                if setting is None:
                    return None
                names = (f"{item.label}.{name}" for name in self._stages[item.label])
                full |= dict(zip(names, setting, strict=True))
            elif item != wanted:
                return None
            shape = shape_after(wanted, shape)
        return self._chosen(full)

    def _found(
        self, place: tuple[Value, Value, int, Shape], options: Options, wanted: Node
    ) -> tuple[Value, ...] | None:
        """The first setting that makes a stage `wanted`."""
        for setting in product(*options.values()):
            try:
                if self._stage(*place, setting)[0] == wanted:
                    return setting
            except ArchitectureError:
                continue
        return None

    # Growing ----------------------------------------------------------------------------------------------------

    def _build_base(self, width: Value, resolution: Value) -> Architecture:
        """The published network on the data, at a multiple of its width."""
        name, factor = str(self._record["network"]), float(width)  # type: ignore[arg-type]
        given: dict[str, object] = {"input": (self.input[0], *self._space(resolution)), "classes": self.classes}
        if factor == 1:
            return network(self._record, **given)
        own = signature(NETWORKS[name]).parameters.get("width")
        if own is None:
            return widen(network(self._record, **given), factor, everywhere)
        alone = float(self._record.get("width", own.default))  # type: ignore[arg-type]
        return network({**self._record, "width": alone * factor}, **given)

    def _build_stage(
        self, width: Value, resolution: Value, number: int, shape: Shape, setting: tuple[Value, ...]
    ) -> tuple[Node, Shape]:
        """What a stage becomes behind `shape`, and the shape it makes."""
        stage = self._fragment(width, resolution, number, shape, setting).body.items[1]
        return stage, shape_after(stage, shape)

    def _build_fragment(
        self, width: Value, resolution: Value, number: int, shape: Shape, setting: tuple[Value, ...]
    ) -> Architecture:
        """The stage at `number` of the base, its first options as in `setting`, between a convolution that makes
        `shape` and as much of the base as it takes for no channel of the stage to reach the end."""
        items = self._base(width, resolution).body.items
        if setting:
            before = self._fragment(width, resolution, number, shape, setting[:-1])
            name = list(self._stages[items[number].label])[len(setting) - 1]
            if NOTHING.get(name) == setting[-1]:
                return before
            return STEPS[name](before, setting[-1], Predicate(lambda site: site.index[0] == 1))
        start = Conv(shape.channels, low=shape.low)
        for end in range(number + 1, len(items) + 1):
            fragment = Architecture((1, *shape.space), Chain((start, *items[number:end])))
            if end > number + 1 and all(index[0] > 1 for index in Flow(fragment).outputs):
                break
        return fragment

    # Drawing ----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        return prod(map(len, self._values.values()))

    def _draw(self, rng: Random) -> Code:
        return {name: rng.choice(values) for name, values in self.choices.items()}

    def _first(self, code: Code) -> bool:
        return self.canonical(code) == code

    def members(self) -> Iterator[Candidate]:
        for values in product(*self.choices.values()):
            code = dict(zip(self.choices, values, strict=True))
            try:
                if self._first(code):
                    yield Candidate(code, self.decode(code))
            except ArchitectureError:
                continue
