"""A disk that fills up in mid-sweep: a clear error, nothing lost, and the same command goes on once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs is refused here (it needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_and_the_search_goes_on_once_there_is_room(
    sweeping: Callable[..., Any], wait_for: Callable[..., None], disk: Path
) -> None:
    one = sweeping(12, out=disk / "out", training={"epochs": 20, "batch_size": 16})
    for goal in (2, 5):
        process = one.start()
        wait_for(lambda goal=goal: len(one.rows()) >= goal, process)  # type: ignore[misc]
        fill(disk / "ballast")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1, said
        assert "Traceback" not in said
        assert f"{one.out}: there must be room on the disk, but it is full" in said
        saved = len(one.rows())
        assert goal <= saved < 12
        (disk / "ballast").unlink()
        assert len(one.rows()) == saved
    one.run()
    assert {row.state for row in one.check()} == {"complete"}, "a full disk is no fault of a trial"
    assert len(one.trainings()) <= len(one.rows()) + 2
