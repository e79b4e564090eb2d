"""What a space file says, read into choices: per stage, which options there are and when they mean something.

A scalar is fixed, a list is a choice; a value per axis inside a list is a list itself (`kernel: [3, [1, 3, 3]]`).
All problems of a file are found in one go (`SpaceError.problems`: place in the file, rule).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import prod
from operator import eq

from searchspace.blocks import (
    BLOCKS,
    FACTORIZATIONS,
    REDUCTIONS,
    SEPARATIONS,
    SPATIOTEMPORAL,
    STRIDES_IN,
    Block,
    spread,
)
from searchspace.fields import axes
from searchspace.foresight import low_after, numbers, refuses
from searchspace.leaves import ACTIVATIONS, POOLS

Value = int | float | str | bool | tuple[int, ...]
Place = tuple[str | int, ...]


class SpaceError(ValueError):
    """A space that cannot be: `problems` holds (place in the file, rule with what was got) for each fault."""

    def __init__(self, problems: list[tuple[Place, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{'.'.join(map(str, place)) or 'space'}: {rule}" for place, rule in problems))


MOST = 10**6  # of any width, depth or multiplier: what is larger is a slip, and may not fit a float


def _is_whole(least: int) -> Callable[[object], bool]:
    def check(v: object) -> bool:
        return type(v) is int and least <= v <= MOST

    return check


def _is_axes(rule: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda v: rule(v) or (isinstance(v, tuple) and len(v) in (2, 3) and all(rule(x) for x in v))


def _is_share(v: object) -> bool:
    return type(v) in (int, float) and 0 <= v <= 1  # type: ignore[operator]


def _is_positive(v: object) -> bool:
    return type(v) in (int, float) and 0 < v <= MOST  # type: ignore[operator]


def _is_odd(v: object) -> bool:
    return type(v) is int and v >= 1 and v % 2 == 1


def _is_weight(v: object) -> bool:
    return type(v) in (int, float) and 0 <= v <= 10  # type: ignore[operator]


Rule = tuple[Callable[[object], bool], str]


def _one_of(*words: str) -> Rule:
    return (lambda v: v in words), f"one of {', '.join(words)}"


TRUTH: Rule = (lambda v: type(v) is bool), "true or false"
RULES: dict[str, Rule] = {
    "depth": (_is_whole(0), "a whole number >= 0"),
    "width": (_is_whole(1), "a whole number >= 1"),
    "stride": (_is_axes(_is_whole(1)), "a whole number >= 1, or one per axis"),
    "kernel": (_is_axes(_is_odd), "an odd number >= 1, or one per axis"),
    "groups": (_is_whole(1), "a whole number >= 1"),
    "alpha": (_is_share, "a number in [0, 1]"),
    "factorization": _one_of(*FACTORIZATIONS),
    "separation": _one_of(*SEPARATIONS),
    "reduction": _one_of(*REDUCTIONS),
    "stride_in": _one_of(*STRIDES_IN),
    "shuffle": TRUTH,
    "shortcut": TRUTH,
    "bias": TRUTH,
    "dilation": (_is_axes(_is_whole(1)), "a whole number >= 1, or one per axis"),
    "layers": (_is_whole(1), "a whole number >= 1"),
    "expansion": (_is_positive, "a number > 0"),
    "squeeze": (lambda v: _is_positive(v) and _is_share(v), "a number in (0, 1]"),
    "squeeze_excite": (_is_share, "a number in [0, 1]"),
    "activation": _one_of(*ACTIVATIONS),
    "pool": _one_of(*POOLS),
    "dropout": (_is_share, "a number in [0, 1]"),
}
PARTS: dict[tuple[str, str], Rule] = {  # where a word means something else in the stem or the head
    ("stem", "pool"): _one_of("none", *POOLS),
    ("stem", "ceil"): TRUTH,
    ("stem", "local_norm"): TRUTH,
    ("head", "width"): (_is_whole(0), "a whole number >= 0"),
    ("head", "auxiliary"): (_is_weight, "a number in [0, 10]"),
}
STEM: dict[str, tuple[Value, ...]] = {
    "width": (16,),
    "kernel": (3,),
    "stride": (1,),
    "activation": ("relu",),
    "pool": ("none",),
    "ceil": (False,),
    "local_norm": (False,),
}
HEAD: dict[str, tuple[Value, ...]] = {
    "width": (0,),
    "activation": ("relu",),
    "dropout": (0.0,),
    "auxiliary": (0.0,),
}
OVERALL: dict[str, tuple[Value, ...]] = {"width": (1.0,), "resolution": (1.0,), "width_multiple": (1,)}
DEPTHWISE = ("depthwise_separable", "inverted_residual", "shuffle_unit")  # their k x k convolution is depthwise
# What may do nothing, or the same as another value, beside these options of the block.
BESIDE: dict[str, tuple[str, ...]] = {
    "groups": ("separation",),
    "shuffle": ("groups", "separation"),
    "dilation": ("kernel",),
    "factorization": ("kernel", "separation"),
    "reduction": ("stride",),
    "stride_in": ("stride",),
    "pool": ("stride",),
}
RATIOS = ("alpha", "expansion", "squeeze")  # two may round to one width; of our own blocks that is foreseen


def effect(name: str, value: Value, options: Mapping[str, Value], block: str = "") -> Value | None:
    """What `value` of option `name` does beside the block's other options; None where it does nothing.

    Two settings with equal effects of every option are one network, whatever the block; what only one `block` does
    counts where it is named. An option that the block does not have says nothing about another.
    """
    if name in ("groups", "shuffle") and options.get("separation") == "reduced":
        return None
    if name == "shuffle" and (
        options.get("groups") == 1 or (block == "inverted_residual" and options.get("expansion") == 1)
    ):
        return None
    if name in ("reduction", "stride_in", "pool") and options.get("stride") == 1:
        return value if name == "pool" and block.startswith("inception") else None
    if "kernel" not in options:
        return value
    kernel = options["kernel"]
    sizes = kernel if isinstance(kernel, tuple) else (int(kernel),)  # one size stands for every axis
    if name == "dilation":
        if max(sizes) == 1:
            return None
        several = next((len(v) for v in (kernel, value) if isinstance(v, tuple)), 2)
        wide = axes(spread(kernel, value, several), several)  # type: ignore[arg-type]
        return 1 if set(wide) == {1} else wide
    if name == "factorization":
        undone = {
            "stacked": max(sizes) <= 3,
            "asymmetric": min(sizes[-2:]) == 1,
            **dict.fromkeys(SPATIOTEMPORAL, sizes[0] == 1 or max(sizes[-2:]) == 1),
        }
        if undone.get(str(value)):
            return "none"
        if value == "r2plus1d" and (block in DEPTHWISE or options.get("separation", "none") != "none"):
            return "p3d_a"  # a depthwise pair has no inner width to choose
    return value


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage's choices: `options` by name, `blocks` the functions, `defaults` what each takes if nothing is said."""

    name: str
    options: dict[str, tuple[Value, ...]]
    blocks: dict[str, Block]
    defaults: dict[str, dict[str, Value]]

    def takes(self, block: str) -> frozenset[str]:
        """The stage's options that reach `block`."""
        return frozenset(self.options) & frozenset(self.defaults[block])

    def effect(self, name: str, value: Value, setting: Mapping[str, Value]) -> Value | None:
        """`effect` beside the setting and, for what the stage leaves open, the block's own defaults."""
        block = str(setting["block"])
        known = self.defaults[block]
        return effect(name, value, {**known, **{k: v for k, v in setting.items() if k in known}}, block)

    def active(self, name: str, setting: Mapping[str, Value]) -> bool:
        """Whether option `name` reaches a block at all in this setting."""
        if name == "depth":
            return True
        if setting["depth"] == 0:
            return False
        return name in ("block", "width") or name in self.defaults[str(setting["block"])]

    def canonical(self, setting: Mapping[str, Value]) -> dict[str, Value]:
        """The first setting, in the file's order, that does the same as `setting`."""
        result = dict(setting)
        for name, values in self.options.items():
            if len(values) == 1:
                continue
            if not self.active(name, setting):
                result[name] = values[0]
            elif name in BESIDE:
                done = self.effect(name, setting[name], setting)
                result[name] = next(v for v in values if done is None or self.effect(name, v, setting) == done)
        return result

    def knows(self, block: str) -> bool:
        """Whether it is one of our own blocks."""
        return self.blocks[block] is BLOCKS.get(block)

    def shows(self, name: str, block: str) -> bool:
        """Whether two values of option `name`, both canonical, are known not to make one network, or to (`repeats`)."""
        if not self.knows(block) or name == "squeeze_excite":
            return False
        if name == "shortcut":
            return block != "inverted_residual"
        return name != "separation" or block in ("residual", "bottleneck")

    def differ(
        self, name: str, value: Value, other: Value, setting: Mapping[str, Value], channels: int, low: int, width: int
    ) -> bool:
        """Whether two values of an option are known to make two networks on such a map, without building them."""
        if not self.knows(str(setting["block"])):
            return False
        if name == "squeeze_excite":
            return (value == 0) != (other == 0)
        if name == "separation":  # both put a 1 x 1 before a depthwise convolution that changes the width
            return {value, other} != {"reduced", "preserved"}
        return name == "shortcut" and not self._unsummed(setting, channels, low, width)

    def refuses(self, setting: Mapping[str, Value], channels: int, low: int | None, width: int) -> bool:
        """Whether the first block is known to refuse such a map before anything is built.

        `low` of the `channels` it reads are at half resolution, None where that is not known.
        """
        block = str(setting["block"])
        return self.knows(block) and refuses(block, {**self.defaults[block], **setting}, channels, low, width)

    def repeats(self, setting: Mapping[str, Value], channels: int, low: int | None, width: int) -> bool:
        """Whether an earlier value of one option is known to make the same on such a map before anything is built."""
        block = str(setting["block"])
        if not self.knows(block):
            return False
        defaults = self.defaults[block]
        if "shortcut" in self.options and "shortcut" in defaults:
            later = setting["shortcut"] != self.options["shortcut"][0]
            if later and self._unsummed(setting, channels, low, width):
                return True
        earlier = [
            (name, value)
            for name in RATIOS
            if name in defaults and name in self.options
            for value in self.options[name][: self.options[name].index(setting[name])]
        ]
        if not earlier:
            return False
        known = {**defaults, **setting}
        made = [*numbers(block, known, channels, width)]
        return any(all(map(eq, made, numbers(block, {**known, n: v}, channels, width))) for n, v in earlier)

    def _unsummed(self, setting: Mapping[str, Value], channels: int, low: int | None, width: int) -> bool:
        """Whether it is an inverted residual that is known to add no input, wanted or not: its shapes differ."""
        block = str(setting["block"])
        if block != "inverted_residual" or setting["depth"] != 1:
            return False
        known = {**self.defaults[block], **setting}
        return known["stride"] != 1 or channels != width or low not in (None, low_after(block, known, 0, 0, width))

    def low(self, setting: Mapping[str, Value], channels: int, low: int | None, width: int) -> int | None:
        """How many channels a stage puts out at half resolution, where that is known before anything is built."""
        block = str(setting["block"])
        return (
            low_after(block, {**self.defaults[block], **setting}, channels, low, width) if self.knows(block) else None
        )

    def families(self) -> list[Family]:
        """All canonical settings: a family for each depth of each block."""
        first = {name: values[0] for name, values in self.options.items()}
        result = []
        for depth, block in product(self.options["depth"], self.options["block"]):
            start = {**first, "depth": depth, "block": block}
            if self.canonical(start) == start:
                rest = {n: v for n, v in self.options.items() if n not in ("depth", "block") and self.active(n, start)}
                parts = [self._canonical_settings(names, start) for names in _coupled(rest, str(block))]
                result.append(Family(start, parts))
        return result

    def _canonical_settings(self, names: tuple[str, ...], start: Mapping[str, Value]) -> list[dict[str, Value]]:
        settings = [dict(zip(names, values, strict=True)) for values in product(*(self.options[n] for n in names))]
        return [s for s in settings if self.canonical({**start, **s}) == {**start, **s}]


