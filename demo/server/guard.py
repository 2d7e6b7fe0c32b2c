"""RouteGuard: hold each request to the bounds of its route, and put headers on each answer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from gradio.routes import file_upload_statuses
from python_multipart.exceptions import MultipartParseError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import request_body
from .request_body import Refused
from .routes import API, MB, ROUTES, Route, find_route, size
from .upkeep import SWEEP_SECONDS

if TYPE_CHECKING:
    import gradio as gr

MAX_PATH, MAX_QUERY, MAX_RANGE = 2048, 2048, 128  # characters
MAX_MULTIPART_HEADER = 1024  # characters of a Content-Type
WRITE_SECONDS = 60  # a client that takes no byte for so long is cut off
UPLOAD_WINDOW = 2 * SWEEP_SECONDS
DRAINED, DRAIN_SECONDS = 2 * MB, 5  # of a refused body, so much is read and forgotten
FORGET_SECONDS = 60  # after an upload, what is known of its progress is forgotten
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "0.0.0.0", "[::]")
EMBEDDERS = "https://huggingface.co https://*.huggingface.co https://*.hf.space"
GRADIO_FILES = "https://gradio.s3-us-west-2.amazonaws.com"  # a public link loads the page from here
FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; sandbox"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "permissions-policy": "microphone=(), geolocation=(), payment=(), usb=()",
}
_HOST = re.compile(r"([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?")
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?[/\\]{2}", re.IGNORECASE)
log = logging.getLogger("glassbox")


def page_policy(share: bool) -> str:
    """Return the Content-Security-Policy of the page and its files.

    Gradio writes the page's configuration into the page and makes functions of the listeners' js,
    so scripts may be inline and evaluated; but nothing comes from or goes to another host, and only
    a Space's page may show this one in a frame. share: whether the server has a public link, whose
    page loads Gradio's files from Gradio's host.
    """
    own = f"'self' {GRADIO_FILES}" if share else "'self'"
    rules = {
        "default-src": own,
        "script-src": f"{own} 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src": f"{own} 'unsafe-inline'",
        "img-src": f"{own} data: blob:",
        "font-src": f"{own} data:",
        "media-src": f"{own} data: blob:",
        "connect-src": f"{own} data: blob:",
        "worker-src": f"{own} blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": f"'self' {EMBEDDERS}",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


class UploadBudget:
    """Counts the bytes that were uploaded lately.

    Uploads beyond `--temp-disk-mb` are deleted by the next sweep; what comes before it is bounded
    here.

    limit: bytes in UPLOAD_WINDOW seconds; 0 for no limit
    """

    def __init__(self, limit: int):
        self.limit, self.used = limit, 0
        self._taken: deque[tuple[float, int]] = deque()

    def take(self, number: int) -> bool:
        """Count `number` bytes; return False, and count nothing, if they would be too many."""
        now = time.monotonic()
        while self._taken and self._taken[0][0] < now - UPLOAD_WINDOW:
            self.used -= self._taken.popleft()[1]
        if self.limit and self.used + number > self.limit:
            return False
        if self._taken and now - self._taken[-1][0] < 1:  # one entry a second is enough
            began, before = self._taken[-1]
            self._taken[-1] = began, before + number
        else:
            self._taken.append((now, number))
        self.used += number
        return True


class RouteGuard:
    """ASGI middleware that answers the routes of ROUTES alone and holds their bounds.

    A request that it refuses gets {"error": sentence, "detail": sentence}. What Gradio raises while
    it answers becomes a sentence too, so that no client sees a closed connection and the log no
    traceback of a request that cannot be read.

    blocks: the page
    hosts: names under which the server answers, besides those of this machine; None for any
    upload_mb: MB that all visitors may upload between two sweeps; 0 for no limit
    """

    def __init__(
        self,
        app: ASGIApp,
        blocks: gr.Blocks,
        hosts: Iterable[str] | None = None,
        upload_mb: int = 0,
    ):
        self.app, self.blocks = app, blocks
        self.hosts = None if hosts is None else {h.lower() for h in (*LOOPBACK, *hosts)}
        self.uploads = UploadBudget(upload_mb * MB)
        self.served: Counter[str] = Counter()  # requests of each route that are served now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send, page_policy(bool(self.blocks.share)))
        try:
            key, parts = self._route(scope, answer)
        except Refused as refused:
            await _drain(scope, receive)
            await answer.refuse(refused)
            return
        route = ROUTES[key]
        body = _Body(route, receive, self.uploads if key == f"{API}/upload" else None)
        self.served[key] += 1
        try:
            if self.served[key] > route.at_once:
                raise Refused("The server is busy: try again in a few seconds.", 503)
            body.check_length(scope)
            if route.check:
                await body.read_whole()
                value = request_body.parse(body.whole)
                request_body.CHECKS[route.check](self.blocks, value, parts)
            answer.body = body
            await self.app(scope, body.receive, answer.send)
            if body.refused:
                raise body.refused
        except Exception as error:
            if not answer.begun and not body.complete:
                await _drain(scope, receive)
            await self._explain(error, key, answer)
        finally:
            self.served[key] -= 1
            _forget_progress(key, scope)

    def _route(self, scope: Scope, answer: _Answer) -> tuple[str, dict[str, str]]:
        """Return the route's key in ROUTES and the parts of its path; raise Refused."""
        headers = _headers(scope)
        for name in ("host", "x-forwarded-host"):
            self._check_host(headers, name)
        path = scope["path"].removeprefix(scope.get("root_path") or "")
        query = scope["query_string"].decode("latin-1")
        if len(path) > MAX_PATH or len(query) > MAX_QUERY:
            raise Refused(f"The address has more than {MAX_PATH} characters.", 414)
        if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in path):
            raise Refused("The address has a control character.")
        if len(headers.get("range", "")) > MAX_RANGE:
            raise Refused(f"`Range` has more than {MAX_RANGE} characters.")
        found = find_route(path)
        if found is None:
            raise Refused("There is no such page.", 404)
        key, parts = found
        is_file = key.startswith(f"{API}/file=")
        if is_file:
            answer.policy = FILE_POLICY
        if scope["method"] not in ROUTES[key].methods:
            raise Refused(f"This address takes {' or '.join(ROUTES[key].methods)}.", 405)
        given = parse_qs(query, keep_blank_values=True, max_num_fields=None)
        for name in ROUTES[key].query:
            request_body.check_id(name, given.get(name, [None])[-1])
        for name in ("session_hash", "event_id"):
            if name in parts:
                request_body.check_id(name, parts[name])
        if "upload_id" in given:
            request_body.check_id("upload_id", given["upload_id"][-1])
        if is_file and _URL.match(parts["path_or_url"]):
            raise Refused("The server gives files of its own alone.", 403)
        if key == f"{API}/upload":
            _check_multipart(headers)
        if ROUTES[key].check and "json" not in headers.get("content-type", "").lower():
            raise Refused("The request's Content-Type must be application/json.", 415)
        return key, parts

    def _check_host(self, headers: dict[str, str], name: str) -> None:
        """Raise Refused if the header `name` holds a host under which the server does not answer.

        A page of another host that a browser was led to by a false address of that name (DNS
        rebinding) could else read a server that only its own machine may reach.
        """
        host = headers.get(name)
        if host is None and name != "host":
            return
        first = (host or "").split(",")[0].strip().lower()
        found = _HOST.fullmatch(first)
        if not found:
            raise Refused("The request names no valid host.")
        known = self.hosts is None or found[1] in self.hosts or found[1].endswith(".localhost")
        if not known:
            raise Refused(
                f"This server does not answer as {found[1]}; if it should, start it with"
                f" --allowed-host {found[1]}.",
                421,
            )

    async def _explain(self, error: Exception, key: str, answer: _Answer) -> None:
        """Answer with a sentence what was raised while a request was served."""
        if isinstance(error, Refused):
            await answer.refuse(error)
        elif isinstance(error, HTTPException) or isinstance(error.__cause__, HTTPException):
            # The answer has begun: an event stream of a session that has ended, which says so.
            await answer.refuse(Refused("There is no such session.", 404))
        elif isinstance(error, MultiPartException | MultipartParseError):
            await answer.refuse(Refused(str(error)))
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            log.warning("%s: the disk is full", key)
            await answer.refuse(Refused("The server's disk is full: try again later.", 507))
        else:
            log.warning("%s could not answer: %r", key, error)
            await answer.refuse(Refused("The request cannot be read."))


