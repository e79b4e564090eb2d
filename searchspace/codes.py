"""Codes: choices by name, and what every kind of space can do with them once it says what a code stands for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from searchspace.architecture import Architecture, ArchitectureError, Chain
from searchspace.choices import SpaceError, Value

Code = dict[str, Value]
TRIES, DRAWS = 10_000, 100_000  # without a member: draws that were built, and all
FEW = 1_000  # codes that are walked rather than drawn from


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point of a space: its code and the architecture it stands for."""

    code: Code
    architecture: Architecture


class Codes(ABC):
    """A space: codes that stand for architectures on inputs of (channels, *space).

    `values` are those of every option by name; those with several are the `choices`. Of the codes that stand for one
    architecture the first in the file's order is canonical.
    """

    def __init__(self, values: dict[str, tuple[Value, ...]], input: tuple[int, ...], classes: int) -> None:
        self.input, self.classes = Architecture(input, Chain()).input, classes  # refuses what is no input
        self._values = values
        self._start: Code = {name: options[0] for name, options in values.items()}
        self.choices: dict[str, tuple[Value, ...]] = {k: v for k, v in values.items() if len(v) > 1}

    @property
    @abstractmethod
    def size(self) -> int:
        """How many codes differ in what their options say: an upper bound of the members."""

    def decode(self, code: Mapping[str, Value]) -> Architecture:
        """The architecture of `code`; choices it leaves out are at their first value.

        Raises `SpaceError` for a name or value the space does not have, `ArchitectureError` where it cannot be built.
        """
        return self._decode(self._complete(code))

    @abstractmethod
    def _decode(self, full: Code) -> Architecture:
        """The architecture of a code that says every option."""

    @abstractmethod
    def canonical(self, code: Mapping[str, Value]) -> Code:
        """`code` with every choice that does nothing at its first value; all choices are there."""

    @abstractmethod
    def active(self, code: Mapping[str, Value]) -> list[str]:
        """The choices that do something in `code`, in order: the others are idle."""

    @abstractmethod
    def encode(self, architecture: Architecture) -> Code:
        """The canonical code of `architecture`: `encode(decode(code)) == code`. Raises `SpaceError` for a stranger."""

    @abstractmethod
    def members(self) -> Iterator[Candidate]:
        """Every distinct buildable member, once. For spaces small enough to walk."""

    @abstractmethod
    def _draw(self, rng: Random) -> Code | None:
        """A code, uniform over a set that holds every canonical code once; None for one that is seen to be none."""

    @abstractmethod
    def _first(self, code: Code) -> bool:
        """Whether `code`, a draw, is the first of those that stand for its architecture."""

    def candidate(self, code: Mapping[str, Value]) -> Candidate:
        """`code` in canonical form as far as its options say, with its architecture. Raises as `decode`."""
        canonical = self.canonical(code)
        return Candidate(canonical, self.decode(canonical))

    def sample(self, rng: Random) -> Candidate:
        """A member, uniform over the distinct buildable architectures.

        A space of few codes is walked where as many draws gave none. Raises `SpaceError` where that finds no member,
        and where a large space gave none in 10,000 draws that were built, or 100,000 in all.
        """
        size, built, problem = self.size, 0, ""
        for draws in range(DRAWS):
            if draws == size <= FEW:
                return self._any(rng)
            code = self._draw(rng)
            if code is None:
                continue
            try:
                architecture = self._decode(self._filled(code))  # first: most draws that fail do so here, and early
                if self._first(code):
                    return Candidate(code, architecture)
            except ArchitectureError as error:
                problem = str(error)
            built += 1
            if built == TRIES:
                break
        raise self._empty(f"got none in {draws + 1:,} draws; last: {problem or self._problem()}")

    def _any(self, rng: Random) -> Candidate:
        """A member of a space that can be walked."""
        members = list(self.members())
        if members:
            return rng.choice(members)
        raise self._empty(f"got none in all {self.size:,} codes; first: {self._problem()}")

    def _empty(self, found: str) -> SpaceError:
        return SpaceError([((), f"must hold architectures that can be built ({found})")])

    def _problem(self) -> str:
        """What is wrong with the first code, if anything."""
        try:
            self.decode({})
        except ArchitectureError as error:
            return str(error)
        return "nothing, of the first code"

    def mutate(self, candidate: Candidate, rng: Random) -> Candidate:
        """A neighbour: one choice changed (two, half the time), buildable and another architecture.

        Falls back on a fresh sample where a bounded number of changes leads nowhere.
        """
        names = list(self.choices)
        for _ in range(200):
            code = dict(candidate.code)
            for name in rng.sample(names, min(len(names), rng.choice((1, 2)))):
                code[name] = rng.choice([v for v in self.choices[name] if v != code[name]])
            try:
                found = self.candidate(code)
            except ArchitectureError:
                continue
            if found.architecture != candidate.architecture:
                return found
        return self.sample(rng)

    def cross(self, a: Candidate, b: Candidate, rng: Random) -> Candidate:
        """A child: the overall choices and each stage as a whole from either parent, then, if need be, mutated."""
        groups: dict[str, list[str]] = {}
        for name in self.choices:
            groups.setdefault(name.partition(".")[0], []).append(name)
        for _ in range(50):
            code: Code = {}
            for names in groups.values():
                parent = rng.choice((a, b))
                code |= {name: parent.code[name] for name in names}
            try:
                return self.candidate(code)
            except ArchitectureError:
                continue
        return self.mutate(a, rng)

    def _filled(self, code: Code) -> Code:
        """`code`, one of this space, with the options that it leaves out."""
        return self._start | code

    def _complete(self, code: Mapping[str, Value]) -> Code:
        full = dict(self._start)
        for name, value in code.items():
            if name not in self._values:
                raise SpaceError([((), f"has no choice {name!r}; it has {', '.join(self.choices)}")])
            value = tuple(value) if isinstance(value, list) else value
            if value not in self._values[name]:
                raise SpaceError([((), f"`{name}` must be one of {list(self._values[name])} (got {value!r})")])
            full[name] = value
        return full

    def _space(self, resolution: Value) -> tuple[int, ...]:
        """The input's space at a resolution multiplier: height and width scaled, frames not."""
        scaled = (max(1, round(size * float(resolution))) for size in self.input[-2:])  # type: ignore[arg-type]
        return (*self.input[1:-2], *scaled)
