"""The front of a search while it moves: kept true as records come in, written whole, tested at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nas.data import Data
from nas.folder import read_front, weights, write_json
from nas.pareto import Objective, front, hypervolume, reference_point
from nas.results import Result, Results
from nas.survey import Survey
from nas.sweep import Limits
from nas.tally import Tally
from nas.train import evaluate
from nas.training import TrainingError
from searchspace.checkpoint import CheckpointError
from searchspace.checkpoint import load as load_network


class MovingFront:
    """`members` of the table so far, in `out/front.json` as soon as they change."""

    def __init__(
        self, out: Path, table: Results, objectives: Sequence[Objective], tally: Tally, report: Survey, limits: Limits
    ) -> None:
        self._out, self._objectives, self._tally, self._report, self._limits = out, objectives, tally, report, limits
        self.members = front(table, objectives)
        self._volume: tuple[dict[str, float], float] | None = None  # of these members: the reference, the hypervolume

    def add(self, row: Result) -> bool:
        """Whether a record moved the front."""
        moved = front([*self.members, row], self._objectives) if row.final else self.members
        if moved == self.members:
            return False
        self.members, self._volume = moved, None
        self.write(moved)
        return True

    def reference(self) -> dict[str, float]:
        """The limits, and where there is none the top of the space's range; of a latency, the largest seen."""
        ranges = {name: found.largest for name, found in self._report.costs.items()}
        tops: Mapping[str, float] = self._tally.largest | ranges | self._limits.costs
        if self._limits.latency_ms is not None:
            tops = {**tops, "latency_ms": self._limits.latency_ms}
        return reference_point((), self._objectives, tops)

    def hypervolume(self) -> float:
        """From the reference as it is now."""
        reference = self.reference()
        if self._volume is None or self._volume[0] != reference:
            self._volume = reference, hypervolume(self.members, self._objectives, reference)
        return self._volume[1]

    def write(self, members: list[Result]) -> None:
        """`members` as the folder's front."""
        record = {
            "format": "front/1",
            "objectives": [o.name for o in self._objectives],
            "reference": self.reference(),
            "members": [row.to_json() for row in members],
        }
        write_json(self._out / "front.json", record, indent=None)  # indented, a long front takes half a second

    def tested(self, data: Data | None, say: Callable[[str], None]) -> list[Result]:
        """The members with `test_accuracy`: from the front file that knew it before, or measured on `data` if given."""
        file = self._out / "front.json"
        known = {row.trial: row.values for row in read_front(self._out)} if file.exists() else {}
        members: list[Result] = []
        for row in self.members:
            values = dict(row.values)
            if "test_accuracy" in known.get(row.trial, {}):
                values["test_accuracy"] = known[row.trial]["test_accuracy"]
            elif data is not None:
                try:
                    values["test_accuracy"] = evaluate(load_network(weights(self._out, row.trial)), data, "test")[1]
                except (CheckpointError, TrainingError) as error:
                    say(f"{row.title} has no test accuracy: {error}")
            members.append(replace(row, values=values))
        return members
