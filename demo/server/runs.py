"""The state of each run that a visitor started: waiting, running, done, stopped or failed.

A run is one press of a button that draws or trains. The browser makes the run's id when the button
is pressed, so that Stop can name the run even if the server receives Stop first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

from pipeline.lru import LruCache

Terminal = Literal["done", "stopped", "failed"]
State = Literal["waiting", "running"] | Terminal
MAX_RUNS = 4096  # how many runs of all visitors are remembered; a forgotten one still runs on
MAX_ID = 64  # characters of an id


class Run:
    """One run: waiting in the queue, then running, then done, stopped or failed, which is final.

    progress: the run's last event, from which the text of a stopped run is made; None before it
    has_begun: whether the run has left the queue
    """

    def __init__(self) -> None:
        self.progress: Any = None
        self.has_begun = False
        self._state: State = "waiting"
        self._lock = threading.Lock()
        self._on_stop: list[Callable[[], None]] = []

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

    def begin(self) -> bool:
        """Change the state from waiting to running; return False if it was not waiting."""
        with self._lock:
            if self._state != "waiting":
                return False
            self._state, self.has_begun = "running", True
            return True

    def finish(self, state: Terminal) -> bool:
        """Set the final state and call the `on_stop` callbacks if it is "stopped".

        Returns False, and changes nothing, if the run already has a final state.
        """
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
        """Call `callback` once the run is stopped; at once if it is stopped already."""
        with self._lock:
            if self._state in ("waiting", "running"):
                self._on_stop.append(callback)
                return
        if self._state == "stopped":
            callback()


class Runs:
    """All runs of a server, by the visitor's session and the run's id. Thread-safe.

    A group names a Stop button and the buttons whose runs it stops; in a session, each of these
    buttons has at most one run that waits or runs. limit: how many runs are remembered.
    """

    def __init__(self, limit: int = MAX_RUNS):
        self._runs: LruCache[tuple[str, str], Run] = LruCache(limit)
        self._of_button: LruCache[tuple[str, str, int], Run] = LruCache(limit)
        self._latest: LruCache[tuple[str, str], Run] = LruCache(limit)
        self._lock = threading.Lock()

    def open(self, session: str, group: str, button: int, run_id: str) -> Run | None:
        """Register the id of a button that was just pressed; return its run, which waits.

        The run is already stopped if Stop was received first. A run of the same button that still
        waits is stopped. If one is running, return None; the new id then names that running one.
        session: the visitor's; button: index of the button in its group.
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
        """Return the run with that id, None for an unknown id."""
        return self._runs.get((session, run_id[:MAX_ID]))

    def stop(self, session: str, run_id: str) -> Run:
        """Stop the run with that id, unless it has ended, and return it.

        For an unknown id, a stopped run is stored, which `open` finds when the press arrives later.
        """
        key = session, run_id[:MAX_ID]
        with self._lock:
            run = self._runs.get(key) or Run()
            self._runs.put(key, run)
        run.finish("stopped")
        return run

    def is_latest(self, session: str, group: str, run: Run) -> bool:
        """Return whether `run` is the last one that the visitor started in the group."""
        return self._latest.get((session, group)) is run
