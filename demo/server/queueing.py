"""The queue of the server: who may wait in it, in which order, and until when.

Gradio keeps a line for each concurrency_id: "gpu" for all that draws, "train" for trainings, and
one for each other queued listener. Here each line has a bound, each visitor a share of it, the
lines serve visitors in turn, and a request whose answer nobody reads is not run.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from fastapi import HTTPException, Request
from gradio import queueing, route_utils
from gradio.data_classes import PredictBodyInternal

from ..events import Refused
from ..limits import Limits
from ..texts import request_language
from .clients import client_address
from .runs import Refusals

LISTEN_SECONDS = 60  # how long a request waits for a client that reads its answer
SILENT_SECONDS = 5  # how long a running one goes on without: a client may connect anew
RETRY_SECONDS = 10  # after which a refused client may try again, in the header Retry-After
# Addresses at which a client reads answers: those of a session, or of one request.
READS_ANSWERS = re.compile(r"/(?:queue/data|call/(?:v2/)?[^/]+/(?P<event>[^/]+))/?$")


class Listeners:
    """Which sessions and requests have a client connected that reads their answers."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self.on_leave: Callable[[str], None] | None = None  # called when the last one has left

    def __contains__(self, name: str) -> bool:
        return name in self._open

    def connect(self, name: str) -> None:
        """Count a client that reads the answers of a session or request."""
        self._open[name] += 1

    def disconnect(self, name: str) -> None:
        """Count one client less."""
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]
            if self.on_leave:
                self.on_leave(name)


