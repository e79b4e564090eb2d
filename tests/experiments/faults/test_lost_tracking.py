"""MLflow that is down or locked while a sweep runs: the search goes on, and the next run catches up."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from socket import socket
from typing import Any

import pytest


@pytest.mark.slow
def test_a_server_that_is_down_costs_nothing_and_gets_everything_later(
    tmp_path: Path, sweeping: Callable[..., Any]
) -> None:
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri, store = f"http://127.0.0.1:{port}", tmp_path / "server.db"
    one = sweeping(3, tracking={"uri": uri})
    said = one.run()
    assert f"MLflow at {uri} does not answer; the search goes on and catches up later" in said
    assert "MLflow still lacks" in said
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{store}", "--default-artifact-root", str(tmp_path / "artifacts")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while not answers(uri):
            assert time.monotonic() < deadline, "the server must start"
            time.sleep(0.2)
        said = one.run()
        assert "does not answer" not in said
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    assert sorted(int(run["nas.trial"]) for run in one.runs(store)) == [0, 1, 2]


def answers(uri: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{uri}/health", timeout=1).read())
    except OSError:
        return False


@pytest.mark.slow
def test_a_locked_sqlite_is_said_and_gets_everything_later(sweeping: Callable[..., Any]) -> None:
    sweeping(2, tracking={}).run()
    one = sweeping(4, tracking={})
    with closing(sqlite3.connect(one.out / "mlflow.db", isolation_level=None)) as held:
        held.execute("begin exclusive")
        said = one.run()
    assert len({row.trial for row in one.rows()}) == 4
    assert "MLflow still lacks" in said
    assert len(one.runs(one.out / "mlflow.db")) == 2
    one.run()
    one.check()
