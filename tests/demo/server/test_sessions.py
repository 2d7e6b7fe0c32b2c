"""Gradio's sessions on a real page: how many are kept, how large, how long."""

from types import SimpleNamespace

import pytest
from gradio.state_holder import StateHolder

import demo
from demo.server import sessions
from demo.server.sessions import (
    CLOSED_SECONDS,
    SWEEP_SECONDS,
    UNREAD_SECONDS,
    UNUSED_SECONDS,
    Sessions,
    measure,
)
from pipeline.model_cache import ModelCache


@pytest.fixture(scope="module")
def blocks(fake_models):
    return demo.build(ModelCache(fake_models()))


@pytest.fixture
def make(blocks):
    """make(limit, **more) returns Sessions whose clock stands at `make.now`."""

    def build(limit=0, **more):
        app = SimpleNamespace(iterators_to_reset={"ended"})
        return Sessions(blocks, app, limit, clock=lambda: build.now, **more)

    build.now = 0.0
    yield build
    queue = blocks._queue
    for kept in (queue.event_ids_to_events, queue.pending_event_ids_session):
        kept.clear()
    queue.pending_messages_per_session.clear()


def sweep(kept, make, seconds):
    make.now += seconds
    kept.delete_all_expired_state()


def state_of(blocks):
    """The id of a gr.State and of another component."""
    stateful = {b.stateful: b._id for b in blocks.blocks.values()}
    return stateful[True], stateful[False]


def test_a_session_takes_a_hundredth_of_gradios(blocks, make):
    theirs = StateHolder()
    theirs.set_blocks(blocks)
    large = measure(theirs["a"].config_values)
    assert large > 500_000
    assert make()["a"].nbytes < large / 100


def test_a_session_keeps_its_values_apart_from_the_others(blocks, make):
    kept, (state, other) = make(), state_of(blocks)
    component = SimpleNamespace(stateful=False)
    kept["a"][state] = "mine"
    kept["a"][other] = component
    assert kept["a"][state] == "mine" and kept["a"][other] is component
    assert kept["b"][state] != "mine" and kept["b"][other] is blocks.blocks[other]
    assert blocks.default_config.blocks[other] is blocks.blocks[other]
    assert list(kept["a"].blocks_config.blocks) == list(blocks.default_config.blocks)
    assert kept["a"].blocks_config.fns is blocks.fns


def test_the_least_recently_used_session_goes_closed_ones_first(make):
    kept = make(limit=3)
    for name in "abc":
        kept[name]
    kept["a"]
    kept["c"].is_closed = True
    kept["d"]
    assert list(kept.session_data) == ["b", "a", "d"]
    kept["e"]
    assert list(kept.session_data) == ["a", "d", "e"]


def test_no_limit_keeps_all(make):
    kept = make(limit=0)
    for i in range(300):
        kept[str(i)]
    assert len(kept.session_data) == 300


def test_sessions_go_by_age(make):
    kept = make()
    kept["closed"].is_closed = True
    kept["open"]
    sweep(kept, make, CLOSED_SECONDS - 1)
    assert list(kept.session_data) == ["closed", "open"]
    sweep(kept, make, SWEEP_SECONDS)
    assert list(kept.session_data) == ["open"]
    sweep(kept, make, UNUSED_SECONDS)
    assert not kept.session_data


def test_the_states_of_all_have_a_bound_in_bytes(blocks, make):
    kept, (state, _) = make(max_bytes=250_000), state_of(blocks)
    for name in "abc":
        kept[name][state] = {"pictures": ["x" * 100_000 + name]}
    sweep(kept, make, SWEEP_SECONDS)
    assert list(kept.session_data) == ["b", "c"]


def event(session, name):
    return SimpleNamespace(session_hash=session, _id=name)


def test_a_request_without_a_session_leaves_none(blocks, make):
    kept, running = make(), blocks._queue.event_ids_to_events
    running["request"] = event("request", "request")
    running["click"] = event("page", "click")
    kept["request"], kept["page"]
    sweep(kept, make, 1)
    assert "request" in kept and "page" in kept
    running.clear()
    sweep(kept, make, 1)
    assert "request" not in kept and "page" in kept


def test_messages_that_nobody_fetches_go(blocks, make):
    kept, queue = make(), blocks._queue
    for name in ("gone", "busy", "used"):
        queue.pending_messages_per_session[name] = object()
        queue.pending_event_ids_session[name] = {"e"}
    queue.event_ids_to_events["e"] = event("busy", "e")
    sweep(kept, make, SWEEP_SECONDS)
    sweep(kept, make, UNREAD_SECONDS - 1)
    kept["used"]  # another request of the same session
    assert len(queue.pending_messages_per_session) == 3
    sweep(kept, make, SWEEP_SECONDS)
    assert set(queue.pending_messages_per_session) == {"busy", "used"}
    assert set(queue.pending_event_ids_session) == {"busy", "used"}
    assert kept.app.iterators_to_reset == set()


def test_the_statistics_of_requests_have_a_bound(blocks, make):
    make()
    assert blocks._queue.ANALYTICS_MAX_EVENTS == sessions.ANALYTICS_REQUESTS


def test_measure_counts_what_lies_within_once():
    text = "x" * 1000
    assert 1000 < measure([text, {"a": (text,)}]) < 2000
    loop = []
    loop.append(loop)
    assert measure(loop) < 1000