class WatchListeners:
    """ASGI middleware that keeps a Listeners up to date. app: the ASGI app around which it lies."""

    def __init__(self, app: Any, listeners: Listeners):
        self.app, self.listeners = app, listeners

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a connection; it is counted as long as it is open if it reads answers."""
        name = self._name(scope)
        if name is None:
            await self.app(scope, receive, send)
            return
        self.listeners.connect(name)
        try:
            await self.app(scope, receive, send)
        finally:
            self.listeners.disconnect(name)

    def _name(self, scope: Any) -> str | None:
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        found = READS_ANSWERS.search(scope["path"])
        if found is None:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return found["event"] or (query.get("session_hash") or [""])[0]


class VisitorQueue(queueing.Queue):
    """Gradio's queue with a bound for each line and a share of it for each visitor.

    blocks: the page, whose settings of the queue are taken over
    limits: max_waiting and max_waiting_address are the shares, of a session and of an address;
        proxies are trusted to name addresses
    size: requests that may wait in each line
    refusals: is told why a request of the page was refused, so that the page can say it
    listeners: who reads answers, set by `watch`; None: all answers are taken as read
    """

    listeners: Listeners | None

    def __init__(
        self,
        blocks: gr.Blocks,
        limits: Limits,
        size: int,
        refusals: Refusals,
    ):
        given = blocks._queue
        super().__init__(
            live_updates=given.live_updates,
            concurrency_count=given.max_thread_count,
            update_intervals=given.update_intervals,
            max_size=None,  # the bound is here one of each line
            blocks=blocks,
            default_concurrency_limit=given.default_concurrency_limit,
        )
        self.limits, self.size, self.refusals, self.listeners = limits, size, refusals, None
        self._proxies = tuple(ipaddress.ip_network(proxy) for proxy in limits.proxies)
        self._silent: dict[str, float] = {}  # since when a running request has no reader, by id
        self._pushing = asyncio.Lock()  # between the look at a line and the request's place in it

    def watch(self, listeners: Listeners) -> None:
        """Run only requests whose answers somebody reads. listeners: who does, see there."""
        self.listeners, listeners.on_leave = listeners, self._forget_session

    # ---- who may wait -------------------------------------------------------------------------

    async def push(
        self, body: PredictBodyInternal, request: Request, username: str | None
    ) -> tuple[bool, Any, Any]:
        """Put a request into its line, or refuse it; returns what Gradio's own `push` does.

        A refused request leaves no state behind. The page, and clients that use HTTP alone, get
        the status 429 with the sentence and the header Retry-After; Gradio's clients, which show
        the reason only for 503 and 422, get these.
        """
        if body.fn_index is None:
            return await super().push(body=body, request=request, username=username)
        fn = route_utils.get_fn(self.blocks, None, body)
        async with self._pushing:
            refused = self._refuse(fn.concurrency_id, body.session_hash, self.address(request))
            if refused is None:
                done = await super().push(body=body, request=request, username=username)
                self._order(fn.concurrency_id)
                return done
        of_page = fn.api_visibility == "private"
        if of_page and body.session_hash:
            self.refusals.put(body.session_hash, fn._id, refused)
        sentence = refused.sentence(request_language(request) if of_page else "en")  # type: ignore[arg-type]
        if of_page or body.simple_format:
            raise HTTPException(
                HTTPStatus.TOO_MANY_REQUESTS, sentence, {"Retry-After": str(RETRY_SECONDS)}
            )
        if refused.key == "queue_full":
            return False, sentence, "queue_full"
        wrong = {"__type__": "validate", "is_valid": False, "message": sentence}
        return False, [wrong | {"parameter_name": "queue"}], "validator_error"

    def address(self, request: Request) -> str:
        """Return the network address of the visitor who sent a request."""
        peer = request.client.host if request.client else None
        return client_address(peer, request.headers, self._proxies)

    def _refuse(self, line: str, session: str | None, address: str) -> Refused | None:
        """Return why a request may not wait in a line (a concurrency_id); None if it may.

        session, address: of the visitor, whose requests in the line are counted, also the running.
        """
        waiting = self._waiting(line)
        everything = [*waiting, *self._running(line)]
        limit = self.limits.max_waiting
        if limit and sum(event.session_hash == session for event in everything) >= limit:
            return Refused("queue_visit", count=limit)
        limit = self.limits.max_waiting_address
        if limit and sum(self.address(event.request) == address for event in everything) >= limit:
            return Refused("queue_address", count=limit)
        if len(waiting) >= self.size:
            return Refused("queue_full", count=len(waiting))
        return None

    def _waiting(self, line: str) -> list[queueing.Event]:
        found = self.event_queue_per_concurrency_id.get(line)
        return found.queue if found else []

    def _running(self, line: str) -> Iterable[queueing.Event]:
        return (e for job in self.active_jobs for e in job or () if e.concurrency_id == line)

    # ---- in which order -----------------------------------------------------------------------

    def _order(self, line: str) -> None:
        """Put the last request of a line before those of visitors who have more before theirs.

        So a visitor's first request waits for at most one request of each other visitor, however
        many those have sent. Visitors are told apart by their address.
        """
        waiting = self._waiting(line)
        if len(waiting) < 2:
            return
        counts = Counter(self.address(event.request) for event in self._running(line))
        rounds = []
        for event in waiting:
            address = self.address(event.request)
            rounds.append(counts[address])
            counts[address] += 1
        own, last = rounds.pop(), waiting[-1]
        place = next((i for i, number in enumerate(rounds) if number > own), len(rounds))
        if place < len(rounds):
            waiting.insert(place, waiting.pop())
            assert waiting[place] is last
            self.broadcast_estimations(line)

    def get_events(self) -> tuple[list[queueing.Event], bool, str] | None:
        """Take the next request out of a line that is free; None if there is none.

        It is the first one whose answer somebody reads. Those that nobody has read for
        LISTEN_SECONDS are dropped.
        """
        self._drop_unread()
        lines = list(self.event_queue_per_concurrency_id.items())
        random.shuffle(lines)
        for name, line in lines:
            limit = line.concurrency_limit
            if limit is not None and line.current_concurrency >= limit:
                continue
            event = next(filter(self._is_read, line.queue), None)
            if event is not None:
                line.queue.remove(event)
                return [event], False, name
        return None

    # ---- until when ---------------------------------------------------------------------------

    def _is_read(self, event: queueing.Event) -> bool:
        """Return whether a client is connected that reads the answer of a request."""
        heard = self.listeners
        return heard is None or event.session_hash in heard or event._id in heard

    def _drop_unread(self) -> None:
        latest = time.monotonic() - LISTEN_SECONDS
        for line in self.event_queue_per_concurrency_id.values():
            for event in [e for e in line.queue if e.enqueue_time < latest]:
                if not self._is_read(event):
                    line.queue.remove(event)
                    self.event_ids_to_events.pop(event._id, None)
                    self._forget_session(event.session_hash)

    def send_message(self, event: queueing.Event, event_message: Any) -> None:
        """Send a message to the client of a request; end the request if nobody reads it.

        Gradio itself ends a request when it notices that its client has left; this is for those
        that it does not notice.
        """
        if self._is_read(event):
            self._silent.pop(event._id, None)
        elif event not in self._waiting(event.concurrency_id):
            since = self._silent.setdefault(event._id, time.monotonic())
            if time.monotonic() - since > SILENT_SECONDS:
                event.alive = False
        super().send_message(event, event_message)

    async def process_events(self, events: list[queueing.Event], *args: Any) -> None:
        """Run requests as Gradio does, then forget those whose answer nobody reads."""
        try:
            await super().process_events(events, *args)
        finally:
            for event in events:
                self._silent.pop(event._id, None)
                self._forget_session(event.session_hash)

    def _forget_session(self, session: str) -> None:
        """Drop what Gradio keeps to answer a session of which nothing waits, runs or is read.

        session: its hash; a request without one has its own id for it.
        """
        if self.listeners is None or session in self.listeners:
            return
        for line in self.event_queue_per_concurrency_id:
            for event in (*self._waiting(line), *self._running(line)):
                if event.session_hash == session:
                    return
        self.pending_event_ids_session.pop(session, None)
        self.pending_messages_per_session.pop(session, None)
