"""The cache that evicts the least recently used entries."""

import threading

from pipeline.lru import LruCache, drop_unused


def test_the_least_recently_used_entry_is_evicted():
    cache = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]


def test_sizes_count_and_the_last_entry_stays_even_where_it_is_too_large():
    cache = LruCache(10, len)
    cache.put("a", "xxxx")
    cache.put("b", "xxxx")
    cache.put("a", "x")  # set again: the old value no longer counts
    assert cache.size == 5 and cache.get("b") == "xxxx"
    cache.put("c", "x" * 99)
    assert cache.size == 99
    assert [cache.get(key) for key in "abc"] == [None, None, "x" * 99]


def test_threads_may_put_and_get_at_once():
    cache = LruCache(5)

    def work():
        for i in range(500):
            cache.put(i % 9, i)
            cache.get((i + 3) % 9)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.size == 5


def test_what_is_not_used_for_its_age_is_dropped_from_every_cache():
    now = [0.0]
    words = LruCache(99, len, max_age=10, clock=lambda: now[0])
    numbers = LruCache(9, max_age=20, clock=lambda: now[0])
    forever = LruCache(9, clock=lambda: now[0])
    for cache, value in ((words, "xyz"), (numbers, 1), (forever, 1)):
        cache.put("a", value)
        cache.put("b", value)
    now[0] = 8.0
    assert words.get("a")
    now[0] = 12.0
    drop_unused()
    assert words.size == 3 and words.get("b") is None and words.get("a") == "xyz"
    assert numbers.size == 2
    now[0] = 1e6
    drop_unused()
    assert words.size == numbers.size == 0 and forever.size == 2
    words.put("a", "x")  # an entry that was dropped can come back
    assert words.get("a") == "x" and words.size == 1