@dataclass(frozen=True, slots=True)
class Family:
    """The settings of a block at a depth: `start` with one of each of the `parts`, which go together freely."""

    start: dict[str, Value]
    parts: list[list[dict[str, Value]]]

    @property
    def count(self) -> int:
        return prod(map(len, self.parts))

    def setting(self, number: int) -> dict[str, Value]:
        """The setting of this number below `count`."""
        setting = dict(self.start)
        for part in self.parts:
            number, at = divmod(number, len(part))
            setting |= part[at]
        return setting


def _coupled(options: Mapping[str, tuple[Value, ...]], block: str) -> list[tuple[str, ...]]:
    """The options with more than one value, in groups: those that may undo each other (`BESIDE`) stay together."""
    beside = BESIDE | ({"shuffle": (*BESIDE["shuffle"], "expansion")} if block == "inverted_residual" else {})
    groups: list[tuple[str, ...]] = []
    for name in (name for name, values in options.items() if len(values) > 1):
        near = {name, *beside.get(name, ()), *(other for other, names in beside.items() if name in names)}
        meets = [group for group in groups if near & set(group)]
        groups = [group for group in groups if group not in meets] + [(*(n for group in meets for n in group), name)]
    return groups


class Reader:
    """Reads one file's mapping and gathers its problems."""

    def __init__(self) -> None:
        self.problems: list[tuple[Place, str]] = []

    def fault(self, place: Place, rule: str) -> None:
        self.problems.append((place, rule))

    def mapping(self, value: object, place: Place, known: Iterable[str]) -> dict[str, object]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.fault(place, f"must be a mapping of options (got {value!r})")
            return {}
        known = list(known)
        for name in value:
            if name not in known:
                self.fault((*place, str(name)), f"must be one of {', '.join(known)} (got {name!r}{meant(name, known)})")
        return {str(k): v for k, v in value.items() if k in known}

    def values(self, value: object, place: Place, rule: Rule) -> tuple[Value, ...]:
        """The choice in `value`: its items, or itself."""
        check, words = rule
        items = value if isinstance(value, list | tuple) else [value]
        if not items:
            self.fault(place, "must offer at least one value (got an empty list)")
        result: list[Value] = []
        for item in items:
            if isinstance(item, list):  # equal values per axis are the scalar, as in the language
                item = item[0] if item and all(v == item[0] for v in item) else tuple(item)
            if not check(item):
                self.fault(place, f"must be {words} (got {item!r}{meant(item, words.replace(',', '').split())})")
            elif any(item == r and isinstance(item, bool) == isinstance(r, bool) for r in result):
                self.fault(place, f"must offer different values (got {item!r} twice)")
            else:
                result.append(item)  # type: ignore[arg-type]
        return tuple(result)

    def block(self, name: object, place: Place, own: Mapping[str, Block]) -> Block | None:
        known = {**BLOCKS, **own}
        if isinstance(name, str) and name in known:
            return known[name]
        if not isinstance(name, str) or ":" not in name:
            self.fault(
                place,
                f"must be one of {', '.join(known)}, or package.module:function (got {name!r}{meant(name, known)})",
            )
            return None
        module, _, function = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), function)
        except AttributeError:
            self.fault(place, f"must name a function of {module} (got {function!r})")
        except (Exception, SystemExit) as error:  # a module of the user's may raise anything on import
            self.fault(place, f"must be importable (got {name!r}: {type(error).__name__}: {error})")
        else:
            with suppress(ValueError, TypeError):  # of a builtin class, or of what is no function
                if "out" in inspect.signature(found).parameters:
                    return found  # type: ignore[no-any-return]
            self.fault(place, f"must be a function (into, *, out, ...) that returns a fragment (got {name!r})")
        return None

    def stage(self, record: object, number: int, own: Mapping[str, Block]) -> Stage | None:
        place: Place = ("stages", number)
        if not isinstance(record, Mapping) or "block" not in record or "width" not in record:
            self.fault(place, f"must be a mapping with at least block and width (got {record!r})")
            return None
        named = record["block"] if isinstance(record["block"], list) else [record["block"]]
        found = {str(name): self.block(name, (*place, "block"), own) for name in named}
        blocks = {name: block for name, block in found.items() if block is not None}
        if not named:
            self.fault((*place, "block"), "must offer at least one block (got an empty list)")
        if len(found) < len(named):
            self.fault((*place, "block"), f"must offer different blocks (got {named})")
        defaults = {
            name: {
                p.name: p.default
                for p in inspect.signature(block).parameters.values()
                if p.kind is p.KEYWORD_ONLY and p.name != "out"
            }
            for name, block in blocks.items()
        }
        known = ["block", "depth", "width", *sorted(set().union(*defaults.values()) if defaults else RULES)]
        options: dict[str, tuple[Value, ...]] = {"depth": (1,), "block": tuple(blocks)}
        given = self.mapping(record, place, known) if blocks else dict(record)
        for name, value in given.items():
            if name != "block":
                options[name] = self.values(value, (*place, name), RULES.get(name, (lambda v: True, "anything")))
        return Stage(f"stage{number + 1}", options, blocks, defaults)


