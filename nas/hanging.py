"""A limit of time on each epoch: a process that passes it ends at once, whatever it hangs in.

The C thread of faulthandler does it, so that a call which never gives Python its turn ends too. Before it ends, the
process writes where its threads stood. A process that ends is a worker lost: its pool repeats the job.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO

LONGEST_S = 1e9  # three decades; faulthandler refuses ten times as much

_limited: ContextVar[tuple[float, IO[str]] | None] = ContextVar("_limited", default=None)


@contextmanager
def epochs_limited(seconds: float, epochs: int, checkpoint: str | None) -> Iterator[None]:
    """Inside, this process ends after `seconds` for each of `epochs`; a training that calls `epoch_begins` has
    `seconds` from each call. Where it stood is written beside `checkpoint` (None: to stderr), for `where_it_hung`.
    """
    with ExitStack() as stack:
        file: IO[str] = sys.stderr
        if checkpoint is not None:
            path = _beside(checkpoint)
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.callback(path.unlink, missing_ok=True)
            file = stack.enter_context(open(path, "w"))
        stack.callback(_limited.reset, _limited.set((min(seconds, LONGEST_S), file)))
        stack.callback(faulthandler.cancel_dump_traceback_later)
        faulthandler.dump_traceback_later(min(seconds * epochs, LONGEST_S), exit=True, file=file)
        yield


def epoch_begins() -> None:
    """Give the epoch that begins its whole time. Outside `epochs_limited` it does nothing."""
    limited = _limited.get()
    if limited is not None:
        seconds, file = limited
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)


def where_it_hung(checkpoint: str | None) -> str:
    """Where the process of the job with `checkpoint` stood when it passed its limit; empty where it did not."""
    path = _beside(checkpoint) if checkpoint is not None else None
    text = path.read_text() if path is not None and path.exists() else ""
    if path is not None:
        path.unlink(missing_ok=True)
    return text


def _beside(checkpoint: str) -> Path:
    return Path(f"{checkpoint}.hung")
