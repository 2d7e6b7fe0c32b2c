"""Upkeep: what is swept while the page serves, and how a signal ends the server."""

import os
import signal
import threading
import time

import httpx
import pytest
from gradio_client import Client

import demo
from demo.server import temp_folder
from demo.server.sessions import Sessions
from demo.server.upkeep import exit_on_signals
from pipeline.lru import LruCache
from pipeline.model_cache import ModelCache


@pytest.fixture(scope="module")
def page(fake_models):
    built = demo.build(ModelCache(fake_models()))
    demo.serve(built)
    yield built
    built.close(verbose=False)


def test_the_page_is_served_with_bounded_sessions(page):
    assert isinstance(page.app.state_holder, Sessions)
    assert page.state_holder is page.upkeep.sessions is page.app.state_holder
    assert page.app.state_holder.capacity == page.upkeep.limits.max_sessions


def test_calls_without_a_session_leave_nothing(page):
    url = f"{page.local_url}gradio_api/call/generate"
    for _ in range(3):
        event = httpx.post(url, json={"data": ["a", "", None, None, 2]}, timeout=60).json()
        answer = httpx.get(f"{url}/{event['event_id']}", timeout=60).text
        assert "event: complete" in answer
    for _ in range(600):
        if not page.state_holder.session_data:
            break
        time.sleep(0.1)
    assert not page.state_holder.session_data
    assert not page._queue.event_ids_to_events


def test_files_that_were_given_out_are_swept(page):
    client = Client(page.local_url, verbose=False, httpx_kwargs={"timeout": 60})
    pictures, _ = client.predict(prompt="a", steps=1, seed=1, api_name="/generate")
    assert pictures
    folder = temp_folder.current()
    given = [p for p in folder.files.rglob("*.png") if p.is_file()]
    assert given and not list(folder.work.iterdir())
    noted = {path for paths in page.temp_file_sets for path in paths}
    assert noted & set(map(str, given))
    page.upkeep.sweep()
    assert all(p.exists() for p in given)
    folder.sweep(now=time.time() + 2 * temp_folder.FILE_SECONDS)
    page.upkeep.sweep()
    assert not any(p.exists() for p in given)
    noted = {path for paths in page.temp_file_sets for path in paths}
    assert not noted & set(map(str, given))


def test_a_sweep_reaches_every_cache_with_an_age(page):
    cache = LruCache(9, max_age=0.0)
    cache.put("a", 1)
    time.sleep(0.01)
    page.upkeep.sweep()
    assert cache.size == 0


@pytest.fixture
def default_signals():
    """The default handlers, whatever a library set in this process before."""
    before = {n: signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(os.name != "posix", reason="Windows knows no SIGHUP")
def test_a_signal_ends_the_block_and_a_second_one_changes_nothing(default_signals):
    cleaned = False
    with pytest.raises(SystemExit) as end, exit_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            cleaned = True
    assert end.value.code == 0 and cleaned
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handlers_of_others_stay_and_threads_set_none():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with exit_on_signals():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    entered = []

    def work():
        with exit_on_signals():
            entered.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [before]
