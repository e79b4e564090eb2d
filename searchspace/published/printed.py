"""What papers and other libraries print for the published networks, beside what the networks here cost exactly.

`printed.json` holds the prints as they stand in their sources, each with the exact figure that it stands for; a
source marked "recalled" was not at hand and is given from memory. `rows()` builds every network and compares: a print
agrees where the exact figure rounds to it, and one that does not has a cause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from searchspace.cost import Cost, cost
from searchspace.published import NETWORKS

UNITS = {"": Decimal(1), "K": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9}
UNITS["MB"] = Decimal(2**20) / 4  # of float32 weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Print:
    """A number that someone printed. `of` names the figure of `Cost` it stands for, `printed` is it as it stands.

    `deviation` is (printed - exact) / exact; `agrees` where the exact figure rounds to the print. `cause` says why
    it does not, or why `of` is not what the print calls itself.
    """

    by: str
    of: str
    printed: str
    exact: int
    deviation: float
    agrees: bool
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A published network, `NETWORKS[network](**settings, input=input, classes=classes)`, its cost and its prints."""

    name: str
    network: str
    settings: dict[str, int | float | bool | str]
    input: tuple[int, ...]
    classes: int
    cost: Cost
    prints: tuple[Print, ...]


def rows() -> Iterator[Row]:
    """Every network of `printed.json`, built and costed, in its order."""
    record = json.loads(Path(__file__).with_suffix(".json").read_text())
    causes: dict[str, str] = record["causes"]
    for entry in record["networks"]:
        size = tuple(entry["input"])
        build = NETWORKS[entry["network"]]
        exact = cost(build(**entry["settings"], input=size, classes=entry["classes"]))
        prints = tuple(
            compared(p["by"], p["of"], p["printed"], exact, "; ".join(causes[key] for key in p.get("cause", ())))
            for p in entry["prints"]
        )
        yield Row(**{**entry, "input": size, "cost": exact, "prints": prints})


def compared(by: str, of: str, printed: str, exact: Cost, cause: str = "") -> Print:
    """The print beside the exact figure."""
    figure = int(getattr(exact, of))
    value, step = read(printed)
    difference = value - figure
    return Print(
        by=by,
        of=of,
        printed=printed,
        exact=figure,
        deviation=float(difference / figure),
        agrees=abs(difference) <= step / 2,
        cause=cause,
    )


def read(printed: str) -> tuple[Decimal, Decimal]:
    """The value of a print such as 4.09G and the worth of one unit in its last digit."""
    match = re.fullmatch(r"(\d+(?:\.(\d+))?)(|K|M|G|MB)", printed)
    if match is None:
        raise ValueError(f"A print must be a number with K, M, G, MB or nothing after it, but got {printed!r}.")
    unit = UNITS[match[3]]
    return Decimal(match[1]) * unit, unit / 10 ** len(match[2] or "")
