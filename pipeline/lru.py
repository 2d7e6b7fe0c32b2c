"""LruCache: a cache of bounded size that evicts the least recently used entries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """A cache of bounded size, safe to use from several threads.

    limit    upper limit of the sum of size_of(value) over all entries. The entry that was put last
             is kept even if it alone exceeds the limit
    size_of  returns the size of a value, always the same for one value; by default every value
             counts 1, so that `limit` is a number of entries
    """

    def __init__(self, limit: int, size_of: Callable[[V], int] = lambda value: 1):
        self.limit, self._size_of = limit, size_of
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()
        self._size = 0

    @property
    def size(self) -> int:
        """The current size of the cache, which `limit` bounds.

        It is the sum of size_of(value) of all cached values; by default their number.
        """
        with self._lock:
            return self._size

    def get(self, key: K) -> V | None:
        """Return the value of `key` and mark it as the most recently used; None if not cached."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, key: K, value: V) -> None:
        """Store the value as the most recently used; evict others until the limit is kept."""
        with self._lock:
            if key in self._entries:
                self._size -= self._size_of(self._entries.pop(key))
            self._entries[key] = value
            self._size += self._size_of(value)
            while self._size > self.limit and len(self._entries) > 1:
                self._size -= self._size_of(self._entries.popitem(last=False)[1])
