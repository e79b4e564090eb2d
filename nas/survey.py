"""What a space holds under the limits, before a sweep starts: its size, the range of each cost, the feasible share.

Members are drawn uniformly for a bounded time; where none is feasible, a descent looks for one and keeps the nearest
miss, so that a limit nobody can reach stops a sweep before it starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random

from nas.quantities import short
from nas.sweep import Limits
from searchspace.codes import Candidate, Codes
from searchspace.cost import COUNTS, Cost, cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The least, median and largest of one cost over the feasible members seen."""

    least: float
    median: float
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """`codes` bounds the members from above; `feasible` is the share of `drawn` members inside the cost limits.

    `nearest` is the excess, a share of each broken limit, of the nearest miss where nothing feasible was found.
    `per_second`: members drawn, decoded, digested and costed on this core.
    """

    codes: int
    choices: int
    drawn: int
    feasible: float
    costs: dict[str, Range]
    nearest: dict[str, float]
    nearest_words: str
    per_second: float

    @property
    def reachable(self) -> bool:
        return not self.nearest

    def to_json(self) -> dict[str, object]:
        return {"format": "survey/1", **asdict(self), "reachable": self.reachable}


def survey(space: Codes, limits: Limits, *, rng: Random, draws: int = 1_000, seconds: float = 3.0) -> Survey:
    """Draw up to `draws` members, for up to `seconds`, then push each cost to its ends by single changes.

    The ends of `costs` are the smallest and largest found, not proven; the median is that of the feasible draws.
    """
    start = time.perf_counter()
    members: list[tuple[Candidate, Cost]] = []
    while len(members) < draws and (time.perf_counter() - start < seconds or len(members) < 30):
        member = space.sample(rng)
        price = cost(member.architecture)
        _ = member.architecture.digest  # part of screening: newness is told by it
        members.append((member, price))
    per_second = len(members) / (time.perf_counter() - start)
    feasible = [(m, c) for m, c in members if not limits.excess(c)]
    share = len(feasible) / len(members)
    nearest: dict[str, float] = {}
    words = ""
    if not feasible:
        best = min(members, key=lambda pair: sum(limits.excess(pair[1]).values()))
        best = _descend(space, best, limits, rng, lambda c: sum(limits.excess(c).values()), until_zero=True)
        nearest, words = limits.excess(best[1]), str(best[0].architecture)
        feasible = [] if nearest else [best]
    return Survey(
        codes=space.size,
        choices=len(space.choices),
        drawn=len(members),
        feasible=share,
        costs={name: _range(space, name, feasible, limits, rng) for name in COUNTS} if feasible else {},
        nearest=nearest,
        nearest_words=words,
        per_second=per_second,
    )


def _range(space: Codes, name: str, feasible: list[tuple[Candidate, Cost]], limits: Limits, rng: Random) -> Range:
    feasible = sorted(feasible, key=lambda pair: getattr(pair[1], name))

    def end(pair: tuple[Candidate, Cost], sign: int) -> float:
        found = _descend(space, pair, limits, rng, lambda c: sign * getattr(c, name))
        return float(getattr(found[1], name))

    median = getattr(feasible[len(feasible) // 2][1], name)
    return Range(least=end(feasible[0], 1), median=float(median), largest=end(feasible[-1], -1))


def _descend(
    space: Codes,
    pair: tuple[Candidate, Cost],
    limits: Limits,
    rng: Random,
    height: Callable[[Cost], float],
    until_zero: bool = False,
    steps: int = 60,
) -> tuple[Candidate, Cost]:
    """The lowest point that `steps` mutations find from `pair`, staying feasible unless feasibility is the height."""
    for _ in range(steps * (10 if until_zero else 1)):
        if until_zero and height(pair[1]) <= 0:
            break
        mutant = space.mutate(pair[0], rng)
        price = cost(mutant.architecture)
        if height(price) < height(pair[1]) and (until_zero or not limits.excess(price)):
            pair = mutant, price
    return pair


def lines(result: Survey, limits: Limits) -> list[str]:
    """The survey for people, a fact a line."""
    text = [
        f"space            {result.codes:.3g} codes over {result.choices} choices",
        f"feasible         {result.feasible:.0%} of {result.drawn:,} members drawn uniformly"
        + (f", under {_limits(limits)}" if limits.costs else " (no cost limit)"),
    ]
    for name, r in result.costs.items():
        text.append(
            f"{name:<16} {short(r.least)} to {short(r.largest)}, median {short(r.median)} (feasible members seen)"
        )
    text.append(f"speed            {result.per_second:,.0f} candidates a second on one core")
    if not result.reachable:
        text.append(f"unreachable: {miss(result, limits)}")
    return text


def miss(result: Survey, limits: Limits) -> str:
    """The nearest miss in words: what it costs against each limit it breaks."""
    parts = [
        f"{name} {short(limits.costs[name] * (1 + share))} against {short(limits.costs[name])}"
        for name, share in result.nearest.items()
    ]
    return f"the nearest architecture has {' and '.join(parts)}: {result.nearest_words}"


def _limits(limits: Limits) -> str:
    return ", ".join(f"{name} <= {short(value)}" for name, value in limits.costs.items())
