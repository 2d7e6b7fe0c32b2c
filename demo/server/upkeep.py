"""Upkeep: hold what a running server keeps within its bounds, and delete it when it ends."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr
    from gradio.routes import App

    from ..limits import Limits
    from .runner import Runner
    from .sessions import Sessions

SWEEP_SECONDS = 30
IDLE_SECONDS = 15  # a request may take so long to end when the server is stopped
SIGNALS = ("SIGTERM", "SIGHUP")
MB = 1 << 20
log = logging.getLogger("glassbox")


class Upkeep:
    """Drops what the server of one page has kept for too long, as long as it serves.

    blocks: the page. runner: runs its requests. limits: what visitors may use.
    sessions: the visitors' sessions, once it serves
    """

    sessions: Sessions

    def __init__(self, blocks: gr.Blocks, runner: Runner, limits: Limits):
        self.blocks, self.runner, self.limits = blocks, runner, limits

    @asynccontextmanager
    async def lifespan(self, app: App) -> AsyncIterator[None]:
        """Serve the page with bounded sessions, and sweep meanwhile: a lifespan of FastAPI."""
        from .sessions import Sessions

        self.sessions = app.state_holder = Sessions(self.blocks, app, self.limits.max_sessions)
        task = asyncio.create_task(self._sweep_on())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await asyncio.to_thread(self.sweep)
            except Exception:  # the next sweep may succeed
                log.exception("The server could not clean up")

    def sweep(self) -> None:
        """Delete old files, drop old entries of all caches, and give free memory back.

        The sessions are swept by Gradio's own task.
        """
        from pipeline import lru

        from . import temp_folder

        kept = {p for b in list(self.blocks.blocks.values()) for p in b.keep_in_cache}
        folder = temp_folder.current()
        folder.sweep(self.limits.temp_disk_mb * MB, kept)
        for paths in list(self.blocks.temp_file_sets):  # Gradio's notes of what it has written
            paths.intersection_update([p for p in list(paths) if folder.has(p)])
        self.runner.visitors.sweep()
        lru.drop_unused()
        free_memory()

    def end(self) -> None:
        """Stop serving, wait until the request that runs has ended, and delete temporary files."""
        from . import temp_folder

        self.blocks.close(verbose=False)
        self.runner.wait_until_idle(IDLE_SECONDS)
        temp_folder.current().delete()


def free_memory() -> None:
    """Give memory that Python has freed back to the system, where the C library keeps it."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the `with` block by SystemExit(0), so that it can clean up.

    A second signal changes nothing. Handlers that were set before, such as nohup's, stay.
    """

    def end(*_: Any) -> None:
        for number in replaced:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(0)

    replaced = []
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        replaced = [n for n in numbers if signal.getsignal(n) is signal.SIG_DFL]
    for number in replaced:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)
