"""LruCache: a cache of bounded size that evicts the least recently used entries."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_with_age: WeakSet[LruCache[Any, Any]] = WeakSet()  # all caches that have a max_age


class LruCache(Generic[K, V]):
    """A cache of bounded size, safe to use from several threads.

    limit    upper limit of the sum of size_of(value) over all entries. The entry that was put last
             is kept even if it alone exceeds the limit
    size_of  returns the size of a value, always the same for one value; by default every value
             counts 1, so that `limit` is a number of entries
    max_age  seconds after its last use in which `drop_unused` drops an entry; None for never
    clock    returns the time in seconds
    """

    def __init__(
        self,
        limit: int,
        size_of: Callable[[V], int] = lambda value: 1,
        max_age: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.limit, self.max_age, self._size_of, self._clock = limit, max_age, size_of, clock
        self._used: dict[K, float] = {}  # the time of each entry's last use
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()
        self._size = 0
        if max_age is not None:
            _with_age.add(self)

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
            self._used[key] = self._clock()
            return self._entries[key]

    def put(self, key: K, value: V) -> None:
        """Store the value as the most recently used; evict others until the limit is kept."""
        with self._lock:
            if key in self._entries:
                self._size -= self._size_of(self._entries.pop(key))
            self._entries[key] = value
            self._used[key] = self._clock()
            self._size += self._size_of(value)
            while self._size > self.limit and len(self._entries) > 1:
                self._drop_oldest()

    def drop_unused(self) -> None:
        """Drop the entries that were not used for `max_age` seconds."""
        if self.max_age is None:
            return
        with self._lock:
            last = self._clock() - self.max_age
            while self._entries and self._used[next(iter(self._entries))] < last:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        key, value = self._entries.popitem(last=False)
        del self._used[key]
        self._size -= self._size_of(value)


def drop_unused() -> None:
    """Drop the entries of all caches of this process that were not used for their `max_age`."""
    for cache in list(_with_age):
        cache.drop_unused()
