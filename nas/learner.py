"""A sampler that learns from the results table rather than from the study: what all of them have in common.

The study knows a trial's last values alone; the table knows how far it was trained, its curve, and what was stopped.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.results import Result
from searchspace.choices import SpaceError, Value
from searchspace.codes import Candidate, Code, Codes
from searchspace.cost import Cost


class Learner(BaseSampler):
    """Told of each trial when it begins and of each row of the table, in order of arrival; on resume of all old rows
    first. Under `nas.proposals.Proposals` it is asked for all choices at once, and for the same trial again where a
    point was refused."""

    def begin(self, candidate: Candidate, price: Cost) -> None:
        """`candidate` is a trial in work now, whoever proposed it."""

    @abstractmethod
    def learn(self, row: Result) -> None:
        """A row of the table. Rows whose `choices` are None (the space does not hold them) teach nothing."""

    @abstractmethod
    def propose(self) -> Code | None:
        """The next point, another one at each call; None where there is no model yet."""

    def parent(self, digest: str) -> int | None:
        """The trial that the proposed architecture was made from by changes, if any."""
        return None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        point = self.propose()
        return {} if point is None else {name: plain(value) for name, value in point.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise RuntimeError(f"All choices are proposed at once, but {param_name!r} was asked for by itself.")


def plain(value: object) -> str | int | float | bool:
    """A choice as Optuna stores it: a value per axis is written 1x3x3."""
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    assert isinstance(value, str | int | float)
    return value


def code_of(choices: Mapping[str, object]) -> Code:
    """The code in a row's choices; JSON has lists where a code has tuples."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in choices.items()}
    code: dict[str, Value] = values
    return code


def decoded(space: Codes, config: Mapping[str, object]) -> Code:
    """The space's code of a point as Optuna has it. Raises `SpaceError` for one of another space."""
    code: Code = {}
    for name, values in space.choices.items():
        told = {(type(plain(value)), plain(value)): value for value in values}
        got = config.get(name)
        if (type(got), got) not in told:
            listed = ", ".join(repr(value) for _, value in told)
            raise SpaceError([((), f"choice {name!r} must be one of {listed} (got {got!r})")])
        code[name] = told[type(got), got]  # type: ignore[index]
    return code
