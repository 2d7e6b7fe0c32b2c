"""Visitors, told apart by ids that cannot be guessed, and the folders of what they train.

A browser gets an id in a cookie, which scripts cannot read, when it opens the page. A client of the
web API has none; its Gradio session counts as one visitor. The trainings of a visitor lie in a
folder that is called after a hash of the id:

    runs/visitors/browser-HASH/lora/NAME.safetensors     what <lora:NAME:1> loads
    runs/visitors/browser-HASH/runs/NAME/                checkpoints, previews, log
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError

from ..limits import Limits

if TYPE_CHECKING:
    import gradio as gr

COOKIE = "glassbox_visitor"
COOKIE_SECONDS = 180 * 24 * 3600
TOKEN = re.compile(r"[\w-]{43}", re.ASCII)  # of secrets.token_urlsafe(32)
ROOT = Path("runs/visitors")
SHARED_RUNS = Path("runs/lora")  # of a server whose visitors share their trainings
BROWSER, SESSION = "browser", "session"  # how a visitor is told apart; see `identify`
# Hours until the trainings of a session are deleted where no limit is set: it cannot come back.
SESSION_HOURS = 24
MB = 1_000_000


def identify(request: gr.Request | None) -> str:
    """Return the id of the visitor who sent a request: "browser TOKEN" or "session HASH".

    It is the token in the browser's cookie, else Gradio's session. Where there is neither, and for
    MCP clients, which all share one session of Gradio, it is a new id, which no other request has.
    """
    raw = getattr(request, "request", None)
    token = raw.cookies.get(COOKIE, "") if raw else ""
    if TOKEN.fullmatch(token):
        return f"{BROWSER} {token}"
    session = request.session_hash if request else None
    if not raw or not session or raw.headers.get("x-gradio-user") == "mcp":
        session = secrets.token_urlsafe(32)
    return f"{SESSION} {session}"


class VisitorCookie:
    """ASGI middleware that gives each browser its visitor's id, in a cookie, with the page.

    app: the application. in_space: whether the page is shown inside a page of huggingface.co, where
    a cookie must be allowed to belong to another site.
    """

    def __init__(self, app: Any, in_space: bool | None = None):
        self.app = app
        self.in_space = bool(os.environ.get("SPACE_ID")) if in_space is None else in_space

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; add the cookie to the page's response where the browser has none."""
        headers = dict(scope.get("headers") or ())
        opens_page = scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET"
        if not opens_page or TOKEN.fullmatch(_token(headers.get(b"cookie", b""))):
            await self.app(scope, receive, send)
            return
        secure = b"https" in (scope["scheme"].encode(), headers.get(b"x-forwarded-proto", b""))
        cookie = self._cookie(secure)

        async def send_with_cookie(message: Any) -> None:
            if message["type"] == "http.response.start":
                there = list(message.get("headers", ()))
                message = message | {"headers": [*there, (b"set-cookie", cookie.encode())]}
            await send(message)

        await self.app(scope, receive, send_with_cookie)

    def _cookie(self, secure: bool) -> str:
        """Return the value of a Set-Cookie header with a new id. secure: sent by HTTPS only."""
        site = "SameSite=Lax"
        if self.in_space:
            site, secure = "SameSite=None; Partitioned", True
        return (
            f"{COOKIE}={secrets.token_urlsafe(32)}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly;"
            f" {site}{'; Secure' if secure else ''}"
        )


