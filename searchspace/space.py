"""A space: choices by name, and the architectures they stand for.

A *code* gives each choice (`width`, `resolution`, `stem.kernel`, `stage1.block`, ...) one of its values. Many codes
stand for one architecture (a shuffle without groups, a 3 x 3 kernel "stacked", a width reached through another
multiplier, a ratio that rounds alike); the first of them in the file's order is its canonical code, and `sample`
draws only those: it is uniform over distinct buildable architectures, by drawing from a product that holds every
canonical code once and rejecting the rest. Two aliases it does not see through: a user's block that makes one
fragment of settings which differ in several options at once, and two blocks that are one function.
Chains nest alike in all members (stem, stages, head), so members that differ in where a stage ends are distinct.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import accumulate, product, repeat
from math import prod
from pathlib import Path
from random import Random
from typing import Self

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    ArchitectureError,
    Axes,
    Chain,
    Conv,
    Course,
    Dropout,
    Flatten,
    Linear,
    LocalNorm,
    Node,
    Norm,
    Pool,
    Shape,
    Tap,
    assembled,
    chained,
    children,
    course,
    shape_after,
)
from searchspace.blocks import Block, whole_width
from searchspace.choices import STEM, Family, SpaceError, Stage, Value, misplaced, read
from searchspace.codes import Candidate, Code, Codes
from searchspace.signs import Signs


def _merged(start: Code, parts: Iterable[Code]) -> Code:
    """`start` with the settings of all `parts`."""
    merged = dict(start)
    for part in parts:
        merged |= part
    return merged


class Space(Codes):
    """The architectures that `record`, a space file's mapping, spans for inputs of (channels, *space).

    `blocks` adds block functions by name to those of `searchspace.blocks`. Raises `SpaceError` with all problems.
    """

    def __init__(
        self,
        record: Mapping[str, object],
        *,
        input: tuple[int, ...],
        classes: int,
        blocks: Mapping[str, Block] | None = None,
    ) -> None:
        overall, self._stem, self._stages, self._head = read(record, blocks or {})
        if problems := misplaced(self._stages, self._stem, len(Architecture(input, Chain()).input) - 1):
            raise SpaceError(problems)
        self._multiple = int(overall["width_multiple"][0])  # type: ignore[arg-type]
        values = {name: overall[name] for name in ("width", "resolution")}
        values |= {f"stem.{name}": options for name, options in self._stem.items()}
        for stage in self._stages:
            values |= {f"{stage.name}.{name}": options for name, options in stage.options.items()}
        values |= {f"head.{name}": options for name, options in self._head.items()}
        super().__init__(values, input, classes)
        self._families = [stage.families() for stage in self._stages]
        self._weights = [list(accumulate(family.count for family in families)) for families in self._families]
        self._outer = [self._outer_settings(part) for part in ("width", "resolution", "stem", "head")]
        self._chosen_keys = [
            [(name, key) for name in s.options if (key := f"{s.name}.{name}") in self.choices] for s in self._stages
        ]
        self._keys = [[(name, f"{s.name}.{name}") for name in s.options] for s in self._stages]
        self._hidden = [{block: self._may_repeat(s, block) for block in s.blocks} for s in self._stages]
        self._reached = {
            name: [self._firsts(options, float(scale)) for scale in values["width"]]  # type: ignore[arg-type]
            for name, options in values.items()
            if name.endswith(".width")
        }
        self._stem_of = lru_cache(maxsize=256)(self._make_stem)
        self._head_of = lru_cache(maxsize=256)(self._make_head)
        self._stage = lru_cache(maxsize=256)(self._build_stage)
        self._block = lru_cache(maxsize=256)(self._follow_block)

    @classmethod
    def from_yaml(
        cls, path: str | Path, *, input: tuple[int, ...], classes: int, blocks: Mapping[str, Block] | None = None
    ) -> Self:
        """The space in a YAML file."""
        import yaml

        try:
            record = yaml.safe_load(Path(path).read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SpaceError([((), f"must be a readable YAML file (got {path}: {error})")]) from None
        return cls(record, input=input, classes=classes, blocks=blocks)

    # Codes and architectures ------------------------------------------------------------------------------------

    def _decode(self, full: Code) -> Architecture:
        scale = float(full["width"])  # type: ignore[arg-type]
        size = (self.input[0], *self._space(full["resolution"]))
        shape = Shape(size[0], size[1:])
        parts: list[Course] = []

        def stand(part: Course) -> None:
            nonlocal shape
            parts.append(part)
            shape = part.after

        stand(course(self._build_stem(full, scale), shape))
        for number in range(len(self._stages)):
            if number == len(self._stages) - 1:
                for tap in self._build_auxiliary(full, shape):
                    stand(course(tap, shape))
            stand(self._stage(number, self._setting(number, full), scale, shape))
        stand(course(self._build_head(full, scale), shape))
        return assembled(size, parts)

    def _setting(self, number: int, full: Code) -> tuple[tuple[str, Value], ...]:
        """What `full` says of a stage."""
        return tuple([(name, full[key]) for name, key in self._keys[number]])

    def canonical(self, code: Mapping[str, Value]) -> Code:
        """`code` with every choice that does nothing at its first value; all choices are there."""
        full = self._complete(code)
        for stage in self._stages:
            setting = {name: full[f"{stage.name}.{name}"] for name in stage.options}
            full |= {f"{stage.name}.{name}": value for name, value in stage.canonical(setting).items()}
        space = self._space(full["resolution"])
        full["resolution"] = next(r for r in self._values["resolution"] if self._space(r) == space)
        for name in self._idle(full):
            full[name] = self._values[name][0]
        return {name: full[name] for name in self.choices}

    def active(self, code: Mapping[str, Value]) -> list[str]:
        """The choices that do something in `code`, in order: the others (a shuffle without groups) are idle."""
        full = self._complete(code)
        idle = self._idle(full)
        for stage in self._stages:
            setting = {name: full[f"{stage.name}.{name}"] for name in stage.options}
            for name in stage.options:
                if not stage.active(name, setting) or stage.effect(name, setting[name], setting) is None:
                    idle.add(f"{stage.name}.{name}")
        return [name for name in self.choices if name not in idle]

    def _idle(self, full: Code) -> set[str]:
        """The choices of the stem and the head that do nothing in `full`."""
        idle = {"stem.ceil"} if full["stem.pool"] == "none" else set()
        return idle | ({"head.activation"} if full["head.width"] == 0 else set())

    def encode(self, architecture: Architecture) -> Code:
        """The canonical code of `architecture`: `encode(decode(code)) == code`. Raises `SpaceError` for a stranger."""
        if architecture.input[0] == self.input[0]:
            for resolution, scale in product(self._values["resolution"], self._values["width"]):
                if self._space(resolution) == architecture.input[1:]:
                    code = self._parse(architecture, float(scale))  # type: ignore[arg-type]
                    if code is not None:
                        full = {**code, **self._chosen(width=scale, resolution=resolution)}
                        if self.decode(full) == architecture:  # the parts are alike; so must be how they stand
                            return self.canonical(full)
        raise SpaceError([((), f"must hold the architecture to encode it (got {architecture})")])

    def _chosen(self, **values: Value) -> Code:
        return {name: value for name, value in values.items() if name in self.choices}

    def _parse(self, architecture: Architecture, scale: float) -> Code | None:
        """The first choices, in the file's order, that make `architecture` at this width multiplier, if any."""
        items = [item for item in architecture.body.items if not isinstance(item, Tap)]
        weight = next((item.weight for item in architecture.body.items if isinstance(item, Tap)), 0.0)
        if len(items) != len(self._stages) + 2 or weight not in self._head["auxiliary"]:
            return None
        shape = Shape(architecture.input[0], architecture.input[1:])
        code: Code = {}
        for part, options, build, item in (
            ("stem", self._stem, self._build_stem, items[0]),
            ("head", self._head, self._build_head, items[-1]),
        ):
            for values in product(*options.values()):
                named = {f"{part}.{name}": value for name, value in zip(options, values, strict=True)}
                if build(named, scale) == item:
                    code |= self._chosen(**named)
                    break
            else:
                return None
        shape = shape_after(items[0], shape)
        for number, (stage, families) in enumerate(zip(self._stages, self._families, strict=True)):
            item = items[number + 1]
            if not isinstance(item, Chain):
                return None
            after = shape_after(item, shape)
            found = [
                setting
                for family in families
                if family.start["depth"] == len(item.items)
                for setting in self._settings(stage, family, item, scale, after.channels)
                if self._equal(number, setting, scale, shape, item)
            ]
            if not found:
                return None
            order = [stage.options[name].index for name in stage.options]
            first = min(found, key=lambda s: [at(s[name]) for at, name in zip(order, stage.options, strict=True)])
            code |= self._named(stage, first)
            shape = after
        return code | self._chosen(**{"head.auxiliary": weight})

    def _settings(self, stage: Stage, family: Family, item: Chain, scale: float, width: int) -> Iterator[Code]:
        """The settings of a family that end in `width` channels and whose signs are in the first block of `item`."""
        signs = Signs.of(item.items[0]) if item.items else None
        fits = [
            [
                s
                for s in part
                if ("width" not in s or self._width(s["width"], scale) == width)
                and (signs is None or signs.allow(stage, s, {**family.start, **s}))
            ]
            for part in family.parts
        ]
        for parts in product(*fits):
            setting = _merged(family.start, parts)
            if setting["depth"] == 0 or self._width(setting["width"], scale) == width:
                yield setting

    def _equal(self, number: int, setting: Code, scale: float, shape: Shape, item: Node) -> bool:
        """Whether `setting` makes the stage `item`; most differ in their first block already."""
        named = tuple(setting.items())
        try:
            below = children(item)
            if below and self._build_block(number, named, scale, shape, True) != below[0]:
                return False
            return self._stage(number, named, scale, shape).node == item
        except ArchitectureError:
            return False

    def _width(self, width: Value, scale: float) -> int:
        return whole_width(int(width) * scale, self._multiple)  # type: ignore[arg-type]

    def _build_stem(self, code: Mapping[str, Value], scale: float) -> Chain:
        return self._stem_of(scale, *[code[f"stem.{name}"] for name in STEM])

    def _make_stem(
        self,
        scale: float,
        width: Value,
        kernel: Axes,
        stride: Axes,
        activation: str,
        pool: str,
        ceil: bool,
        local_norm: bool,
    ) -> Chain:
        conv = Conv(self._width(width, scale), kernel, stride, label="stem")
        pooled = () if pool == "none" else (Pool(pool, 3, 2, padding=0 if ceil else "same", ceil=ceil),)
        local = (LocalNorm(),) if local_norm else ()
        return Chain((conv, Norm(), Activation(activation), *local, *pooled), label="stem")

    def _build_head(self, code: Mapping[str, Value], scale: float) -> Chain:
        return self._head_of(scale, *[code[f"head.{name}"] for name in ("width", "activation", "dropout")])

    def _make_head(self, scale: float, width: Value, activation: str, dropout: float) -> Chain:
        wide: tuple[Node, ...] = ()
        if width:
            wide = (Conv(self._width(width, scale), label="head"), Norm(), Activation(activation))
        drop = (Dropout(float(dropout)),) if dropout else ()
        linear = Linear(self.classes, label="classifier")
        return Chain((*wide, AdaptivePool(), Flatten(), *drop, linear), label="head")

    def _build_auxiliary(self, code: Mapping[str, Value], shape: Shape) -> list[Node]:
        """An auxiliary head before the last stage, as wide as the map there; none where its weight is 0."""
        weight = float(code["head.auxiliary"])  # type: ignore[arg-type]
        if not weight:
            return []
        conv = (Conv(shape.channels, label="auxiliary"), Norm(), Activation())
        head = Chain((*conv, AdaptivePool(), Flatten(), Linear(self.classes, label="auxiliary")), label="auxiliary")
        return [Tap(head, weight)]

    def _build_stage(self, number: int, setting: tuple[tuple[str, Value], ...], scale: float, shape: Shape) -> Course:
        blocks: list[Course] = []
        for i in range(int(dict(setting)["depth"])):  # type: ignore[arg-type]
            blocks.append(self._block(number, setting, scale, shape, i == 0))
            shape = blocks[-1].after
        return chained(blocks, shape, self._stages[number].name)

    def _build_block(
        self, number: int, setting: tuple[tuple[str, Value], ...], scale: float, shape: Shape, first: bool
    ) -> Node:
        """One block of a stage; only the first strides."""
        stage, options = self._stages[number], dict(setting)
        name, width = str(options["block"]), self._width(options["width"], scale)
        known = stage.defaults[name]
        taken = {k: v for k, v in setting if k in known}
        if "stride" in taken and not first:
            taken["stride"] = 1
        try:
            item = stage.blocks[name](shape, out=width, **taken)
        except ArchitectureError:
            raise
        except ValueError as error:  # how a user's own block refuses what it cannot make
            raise ArchitectureError(f"Block {name!r} refuses {taken}: {error}") from None
        except (Exception, SystemExit) as error:
            problem = f"must return a fragment from block {name!r} (got {type(error).__name__}: {error})"
            raise SpaceError([(("stages", number, "block"), problem)]) from error
        if not isinstance(item, Node):
            problem = f"must return a fragment from block {name!r} (got {item!r})"
            raise SpaceError([(("stages", number, "block"), problem)])
        return item

    def _follow_block(
        self, number: int, setting: tuple[tuple[str, Value], ...], scale: float, shape: Shape, first: bool
    ) -> Course:
        return course(self._build_block(number, setting, scale, shape, first), shape)

    # Drawing ----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many codes differ in what their options say: an upper bound of the members, reached when all build."""
        return prod(map(len, self._outer)) * prod(weights[-1] for weights in self._weights)

    def _outer_settings(self, part: str) -> list[Code]:
        """The settings of the stem, the head or a multiplier in which nothing is idle, or is at its first value."""
        names = [name for name in self._values if name.partition(".")[0] == part]
        settings = [
            dict(zip(names, values, strict=True)) for values in product(*(self._values[name] for name in names))
        ]
        kept = []
        for setting in settings:
            canonical = self.canonical(self._chosen(**setting))
            if all(canonical[name] == value for name, value in setting.items() if name in canonical):
                kept.append(self._chosen(**setting))
        return kept

    def _draw(self, rng: Random) -> Code | None:
        outer = _merged({}, [rng.choice(settings) for settings in self._outer])
        return self._said(outer, map(self._pick, self._families, self._weights, repeat(rng)))

    @staticmethod
    def _pick(families: list[Family], weights: list[int], rng: Random) -> Code:
        """A stage's setting, uniform over all of its families."""
        number = rng.randrange(weights[-1])
        at = bisect(weights, number)
        return families[at].setting(weights[at] - 1 - number)

    def _said(self, outer: Code, settings: Iterable[Code]) -> Code | None:
        """The code of all these settings; None, as soon as it is seen, for no member or one that repeats another."""
        scale = float(outer.get("width", self._values["width"][0]))  # type: ignore[arg-type]
        channels = self._width(outer.get("stem.width", self._values["stem.width"][0]), scale)
        low: int | None = 0
        code = dict(outer)
        used: list[tuple[Stage, tuple[Code, int, int | None, int]]] = []
        for stage, keys, setting in zip(self._stages, self._chosen_keys, settings, strict=True):
            if setting["depth"]:
                width = self._width(setting["width"], scale)
                if stage.refuses(setting, channels, low, width):
                    return None
                used.append((stage, (setting, channels, low, width)))
                channels, low = width, stage.low(setting, channels, low, width)
            for name, key in keys:
                code[key] = setting[name]
        if self._rescaled(code) or any(stage.repeats(*place) for stage, place in used):
            return None
        return code

    def _named(self, stage: Stage, setting: Code) -> Code:
        """A stage's setting as part of a code."""
        return self._chosen(**{f"{stage.name}.{name}": value for name, value in setting.items()})

    def _first(self, code: Code) -> bool:
        """Whether `code`, a draw, is the first of those that stand for its architecture."""
        return not self._repeats_earlier(self._filled(code))

    def _firsts(self, options: tuple[Value, ...], scale: float) -> dict[int, Value]:
        """Each width that `options` make at this multiplier, with the first of them that does."""
        return {self._width(value, scale): value for value in reversed(options) if value}

    def _rescaled(self, code: Code) -> bool:
        """Whether the same widths are had with earlier values, of this multiplier or of an earlier one."""
        full = self._filled(code)
        at = self._values["width"].index(full["width"])
        scale = float(full["width"])  # type: ignore[arg-type]
        idle = [f"{s.name}.width" for s in self._stages if full[f"{s.name}.depth"] == 0]
        used = [
            (firsts, self._width(full[name], scale), full[name])
            for name, firsts in self._reached.items()
            if full[name] and name not in idle
        ]
        if any(firsts[at][width] != value for firsts, width, value in used):
            return True
        return any(all(width in firsts[earlier] for firsts, width, _ in used) for earlier in range(at))

    @staticmethod
    def _may_repeat(stage: Stage, block: str) -> list[str]:
        """The options of a block with values that may make the network of an earlier one."""
        taken = stage.takes(block) - {"depth", "block", "width", "stride", "activation"}
        return [n for n, v in stage.options.items() if n in taken and len(v) > 1 and not stage.shows(n, block)]

    def _repeats_earlier(self, full: Code) -> bool:
        """Whether a stage is the same with an option at an earlier value: ratios round alike, blocks may not use it."""
        scale = float(full["width"])  # type: ignore[arg-type]
        before = Shape(self.input[0], self._space(full["resolution"]))
        shape = shape_after(self._build_stem(full, scale), before)
        for number, stage in enumerate(self._stages):
            named = self._setting(number, full)
            setting = dict(named)
            part = self._stage(number, named, scale, shape)
            for name in self._hidden[number][str(setting["block"])] if setting["depth"] else ():
                values = stage.options[name]
                for earlier in values[: values.index(setting[name])]:
                    width = self._width(setting["width"], scale)
                    if stage.differ(name, setting[name], earlier, setting, shape.channels, shape.low, width):
                        continue
                    if self._equal(number, {**setting, name: earlier}, scale, shape, part.node):
                        return True
            shape = part.after
        return False

    def members(self) -> Iterator[Candidate]:
        """Every distinct buildable member, once. For spaces small enough to walk."""
        stages = [
            [_merged(family.start, parts) for family in families for parts in product(*family.parts)]
            for families in self._families
        ]
        for outer in product(*self._outer):
            for settings in product(*stages):
                code = self._said(_merged({}, outer), settings)
                if code is None:
                    continue
                try:
                    architecture = self._decode(self._filled(code))
                    first = self._first(code)
                except ArchitectureError:
                    continue
                if first:
                    yield Candidate(code, architecture)
