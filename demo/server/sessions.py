"""Sessions: what Gradio keeps for each visit, bounded in number, bytes and age.

A page, a client of gradio_client and a web request that names no session are a session each. What
Gradio keeps for one, it keeps in three places: the values of the page's gr.State components, the
queue's messages that nobody has fetched, and the ids of the requests they belong to. Gradio bounds
none of them by age, and for each session it copies the configuration of all components, a megabyte.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import ChainMap, OrderedDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from gradio.blocks import BlocksConfig
from gradio.state_holder import SessionState, StateHolder

if TYPE_CHECKING:
    import gradio as gr
    from gradio.routes import App

MAX_BYTES = 64 << 20  # of the states of all sessions
CLOSED_SECONDS = 3600  # after a page was closed, its session is dropped; so long it may come back
UNUSED_SECONDS = 24 * 3600  # after its last use, a session is dropped whose page was not closed
UNREAD_SECONDS = 600  # after a request has ended, its messages are dropped if nobody fetches them
SWEEP_SECONDS = 60
MAX_MEASURED = 100_000  # objects in one session's state; what is beyond them is not measured
# Requests whose times and results Gradio keeps for its dashboard, which is closed here.
ANALYTICS_REQUESTS = 100


class Session(SessionState):
    """The state of one session: a SessionState that shares with the others what it has not changed.

    Gradio's own holds a copy of the configuration of all components, which only its deep links
    read; this one holds none, so its `components` are empty.

    used: the time of its last use, by the clock of Sessions
    """

    def __init__(self, blocks: gr.Blocks):
        shared = blocks.default_config
        self.blocks_config = BlocksConfig(blocks)
        self.blocks_config.blocks = ChainMap({}, shared.blocks)  # type: ignore[assignment]
        self.blocks_config.fns, self.blocks_config.fn_id = shared.fns, shared.fn_id
        self.blocks_config.renderables = shared.renderables
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = CLOSED_SECONDS
        self.used = 0.0

    def __setitem__(self, key: int, value: Any) -> None:
        """Set the value of a gr.State, or the component that this session has in place of `key`."""
        block = self.blocks_config.blocks.get(key)
        if block is not None and block.stateful:
            self.state_data[key] = value
        else:
            self.blocks_config.blocks[key] = value

    def _update_config(self, key: int) -> None:
        """Do nothing: no configuration is kept."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Do nothing: no configuration is kept."""

    @property
    def nbytes(self) -> int:
        """Size in bytes of the values of this session, and of the components that it replaced."""
        changed = self.blocks_config.blocks.maps[0]  # type: ignore[attr-defined]  # a ChainMap
        return sum(map(measure, (self.state_data, [vars(block) for block in changed.values()])))


