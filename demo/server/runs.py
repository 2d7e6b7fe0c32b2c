"""The runs that visitors start, each with one terminal state that the server holds.

A run is one press of a button that draws or trains. Its id is made by the browser when the button
is pressed, so that Stop names the run that it means even where its request arrives first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

from pipeline.lru import LruCache

Terminal = Literal["done", "stopped", "failed"]
State = Literal["waiting", "running"] | Terminal
MAX_RUNS = 4096  # that are remembered, of all visitors; running ones work on when forgotten
MAX_ID = 64  # characters of an id


class Run:
    """One run: waiting in the queue, then running, then done, stopped or failed for ever.

    progress: the last event that was shown, for the text of a stopped run; None before the first
    """

    def __init__(self) -> None:
        self.progress: Any = None
        self.has_begun = False  # whether it has left the queue
        self._state: State = "waiting"
        self._lock = threading.Lock()
        self._on_stop: list[Callable[[], None]] = []

    @property
    def state(self) -> State:
        """The state now."""
        return self._state

    def begin(self) -> bool:
        """Go from waiting to running; False where the run has begun or ended before."""
        with self._lock:
            if self._state != "waiting":
                return False
            self._state, self.has_begun = "running", True
            return True

    def finish(self, state: Terminal) -> bool:
        """Set the terminal state; False, and no change, where there is one already."""
        with self._lock:
            if self._state not in ("waiting", "running"):
                return False
            self._state = state
            callbacks, self._on_stop = self._on_stop, []
        if state == "stopped":
            for callback in callbacks:
                callback()
        return True

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the run is stopped; at once where it is stopped already."""
        with self._lock:
            if self._state in ("waiting", "running"):
                self._on_stop.append(callback)
                return
        if self._state == "stopped":
            callback()


class Runs:
    """All runs of a server, by the visitor's session and the run's id. Safe to use from threads.

    A group is what one Stop button stops; each of its buttons has one run on its way at a time.
    """

    def __init__(self, limit: int = MAX_RUNS):
        self._runs: LruCache[tuple[str, str], Run] = LruCache(limit)
        self._of_button: LruCache[tuple[str, str, int], Run] = LruCache(limit)
        self._latest: LruCache[tuple[str, str], Run] = LruCache(limit)
        self._lock = threading.Lock()

    def open(self, session: str, group: str, button: int, run_id: str) -> Run | None:
        """Return a new waiting run, or the stopped one where Stop arrived first.

        While another run of the button is running, return None: the id then names that one.
        A run of the button that still waits makes room for the new one.
        """
        key = session, run_id[:MAX_ID]
        with self._lock:
            before = self._of_button.get((session, group, button))
            if before is not None and before.state == "running":
                self._runs.put(key, before)
                return None
            if before is not None:
                before.finish("stopped")
            run = self._runs.get(key) or Run()
            self._runs.put(key, run)
            self._of_button.put((session, group, button), run)
            self._latest.put((session, group), run)
            return run

    def find(self, session: str, run_id: str) -> Run | None:
        """Return the run of an id, None for an unknown one."""
        return self._runs.get((session, run_id[:MAX_ID]))

    def stop(self, session: str, run_id: str) -> Run:
        """Stop the run of an id, unless it has ended; it may be opened later. Return the run."""
        key = session, run_id[:MAX_ID]
        with self._lock:
            run = self._runs.get(key) or Run()
            self._runs.put(key, run)
        run.finish("stopped")
        return run

    def is_latest(self, session: str, group: str, run: Run) -> bool:
        """Whether the visitor has started no other run of the group since."""
        return self._latest.get((session, group)) is run
