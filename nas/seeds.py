"""Seeds: published networks on the data of a sweep, trained first, so that a front shows the known beside the found."""

from __future__ import annotations

from dataclasses import dataclass

from nas.data import Data
from nas.quantities import short
from nas.sweep import Sweep, SweepError
from searchspace.architecture import Architecture, ArchitectureError
from searchspace.cost import cost
from searchspace.named import call, network


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A published network on the data; `name` is what people see: resnet(depth=18, widen=0.25)."""

    name: str
    architecture: Architecture


def seeds_of(sweep: Sweep, data: Data) -> list[Seed]:
    """The sweep's seeds. Raises `SweepError` for those that the data or the limits do not allow, and for twins."""
    seeds: list[Seed] = []
    faults: list[str] = []
    for number, record in enumerate(sweep.seeds, 1):
        try:
            seed = Seed(name=call(record), architecture=network(record, input=data.input, classes=data.classes))
            faults += [f"seeds.{number}: {rule}" for rule in _broken(seed, seeds, sweep, data)]
            seeds.append(seed)
        except ArchitectureError as error:
            faults.append(f"seeds.{number}: must fit the data's input {_size(data)} (got {call(record)}: {error})")
    if faults:
        raise SweepError(faults)
    return seeds


def _broken(seed: Seed, others: list[Seed], sweep: Sweep, data: Data) -> list[str]:
    """The rules that a network breaks."""
    output, rules = seed.architecture.output, []
    if output.space or output.channels != data.classes:
        rules.append(f"must be a classifier that ends in {data.classes} values (got {seed.name}: {output})")
    price, costs = cost(seed.architecture), sweep.limits.costs
    over = [f"{n} {short(getattr(price, n))} against {short(costs[n])}" for n in sweep.limits.excess(price)]
    if over:
        rules.append(
            f"must be inside the limits; `widen` below 1 makes it narrower (got {seed.name}: {', '.join(over)})"
        )
    rules += [
        f"must be another network than {other.name} (got {seed.name})"
        for other in others
        if other.architecture == seed.architecture
    ]
    return rules


def _size(data: Data) -> str:
    return "x".join(map(str, data.input))
