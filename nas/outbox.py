"""An outbox: calls to a store that may be down, made in order on one thread, so that nobody waits for them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Outbox:
    """Calls made in order on a daemon thread, each repeated until the store took it or refused it twice.

    A call that raises is refused when `answers` does not raise; otherwise the store is down, and the call waits.
    """

    def __init__(self, answers: Callable[[], None], say: Callable[[str], None], store: str, retry_s: float) -> None:
        self._answers, self._say, self._store, self._retry_s = answers, say, store, retry_s
        self._calls: deque[tuple[str, Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._down = False
        self._hurry = False  # somebody waits: ask the store again now
        self._closed = False
        self._failures = 0

    def __len__(self) -> int:
        return len(self._calls)

    def put(self, what: str, call: Callable[[], None]) -> None:
        with self._changed:
            self._calls.append((what, call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        with self._changed:
            self._hurry = self._down
            self._changed.notify_all()
            failures = self._failures
            self._changed.wait_for(lambda: not self._calls or self._failures > failures, timeout_s)
            return not self._calls

    def close(self) -> None:
        """No more calls will come: the thread ends when it has made those there are, or at the first that fails."""
        with self._changed:
            self._closed = True
            self._hurry = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._calls) or self._closed)
                if not self._calls:
                    return
                what, call = self._calls[0]
            through, error = self._attempt(what, call)
            if through and self._down:
                self._say(f"{self._store} answers again; writing what waited.")
            elif not through and not self._down:
                self._say(f"{self._store} does not answer; the search goes on and catches up later ({error}).")
            with self._changed:
                self._down = not through
                if through:
                    self._calls.popleft()
                else:
                    self._failures += 1
                self._changed.notify_all()
                if not through and self._closed:
                    return
                if not through:
                    self._changed.wait_for(lambda: self._hurry, self._retry_s)
                    self._hurry = False

    def _attempt(self, what: str, call: Callable[[], None]) -> tuple[bool, str]:
        """(through with this call, the error that came from the store)."""
        for last in (False, True):
            try:
                call()
                return True, ""
            except Exception as error:  # any store, any driver: whatever it raises must not end a search
                problem = short_error(error)
            try:
                self._answers()
            except Exception as error:
                return False, short_error(error)
            if last:
                self._say(f"{self._store} refused {what}: {problem}")
        return True, problem


def short_error(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + " ..."
