"""One gate for all decoding of untrusted files: how many at once, and how many bytes in all.

Pictures are also opened outside the queue that lends the device, by any number of visitors at once.
Who decodes one reserves the memory that it takes first, and waits while others hold too much.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError

BUDGET = 1_000_000_000  # bytes of all files that are being decoded
AT_ONCE = 4  # files that are decoded at a time
PATIENCE = 60.0  # seconds that a file waits for its turn


class DecodingGate:
    """Lets files be decoded as long as they are few, and small enough together.

    Those that wait are let in in the order in which they came. A file that alone exceeds the budget
    is let in when no other is being decoded.

    budget    bytes that all files that are being decoded may take together; 0 means no limit
    at_once   how many are decoded at a time
    patience  seconds after which a file that waits is refused
    """

    def __init__(
        self, budget: int = BUDGET, at_once: int = AT_ONCE, patience: float = PATIENCE
    ) -> None:
        self.budget, self.at_once, self.patience = budget, at_once, patience
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._inside = threading.local()
        self.count = self.nbytes = 0  # of the files that are being decoded

    @contextmanager
    def reserve(self, nbytes: int) -> Iterator[None]:
        """Hold `nbytes` of memory inside the `with`; wait for them first.

        A thread that already holds some is not made to wait again. Raises InputError if the memory
        is not free after `patience` seconds.
        """
        if getattr(self._inside, "held", False):
            yield
            return
        self._enter(nbytes)
        self._inside.held = True
        try:
            yield
        finally:
            self._inside.held = False
            with self._changed:
                self.count -= 1
                self.nbytes -= nbytes
                self._changed.notify_all()

    def _enter(self, nbytes: int) -> None:
        ticket, until = object(), time.monotonic() + self.patience
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or not self._fits(nbytes):
                    left = until - time.monotonic()
                    if left <= 0:
                        raise InputError(
                            "Too many pictures and files are being opened at the moment; try again"
                            " in a minute."
                        )
                    self._changed.wait(left)
                self.count += 1
                self.nbytes += nbytes
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _fits(self, nbytes: int) -> bool:
        if not self.count or not self.budget:
            return self.count < self.at_once
        return self.count < self.at_once and self.nbytes + nbytes <= self.budget


GATE = DecodingGate()  # of this process
