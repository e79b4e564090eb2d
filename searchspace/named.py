"""A published network as a file names it: a name, or a mapping of the network and its arguments.

`{network: resnet, depth: 18, widen: 0.25}` is `resnet(depth=18)` with a quarter of every width. Classes and input are
never said: the data has them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from searchspace.architecture import Architecture, ArchitectureError
from searchspace.choices import Place, meant
from searchspace.published import NETWORKS
from searchspace.transforms import everywhere, widen

Record = dict[str, object]
GIVEN = ("classes", "input")


def read_network(value: object, place: Place) -> tuple[Record, list[tuple[Place, str]]]:
    """(the mapping, its problems); the mapping is empty where no network is named."""
    record: object = {"network": value} if isinstance(value, str) else value
    if not isinstance(record, Mapping) or "network" not in record:
        rule = "must be a published network, or a mapping with `network` and its arguments"
        return {}, [(place, f"{rule} (got {value!r})")]
    name, where = record["network"], place if isinstance(value, str) else (*place, "network")
    if not isinstance(name, str) or name not in NETWORKS:
        return {}, [(where, f"must be one of {', '.join(NETWORKS)} (got {name!r}{meant(name, NETWORKS)})")]
    known = [*(key for key in arguments(name) if key not in GIVEN), "widen"]
    problems: list[tuple[Place, str]] = [
        ((*place, str(key)), f"must be one of {', '.join(['network', *known])} (got {key!r}{meant(key, known)})")
        for key in record
        if key not in ("network", *known)
    ]
    read = {str(k): tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    if not problems:
        try:
            network(read)  # as published: tells a value that cannot be, whatever the data
        except ArchitectureError as error:
            problems.append((place, f"must be a network that can be built (got {call(read)}: {error})"))
    return read, problems


def arguments(name: str) -> list[str]:
    """What the function of the network takes."""
    return list(inspect.signature(NETWORKS[name]).parameters)


def network(record: Mapping[str, object], **given: object) -> Architecture:
    """The architecture that `record` says, with `given` classes and input, else the paper's own.

    Raises `ArchitectureError`, also for a value of a type that the network does not know.
    """
    said = {key: value for key, value in record.items() if key not in ("network", "widen")}
    factor = record.get("widen", 1.0)
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not factor > 0:
        raise ArchitectureError(f"`widen` must be a number > 0, but got {factor!r}.")
    try:
        found = NETWORKS[str(record["network"])](**said, **given)
        return found if factor == 1 else widen(found, float(factor), everywhere)
    except ArchitectureError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ArchitectureError(f"{record['network']} cannot be built with {said}: {error}.") from None


def call(record: Mapping[str, object]) -> str:
    """The network as people see it: resnet(depth=18, widen=0.25)."""
    said = ", ".join(f"{key}={value}" for key, value in record.items() if key != "network")
    return f"{record['network']}({said})" if said else str(record["network"])