class _Body:
    """The body of a request: counts its bytes, and ends a request that sends too many or too slow.

    route: its bounds. receive: ASGI's. uploads: counts its bytes too, None for no upload.
    whole: the body, after `read_whole`
    complete: whether all of it has arrived
    refused: why an upload was refused, else None
    """

    def __init__(self, route: Route, receive: Receive, uploads: UploadBudget | None):
        self._route, self._receive, self._uploads = route, receive, uploads
        self._number, self.complete, self._replayed = 0, False, False
        self._deadline = asyncio.get_running_loop().time() + route.seconds
        self.whole = b""
        self.refused: Refused | None = None

    def check_length(self, scope: Scope) -> None:
        """Raise Refused if the request says that its body is larger than the route's bound."""
        length = _headers(scope).get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > self._route.body:
            raise self._too_large()

    def _too_large(self) -> Refused:
        if not self._route.body:
            return Refused("This address takes no body.", 413)
        return Refused(f"The request is larger than {size(self._route.body)}.", 413)

    async def read_whole(self) -> None:
        """Read the body into `whole`, which `receive` then gives again; raise Refused."""
        chunks = []
        while not self.complete:
            message = await self._next()
            chunks.append(message.get("body", b""))
        self.whole = b"".join(chunks)

    async def receive(self) -> Message:
        """Return ASGI's next message about the request.

        Of an upload, raises MultiPartException where the body is refused, so that Gradio deletes
        what it has written; else Refused.
        """
        if self.complete:
            if self.whole and not self._replayed:
                self._replayed = True
                return {"type": "http.request", "body": self.whole, "more_body": False}
            return await self._receive()
        try:
            return await self._next()
        except Refused as refused:
            if self._uploads is None:
                raise
            self.refused = refused
            raise MultiPartException(refused.sentence) from None

    async def _next(self) -> Message:
        """Return the next part of the body; raise Refused if it is late, too large or cut off."""
        try:
            async with asyncio.timeout_at(self._deadline if self._route.body else None):
                message = await self._receive()
        except TimeoutError:
            late = f"The request did not arrive within {self._route.seconds} seconds."
            raise Refused(late, 408) from None
        if message["type"] == "http.disconnect":
            self.complete = True
            raise Refused("The request was cut off.")
        number = len(message.get("body", b""))
        self._number += number
        self.complete = not message.get("more_body", False)
        if self._number > self._route.body:
            raise self._too_large()
        if self._uploads is not None and not self._uploads.take(number):
            raise Refused("The server takes no more files now: try again in a minute.", 503)
        return message