class Sessions(StateHolder):
    """Gradio's sessions of a running page, of which the least recently used are dropped.

    Upkeep sets it as the `state_holder` of the app. Gradio calls `delete_all_expired_state` each
    second, in its event loop, so no request is handled meanwhile.

    blocks, app: the page, and the app that serves it
    limit: how many sessions are kept; 0 for any number
    max_bytes: size in bytes of all their states
    clock: returns the time in seconds
    sweep_at, swept: when they are swept next, by the clock, and how often they were
    """

    def __init__(
        self,
        blocks: gr.Blocks,
        app: App,
        limit: int,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.app, self.capacity, self.max_bytes, self.clock = app, limit, max_bytes, clock
        self.set_blocks(blocks)
        self.session_data: OrderedDict[str, SessionState] = OrderedDict()
        self.time_last_used = {}  # Gradio's; Session.used is in its place
        self.lock = threading.RLock()  # type: ignore[assignment]
        self.queue = blocks._queue
        self.queue.ANALYTICS_MAX_EVENTS = ANALYTICS_REQUESTS
        self._single: set[str] = set()  # sessions of one request alone, which named none
        self._ended: dict[str, float] = {}  # when a session's last request was seen to have ended
        self.sweep_at, self.swept = clock() + SWEEP_SECONDS, 0

    def set_blocks(self, blocks: gr.Blocks) -> None:
        """Use these sessions for a page."""
        self.blocks = blocks
        blocks.state_holder = self

    def __getitem__(self, session_id: str) -> SessionState:
        """Return a session, which is made if there is none with this id."""
        with self.lock:
            session = self.session_data.get(session_id)
            if session is None:
                session = self.session_data[session_id] = Session(self.blocks)
                if session_id in self.queue.event_ids_to_events:
                    self._single.add(session_id)
            session.used = self.clock()  # type: ignore[attr-defined]
            self.session_data.move_to_end(session_id)
            while self.capacity and len(self.session_data) > self.capacity:
                self._drop(self._least_needed())
            return session

    def _least_needed(self) -> str:
        """Return the id of the session used least recently, of the closed ones if there are any."""
        ids = iter(self.session_data)
        first = next(ids)
        return next((i for i, s in self.session_data.items() if s.is_closed), first)

    def _drop(self, session_id: str) -> None:
        self.delete_state(session_id)
        self.session_data.pop(session_id, None)
        self._single.discard(session_id)

    def delete_all_expired_state(self) -> None:
        """Drop sessions that cannot be used again, and each minute those that are too old or large.

        Also drops what Gradio's queue keeps of requests that ended long ago.
        """
        with self.lock:
            for session_id in self._single - self.queue.event_ids_to_events.keys():
                self._drop(session_id)
            now = self.clock()
            if now >= self.sweep_at:
                self.sweep_at = now + SWEEP_SECONDS
                self._drop_old(now)
                self._drop_large()
                self._forget_requests(now)
                self.swept += 1

    def _drop_old(self, now: float) -> None:
        for session_id, session in list(self.session_data.items()):
            unused = now - session.used  # type: ignore[attr-defined]
            if unused > (CLOSED_SECONDS if session.is_closed else UNUSED_SECONDS):
                self._drop(session_id)

    def _drop_large(self) -> None:
        sizes = {i: s.nbytes for i, s in self.session_data.items()}  # type: ignore[attr-defined]
        total = sum(sizes.values())
        for session_id, size in sizes.items():
            if total <= self.max_bytes:
                return
            self._drop(session_id)
            total -= size

    def _forget_requests(self, now: float) -> None:
        """Drop messages of the queue that nobody has fetched, and what else outlives a request."""
        queue = self.queue
        running = {event.session_hash for event in queue.event_ids_to_events.values()}
        known = queue.pending_messages_per_session.keys() | queue.pending_event_ids_session.keys()
        for session_id in self._ended.keys() - (known - running):
            del self._ended[session_id]
        for session_id in known - running:
            session = self.session_data.get(session_id)
            ended = max(self._ended.setdefault(session_id, now), getattr(session, "used", 0.0))
            if now - ended > UNREAD_SECONDS:
                queue.pending_messages_per_session.pop(session_id, None)
                queue.pending_event_ids_session.pop(session_id, None)
                del self._ended[session_id]
        self.app.iterators_to_reset &= queue.event_ids_to_events.keys()


def measure(value: Any) -> int:
    """Return the size of a value in bytes, with all that lists, dicts and dataclasses in it hold.

    What occurs twice counts once. At most MAX_MEASURED objects are looked at.
    """
    seen: set[int] = set()
    total, left = 0, [value]
    while left and len(seen) < MAX_MEASURED:
        item = left.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        buffer = getattr(item, "nbytes", 0)  # of a tensor or an array
        total += sys.getsizeof(item, 0) + (buffer if isinstance(buffer, int) else 0)
        if isinstance(item, dict):
            left += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            left += item
        elif is_dataclass(item) and not isinstance(item, type):
            left += [getattr(item, field.name) for field in fields(item)]
    return total
