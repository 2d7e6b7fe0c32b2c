"""The state of each run that a visitor started: waiting, running, done, stopped or failed.

A run is one press of a button that draws or trains. The browser makes the run's id when the button
is pressed, so that Stop can name the run even if the server receives Stop first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

from pipeline.lru import LruCache

from ..events import Refused
from .visitors import identify

Terminal = Literal["done", "stopped", "failed"]
State = Literal["waiting", "running"] | Terminal
MAX_RUNS = 4096  # how many runs of all visitors are remembered; a forgotten one still runs on
MAX_ID = 64  # characters of an id


class Run:
    """The state of one run, which is one press of a button that draws or trains.

    It is "waiting" in Gradio's queue, then "running", at last "done", "stopped" or "failed".

    progress: the run's last event, from which the status line of a stopped run is made; None before
        the first event
    has_begun: whether the run has left the queue
    visitor: the id of the visitor who started it, from visitors.identify; "" before it has begun
    """

    def __init__(self) -> None:
        self.progress: Any = None
        self.has_begun = False
        self.visitor = ""
        self._state: State = "waiting"
        self._lock = threading.Lock()
        self._on_stop: list[Callable[[], None]] = []

    @property
    def state(self) -> State:
        """The current state: "waiting", "running", "done", "stopped" or "failed"."""
        return self._state

    def begin(self) -> bool:
        """Change the state from "waiting" to "running"; return False if it was not "waiting".

        A run that was stopped while it waited must not start: then the result is False.
        """
        with self._lock:
            if self._state != "waiting":
                return False
            self._state, self.has_begun = "running", True
            return True

    def finish(self, state: Terminal) -> bool:
        """Set the final state: "done", "stopped" (which calls the `on_stop` callbacks) or "failed".

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
        """Have `callback` called when the run is stopped, or at once if it is stopped already."""
        with self._lock:
            if self._state in ("waiting", "running"):
                self._on_stop.append(callback)
                return
        if self._state == "stopped":
            callback()


class Refusals:
    """Why the last request of a listener was refused before it could wait; read once. Thread-safe.

    limit: how many of all visitors are remembered.
    """

    def __init__(self, limit: int = MAX_RUNS):
        self._refused: dict[tuple[str, int], Refused] = {}
        self._limit, self._lock = limit, threading.Lock()

    def put(self, session: str, listener: int, refused: Refused) -> None:
        """Remember why a request was refused. listener: the number of its Gradio listener."""
        with self._lock:
            self._refused[session[:MAX_ID], listener] = refused
            while len(self._refused) > self._limit:
                del self._refused[next(iter(self._refused))]

    def take(self, session: str, listener: int) -> Refused | None:
        """Return why the listener's last request was refused, and forget it; None if it was not."""
        with self._lock:
            return self._refused.pop((session[:MAX_ID], listener), None)


class Runs:
    """The states of all runs on a server. A run is one press of a button that draws or trains.

    A run is found by its visitor's Gradio session and by its id, which the browser makes. The
    buttons whose runs one Stop button stops form a group with a name; in a session, each button of
    a group has at most one run that waits or runs. Thread-safe. limit: how many runs are
    remembered. refusals: why requests were refused before they could wait. identify:
    identify(request) returns the id of the visitor who sent a request.
    """

    identify = staticmethod(identify)

    def __init__(self, limit: int = MAX_RUNS):
        self.refusals = Refusals(limit)
        self._runs: LruCache[tuple[str, str], Run] = LruCache(limit)
        self._of_button: LruCache[tuple[str, str, int], Run] = LruCache(limit)
        self._latest: LruCache[tuple[str, str], Run] = LruCache(limit)
        self._lock = threading.Lock()

    def open(self, session: str, group: str, button: int, run_id: str) -> Run | None:
        """Register the run of a button that was just pressed, and return it in the state "waiting".

        It is already "stopped" if the server received the visitor's Stop first. If an earlier run
        of the same button still waits, that one is stopped. If it is running, no run is created:
        None is returned, and `run_id` becomes another id of the running one, so that Stop finds it.
        session: the visitor's Gradio session. group: the name shared by all buttons whose runs one
        Stop button stops; button: index of the pressed button in that group.
        """
        key = _key(session, run_id)
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
        """Return the run with the id `run_id` in the visitor's session; None for an unknown id."""
        return self._runs.get(_key(session, run_id))

    def stop(self, session: str, run_id: str) -> Run:
        """Stop the run with the id `run_id` in the visitor's session, unless it has ended.

        Returns the run. For an unknown id, a stopped run is stored: Stop may reach the server
        before the press that starts the run, and `open` then finds the run already stopped.
        """
        key = _key(session, run_id)
        with self._lock:
            run = self._runs.get(key) or Run()
            self._runs.put(key, run)
        run.finish("stopped")
        return run

    def is_latest(self, session: str, group: str, run: Run) -> bool:
        """Return whether `run` is the last one that the visitor started in a group of buttons.

        The buttons of a group share a status line, which a run that was stopped earlier must not
        overwrite.
        """
        return self._latest.get((session, group)) is run


def _key(session: str, run_id: str | None) -> tuple[str, str]:
    """Return the key of a run; a request without an id, which no page sends, has the id ""."""
    return session, (run_id or "")[:MAX_ID]
