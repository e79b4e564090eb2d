"""Run the tests: the quick tier, or with --full all of it, where a skip must be on the list of allowed ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Skips:
    """Gathers skips; in the full tier, one that is not listed fails the run."""

    def __init__(self, allowed: set[str]) -> None:
        self.allowed = allowed
        self.seen: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.seen.append((report.nodeid, str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "")))

    pytest_collectreport = pytest_runtest_logreport  # of a module that is skipped as a whole

    @property
    def unlisted(self) -> list[str]:
        return [f"{test}: {reason}" for test, reason in self.seen if test.partition("[")[0] not in self.allowed]


def main(arguments: list[str]) -> int:
    """The exit status: pytest's, or 1 for a skip that may not be."""
    full = "--full" in arguments
    words = [word for word in arguments if word != "--full"]
    listed = (HERE / "allowed_skips.txt").read_text().splitlines()
    skips = Skips({line.strip() for line in listed if line.strip() and not line.startswith("#")})
    chosen = [] if full else ["-m", "not slow"]
    status = int(pytest.main([*chosen, "-n", "2", "--dist", "loadfile", "--durations", "15", *words], plugins=[skips]))
    if full and skips.unlisted:
        print("These tests must run in the full tier, but were skipped:", *skips.unlisted, sep="\n  ")
        return status or 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
