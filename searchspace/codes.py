"""Codes: choices by name, and what every kind of space can do with them once it says what a code stands for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from searchspace.architecture import Architecture, ArchitectureError, Chain
from searchspace.choices import SpaceError, Value

Code = dict[str, Value]
TRIES = 10_000


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
        self.choices: dict[str, tuple[Value, ...]] = {k: v for k, v in values.items() if len(v) > 1}

    @property
    @abstractmethod
    def size(self) -> int:
        """How many codes differ in what their options say: an upper bound of the members."""

    @abstractmethod
    def decode(self, code: Mapping[str, Value]) -> Architecture:
        """The architecture of `code`; choices it leaves out are at their first value.

        Raises `SpaceError` for a name or value the space does not have, `ArchitectureError` where it cannot be built.
        """

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
    def _draw(self, rng: Random) -> Code:
        """A code, uniform over a set that holds every canonical code once."""

    @abstractmethod
    def _first(self, code: Code) -> bool:
        """Whether `code`, a draw, is the first of those that stand for its architecture."""

    def candidate(self, code: Mapping[str, Value]) -> Candidate:
        """`code` in canonical form as far as its options say, with its architecture. Raises as `decode`."""
        canonical = self.canonical(code)
        return Candidate(canonical, self.decode(canonical))

    def sample(self, rng: Random) -> Candidate:
        """A member, uniform over the distinct buildable architectures.

        Raises `SpaceError` where 10,000 draws in a row could not be built.
        """
        problem = ""
        for _ in range(TRIES):
            code = self._draw(rng)
            try:
                architecture = self.decode(code)  # first: most draws that fail do so here, and early
                if self._first(code):
                    return Candidate(code, architecture)
            except ArchitectureError as error:
                problem = str(error)
        raise SpaceError(
            [((), f"must hold architectures that can be built (got none in {TRIES:,} draws; last: {problem})")]
        )

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

    def _complete(self, code: Mapping[str, Value]) -> Code:
        full: Code = {name: values[0] for name, values in self._values.items()}
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