def misplaced(stages: Iterable[Stage], stem: Mapping[str, tuple[Value, ...]], dims: int) -> list[tuple[Place, str]]:
    """What a space of `dims` axes cannot have: kernels and strides of other axes, factors along a time axis."""
    problems: list[tuple[Place, str]] = []
    for place, options in [(("stem",), stem), *((("stages", int(s.name[5:]) - 1), s.options) for s in stages)]:
        for name, values in options.items():
            for value in values:
                if isinstance(value, tuple) and name in RULES and len(value) != dims:
                    problems.append(((*place, name), f"must give {dims} axes on this data (got {list(value)})"))
                if dims == 2 and name == "factorization" and value in SPATIOTEMPORAL:
                    problems.append(((*place, name), f"must do without a time axis on images (got {value!r})"))
    return problems


def meant(got: object, known: Iterable[str]) -> str:
    """` ; did you mean ...?` where a known word is close to what was got, else nothing."""
    close = difflib.get_close_matches(str(got), list(known), 1)
    return f"; did you mean {close[0]!r}?" if close and close[0] != str(got) else ""


def read(
    record: object, own: Mapping[str, Block]
) -> tuple[dict[str, tuple[Value, ...]], dict[str, tuple[Value, ...]], list[Stage], dict[str, tuple[Value, ...]]]:
    """(overall, stem, stages, head) of a space file's mapping; raises `SpaceError` with every problem found."""
    reader = Reader()
    top = reader.mapping(record, (), ("name", "purpose", *OVERALL, "stem", "stages", "head"))
    overall = dict(OVERALL)
    for name in OVERALL:
        if name in top:
            rule = RULES["width"] if name == "width_multiple" else (_is_positive, "a number > 0")
            overall[name] = reader.values(top[name], (name,), rule)
    if len(overall["width_multiple"]) > 1:
        reader.fault(("width_multiple",), f"must be one whole number (got {list(overall['width_multiple'])})")
    parts: list[dict[str, tuple[Value, ...]]] = []
    for part, defaults in (("stem", STEM), ("head", HEAD)):
        options = dict(defaults)
        for name, value in reader.mapping(top.get(part), (part,), defaults).items():
            options[name] = reader.values(value, (part, name), PARTS.get((part, name)) or RULES[name])
        parts.append(options)
    listed = top.get("stages")
    stages: list[Stage] = []
    if not isinstance(listed, list) or not listed:
        reader.fault(("stages",), f"must be a list of at least one stage (got {listed!r})")
    else:
        found = [reader.stage(stage, number, own) for number, stage in enumerate(listed)]
        stages = [stage for stage in found if stage is not None]
    if reader.problems:
        raise SpaceError(reader.problems)
    return overall, parts[0], stages, parts[1]