def _token(header: bytes) -> str:
    """Return the visitor's token in the Cookie header of a request, "" if there is none."""
    try:
        found = SimpleCookie(header.decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


class DiskQuotaExceeded(InputError):
    """A training would take more of the disk than is left. left: bytes that are left for it."""

    def __init__(self, left: int):
        super().__init__(f"{left / MB:.0f} MB are left on this server for your trainings.")
        self.left = left


@dataclass(frozen=True)
class TrainingFolders:
    """Where a visitor's trainings lie.

    home: the folder that holds them all. run: of one training: checkpoints, previews and log. out:
    of the LoRA's file. None: the places that the command line uses, as all visitors share them.
    """

    home: Path | None = None
    run: Path | None = None
    out: Path | None = None

    def hide(self, sentence: str) -> str:
        """Return a sentence with the visitor's folder taken out of the paths in it."""
        return sentence.replace(f"{self.home}{os.sep}", "") if self.home else sentence


class Visitors:
    """The folders of the visitors' trainings, with the limits of their size and age.

    limits: what visitors may use of the server. root: holds the visitors' folders.
    """

    def __init__(self, limits: Limits = Limits(), root: Path = ROOT):  # noqa: B008 - frozen
        self.limits, self.root = limits, root
        self._lock = threading.Lock()
        # (folder of a visitor, name of a training that runs): bytes that it may still write
        self._running: dict[tuple[Path, str], int] = {}

    def home(self, visitor: str) -> Path:
        """Return the folder of a visitor's trainings, which may not exist. visitor: the id."""
        kind = BROWSER if visitor.startswith(f"{BROWSER} ") else SESSION
        return self.root / f"{kind}-{hashlib.sha256(visitor.encode()).hexdigest()[:32]}"

    def lora_folder(self, visitor: str) -> Path | None:
        """Return the folder of the LoRAs that a visitor has trained, None if there are none.

        Looking there counts as a use: what is not used for some time is deleted. visitor: the id.
        """
        home = self.home(visitor)
        if self.limits.shared_training or not (home / "lora").is_dir():
            return None
        _touch(home)
        return home / "lora"

    def folders(self, visitor: str, name: str) -> TrainingFolders:
        """Return where a visitor's training called `name` lies. visitor: the id."""
        if self.limits.shared_training:
            return TrainingFolders()
        home = self.home(visitor)
        return TrainingFolders(home, home / "runs" / name, home / "lora")

    @contextmanager
    def training(self, visitor: str, name: str, most: int) -> Iterator[None]:
        """Hold room on the disk for a training of a visitor while the `with` block runs it.

        visitor: the id. name: of the training. most: bytes that it may take, with what it has
        written before it was stopped. Raises DiskQuotaExceeded where less is left for this visitor
        or in all, and InputError if the visitor trains under this name already.
        """
        key = self._place(visitor), name
        _touch(key[0])
        self.sweep()
        with self._lock:
            if key in self._running:
                raise InputError(f"{name} is being trained already: wait, or stop it first.")
            folder = self.folders(visitor, name).run or SHARED_RUNS / name
            needed = max(most - _size(folder), 0)
            left = self._left(key[0])
            if left is not None and needed > left:
                raise DiskQuotaExceeded(max(left, 0) + _size(folder))
            self._running[key] = needed
        try:
            yield
        finally:
            with self._lock:
                del self._running[key]
            _touch(key[0])

    def _place(self, visitor: str) -> Path:
        """Return the folder that a visitor's trainings lie in: their own, or the shared one."""
        return SHARED_RUNS if self.limits.shared_training else self.home(visitor)

    def _left(self, place: Path) -> int | None:
        """Return how many bytes more trainings in the folder `place` may take; None: no limit."""
        shared = self.limits.shared_training
        rows = [(self.limits.training_disk_mb, SHARED_RUNS if shared else self.root)]
        if not shared:
            rows.append((self.limits.training_disk_visitor_mb, place))
        left = []
        for limit, folder in rows:
            running = sum(
                held for (home, _), held in self._running.items() if home.is_relative_to(folder)
            )
            if limit:
                left.append(limit * MB - _size(folder) - running)
        return min(left, default=None)

    def sweep(self, now: float | None = None) -> list[Path]:
        """Delete the trainings of the visitors that were not used for too long; return the folders.

        now: the time in seconds since 1970; None: the present. Trainings that run stay.
        """
        now = time.time() if now is None else now
        deleted = []
        for home in _subfolders(self.root):
            hours = self.limits.training_hours
            if home.name.startswith(SESSION):
                hours = hours or SESSION_HOURS
            if hours and _is_unused(home, now - hours * 3600):
                with self._lock:
                    if any(home == place for place, _ in self._running):
                        continue
                    shutil.rmtree(home, ignore_errors=True)
                deleted.append(home)
        return deleted


def _touch(home: Path) -> None:
    """Note that a visitor's folder is used now; nothing happens if it does not exist."""
    try:
        os.utime(home)
    except OSError:
        return


def _subfolders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _files(folder: Path) -> Iterator[os.stat_result]:
    """Yield the state of each file in a folder and its subfolders; files that vanish are left out.

    Links are not followed.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(parent, name))
            except OSError:
                continue


def _size(folder: Path) -> int:
    """Return the size in bytes of all files in a folder and its subfolders; 0 if there is none."""
    return sum(state.st_size for state in _files(folder))


def _is_unused(home: Path, since: float) -> bool:
    """Return whether a visitor's folder was not used `since` a time, in seconds since 1970."""
    try:
        if home.stat().st_mtime >= since:
            return False
    except OSError:
        return False
    return all(state.st_mtime < since for state in _files(home))
