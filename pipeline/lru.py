"""A cache that evicts the least recently used entries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """A mapping with a bound, safe to use from several threads.

    limit: of the sum of size_of(value) over all entries; by default each counts 1.
    The entry that was put last stays even where it alone exceeds the limit.
    """

    def __init__(self, limit: int, size_of: Callable[[V], int] = lambda value: 1):
        self.limit, self._size_of = limit, size_of
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()
        self._size = 0

    @property
    def size(self) -> int:
        """The sum of size_of(value) over all entries."""
        with self._lock:
            return self._size

    def get(self, key: K) -> V | None:
        """Return the value and mark it as used now; None where there is none."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, key: K, value: V) -> None:
        """Set the value and evict the least recently used entries beyond the limit."""
        with self._lock:
            if key in self._entries:
                self._size -= self._size_of(self._entries.pop(key))
            self._entries[key] = value
            self._size += self._size_of(value)
            while self._size > self.limit and len(self._entries) > 1:
                self._size -= self._size_of(self._entries.popitem(last=False)[1])
