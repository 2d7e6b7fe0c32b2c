"""The cache that evicts the least recently used entries."""

import threading

from pipeline.lru import LruCache


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
