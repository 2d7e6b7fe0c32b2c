"""The queue of a public server: shares of visitors, their turns, and answers that nobody reads."""

import threading
import time
from contextlib import suppress

import httpx
import pytest
from gradio_client import Client

import demo
from demo.limits import Limits
from demo.server import queueing
from pipeline.model_cache import ModelCache

FIELDS = ["a", "", None, None]  # prompt, negative, sampler, schedule; then steps


@pytest.fixture(scope="module")
def served(fake_models):
    """One page for all tests of this file: (page, its address, its FakeModels)."""
    models = fake_models()
    page = demo.build(ModelCache(models))
    yield page, demo.serve(page)[1], models
    page.close(verbose=False)


@pytest.fixture
def serve(served, monkeypatch):
    """serve(seconds_a_step, **limits) sets up the page; it returns (page, its address, models)."""
    page, url, models = served

    def start(seconds_a_step=0.0, **limits):
        limits = Limits(**limits)
        monkeypatch.setattr(page._queue, "limits", limits)
        monkeypatch.setattr(page.upkeep.runner, "limits", limits)
        models.seconds_a_step, models.steps_done = seconds_a_step, 0
        return page, url, models

    yield start
    page._queue._waiting("gpu").clear()
    until(lambda: models.active == 0)
    until(lambda: not any(page._queue.active_jobs))
    for session in list(page._queue.pending_event_ids_session):
        page._queue._forget_session(session)


def until(condition):
    """Wait for it, but not for ever."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited in vain")


def post(url, steps=200, prompt="a", visitor=None, **headers):
    """Send a request as curl does. visitor: its address, as a proxy on this machine says it."""
    if visitor:
        headers["X-Forwarded-For"] = visitor
    data = [prompt, *FIELDS[1:], steps]
    return httpx.post(f"{url}gradio_api/call/generate", json={"data": data}, headers=headers)


def read(url, answer):
    """Read the answer to a request; return its last event."""
    event = answer.json()["event_id"]
    last = ""
    with (
        suppress(httpx.HTTPError),  # the server ended the answer
        httpx.stream("GET", f"{url}gradio_api/call/generate/{event}", timeout=60) as stream,
    ):
        for line in stream.iter_lines():
            last = line if line.startswith("event:") else last
    return last


def line(page):
    """Return the prompts that wait for the device, in the order in which they are served."""
    return [event.data.data[0] for event in page._queue._waiting("gpu")]


def test_a_request_whose_answer_nobody_reads_is_not_drawn(serve, monkeypatch):
    monkeypatch.setattr(queueing, "LISTEN_SECONDS", 1)
    page, url, models = serve()
    unread = post(url, prompt="unread")
    assert read(url, post(url, steps=2)) == "event: complete"  # it did not wait for that one
    assert models.steps_done == 2
    until(lambda: not line(page))  # dropped
    queue = page._queue
    until(lambda: not queue.pending_event_ids_session and not queue.pending_messages_per_session)
    assert unread.json()["event_id"] not in queue.event_ids_to_events


def test_a_request_waits_for_the_client_that_asks_later(serve):
    _, url, models = serve()
    answer = post(url, steps=2)
    time.sleep(0.3)
    assert models.steps_done == 0
    assert read(url, answer) == "event: complete"


def test_a_running_request_ends_when_its_reader_was_forgotten(serve, monkeypatch):
    """Gradio does not notice where it has dropped the session of the reader itself."""
    monkeypatch.setattr(queueing, "SILENT_SECONDS", 0)
    page, url, models = serve(seconds_a_step=0.02)
    threading.Thread(target=read, args=(url, post(url)), daemon=True).start()
    until(lambda: models.steps_done > 3)
    monkeypatch.setattr(page._queue, "listeners", queueing.Listeners())
    until(lambda: models.active == 0)
    assert models.steps_done < 200


def test_a_visit_has_a_share_of_the_line(serve):
    _, url, models = serve(seconds_a_step=0.02, max_waiting=2)
    mine, other = Client(url, verbose=False), Client(url, verbose=False)
    jobs = [mine.submit(prompt="a", steps=200, api_name="/generate") for _ in range(2)]
    until(lambda: models.steps_done > 0)
    with pytest.raises(Exception, match="2 of your requests wait or run already"):
        mine.submit(prompt="a", steps=2, api_name="/generate").result()
    theirs = other.submit(prompt="b", steps=2, api_name="/generate")
    for job in jobs:
        job.cancel()
    assert theirs.result()[0]
    assert mine.submit(prompt="a", steps=2, api_name="/generate").result()[0]  # free again


def test_an_address_has_a_share_whatever_sessions_it_makes(serve):
    page, url, _ = serve(seconds_a_step=0.02, max_waiting_address=3)
    answers = [post(url, visitor="198.51.100.7") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
    assert "3 requests from your network address" in answers[-1].json()["detail"]
    assert int(answers[-1].headers["retry-after"]) > 0
    made_up = post(url, visitor="1.2.3.4, 198.51.100.7")  # the last is what the proxy has seen
    assert made_up.status_code == 429
    assert post(url, visitor="203.0.113.5").status_code == 200
    assert len(line(page)) == 4


def test_a_refusal_leaves_nothing_behind(serve):
    page, url, _ = serve(max_waiting_address=1)
    post(url)
    queue = page._queue
    kept = (queue.pending_messages_per_session, queue.pending_event_ids_session,
            queue.event_ids_to_events, queue.event_analytics)  # fmt: skip
    before = [len(things) for things in kept]
    for i in range(5):
        session = {"data": [], "fn_index": None, "session_hash": f"s{i}"}
        fn = next(f for f in page.fns.values() if f.api_name == "generate")
        session["fn_index"] = fn._id
        assert httpx.post(f"{url}gradio_api/queue/join", json=session).status_code == 422
    assert [len(things) for things in kept] == before


def test_visitors_are_served_in_turn(serve):
    page, url, _ = serve(seconds_a_step=0.02)
    for prompt, visitor in (
        *((f"crowd {i}", "198.51.100.7") for i in range(5)),
        ("late 1", "203.0.113.5"),
        ("late 2", "203.0.113.5"),
        ("last", "192.0.2.1"),
    ):
        assert post(url, prompt=prompt, visitor=visitor).status_code == 200
    served = ["crowd 0", "late 1", "last", "crowd 1", "late 2", "crowd 2", "crowd 3", "crowd 4"]
    assert line(page) == served


@pytest.mark.parametrize("max_seconds", [1])
def test_a_request_has_the_device_for_a_time(serve, max_seconds):
    _, url, models = serve(seconds_a_step=0.05, max_seconds=max_seconds)
    client = Client(url, verbose=False)
    with pytest.raises(Exception, match="ended after 1 s"):
        client.submit(prompt="a", steps=200, api_name="/generate").result()
    assert models.steps_done < 60
    assert client.submit(prompt="a", steps=2, api_name="/generate").result()[0]


def test_a_request_that_is_too_large_is_refused_before_it_draws(serve):
    _, url, models = serve(max_work=1)
    client = Client(url, verbose=False)
    with pytest.raises(Exception, match=r"too large.*would fit with a count of 7 or 7 steps"):
        client.submit(prompt="a", steps=8, count=8, api_name="/generate").result()
    assert models.steps_done == 0
    assert client.submit(prompt="a", steps=8, api_name="/generate").result()[0]
