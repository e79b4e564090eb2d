"""The Python in docs/ runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BLOCKS = [
    (f"{path.name} {number}", block)
    for path in sorted(Path("docs").glob("*.md"))
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_a_block_runs(name: str, block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block, name, "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out


def test_there_are_blocks() -> None:
    assert BLOCKS