class _Answer:
    """The answer to a request: puts the headers on it, and ends it where the client reads nothing.

    policy: its Content-Security-Policy
    begun: whether its status has been sent
    body: the request's body; an answer of Gradio's to one that was refused is not sent
    """

    def __init__(self, send: Send, policy: str):
        self._send, self.begun, self._ended, self.policy = send, False, False, policy
        self.body: _Body | None = None

    async def send(self, message: Message) -> None:
        """Send ASGI's message; raise TimeoutError where the client took no byte for a minute."""
        if self.body is not None and self.body.refused and not self.begun:
            return
        await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            more = HEADERS | {"content-security-policy": self.policy}
            kept = [(k, v) for k, v in message.get("headers", ()) if k.decode().lower() not in more]
            added = [(k.encode(), v.encode()) for k, v in more.items()]
            message = {**message, "headers": [*kept, *added]}
        elif message["type"] == "http.response.body":
            self._ended = not message.get("more_body", False)
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._send(message)
        except TimeoutError:
            self._ended = True
            raise

    async def refuse(self, refused: Refused) -> None:
        """Answer with the sentence of `refused`; where an answer has begun, end that one."""
        if self._ended:
            return
        if self.begun:
            await self._pass_on({"type": "http.response.body", "body": b"", "more_body": False})
            return
        sentence = refused.sentence
        body = json.dumps({"error": sentence, "detail": sentence}, ensure_ascii=False).encode(
            errors="replace"
        )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            # What is left of a body that was not read must not be taken for the next request.
            (b"connection", b"close"),
        ]
        if refused.status == 503:
            headers.append((b"retry-after", b"5"))
        await self._pass_on(
            {"type": "http.response.start", "status": refused.status, "headers": headers}
        )
        await self._pass_on({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, str]:
    """Return the request's headers by lower-case name; of one that is there twice, the last."""
    return {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}


async def _drain(scope: Scope, receive: Receive) -> None:
    """Read and forget what is left of a small body, so that its sender gets to read the answer.

    A connection that is closed while bytes arrive is reset, and the answer on it is lost.
    """
    length = _headers(scope).get("content-length", "0")
    if not length.isdecimal() or int(length[:15]) > DRAINED:
        return
    number = 0
    with contextlib.suppress(Refused, MultiPartException, TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while number <= DRAINED:
                message = await receive()
                number += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return


def _check_multipart(headers: dict[str, str]) -> None:
    """Raise Refused if a request is no form with files, or its Content-Type is overlong."""
    kind = headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data") or len(kind) > MAX_MULTIPART_HEADER:
        raise Refused("Files are uploaded as multipart/form-data, in the field `files`.")


def _forget_progress(key: str, scope: Scope) -> None:
    """Forget the progress of an upload: at once when its reader has gone, else after a minute."""
    if not key.startswith(f"{API}/upload"):
        return
    given = parse_qs(scope["query_string"].decode("latin-1")).get("upload_id", [])

    def forget() -> None:
        for upload_id in given:
            file_upload_statuses.stop_tracking(upload_id)
            file_upload_statuses._signals.pop(upload_id, None)

    if given and key == f"{API}/upload":
        asyncio.get_running_loop().call_later(FORGET_SECONDS, forget)
    else:
        forget()


def hosts_of(
    server_name: str | None, allowed: Iterable[str], public: bool
) -> tuple[str, ...] | None:
    """Return the host names under which a server answers, for RouteGuard; None for any.

    server_name: the address it listens on. allowed: names that the owner gave. public: whether
    other machines reach it; such a server answers under any name unless names were given.
    """
    if public and not tuple(allowed):
        return None
    name = (server_name or "").lower()
    own = (f"[{name}]" if ":" in name and not name.startswith("[") else name,)
    return (*(n for n in own if n), *allowed)
