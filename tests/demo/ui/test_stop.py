"""Stop at each moment of a run, in each place of the page: it ends in the right state.

The listeners are called as a browser calls them, without one; tests/stop_soak.py uses a browser.
"""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

import demo
from demo.tabs.from_zero import training
from demo.ui.stop import StopButton
from pipeline import load
from pipeline.model_cache import ModelCache
from tests import stop_soak
from tests.stop_soak import MOMENTS, Gate

PLACES = {  # go button, Stop, status line, values of inputs
    "generate": ("generate", "stop", "status", {"steps": 2}),
    "hires": ("hires", "stop", "status", {"steps": 2}),
    "example": ("inside-example", "inside-stop", "inside-status", {"steps": 2}),
    "branch": ("inside-go", "inside-stop", "inside-status", {"inside-at": 1}),
    "arena": ("arena-go", "arena-stop", "arena-status", {"arena-steps": "2"}),
    "backends": ("arena-backends", "arena-stop", "arena-status", {"arena-steps": "2"}),
    "character": ("character-go", "character-stop", "character-status", {"character-steps": "2"}),
    "trace": ("whole-draw", "whole-stop", "whole-status", {"steps": 2}),
    "training": ("zero-train", "zero-train-stop", "zero-train-status", {}),
}
names = count()


class FakeTraining:
    """In place of a minute of training in another process."""

    stopped = False

    def __init__(self, seconds):
        self.release = threading.Event()

    def reports(self):
        for step in (1, 2):
            if not self.stopped:
                report = {"step": step, "seconds": 0.1, "losses": [2.0, 1.0], "distance": 0.5}
                yield report | {"sheet": ""}

    def stop(self):
        self.stopped = True


class Visitor:
    """What a browser does: it keeps the components' values and calls the listeners in order."""

    def __init__(self, page, session):
        self.page, self.values = page, {}
        self.request = SimpleNamespace(session_hash=session, headers={"accept-language": "en"})
        self.by_id = {getattr(b, "elem_id", None): b for b in page.blocks.values()}

    def value(self, elem_id):
        return self.values[self.by_id[elem_id]._id]

    def set(self, elem_id, value):
        self.values[self.by_id[elem_id]._id] = value

    def listener(self, elem_id, event="click"):
        target = self.by_id[elem_id]._id, event
        return next(fn for fn in self.page.fns.values() if target in fn.targets)

    def take(self, fn, made):
        """Show what a listener gives."""
        if not isinstance(made, dict) or "__type__" in made:
            made = made if isinstance(made, tuple) else (made,)
            made = dict(zip(fn.outputs, made, strict=True))
        for block, value in made.items():
            if isinstance(value, dict) and value.get("__type__") == "update":
                if "value" not in value:
                    continue
                value = value["value"]
            self.values[block._id] = value

    def open(self, go, run_id):
        fn = self.listener(go)
        self.take(fn, fn.fn(run_id, self.request))

    def stream(self, go, run_id):
        first = self.listener(go)._id
        fn = next(fn for fn in self.page.fns.values() if fn.trigger_after == first)
        given = [self.values.get(b._id, getattr(b, "value", None)) for b in fn.inputs[1:]]
        for update in fn.fn(self.request, run_id, *given):
            self.take(fn, update)

    def stop(self, stop, run_ids):
        fn = self.listener(stop)
        self.take(fn, fn.fn(run_ids, self.request))

    def run(self, go, run_id):
        self.open(go, run_id)
        self.stream(go, run_id)


@pytest.fixture(scope="module")
def served(tiny_model):
    """The page of a tiny model, with a gate in front of every run."""
    gate = Gate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopButton, "add", StopButton.add)
        gate.install()
        page = demo.build(ModelCache(load(str(tiny_model), device="cpu")))
    return page, gate


@pytest.fixture
def visitor(served, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "Training", FakeTraining)
    monkeypatch.chdir(tmp_path)
    return Visitor(served[0], f"visitor {next(names)}")


def prepare(visitor, place):
    """Fill what the place needs; gives its button, Stop and status line."""
    go, stop, status, values = PLACES[place]
    for elem_id, value in values.items():
        visitor.set(elem_id, value)
    if place == "branch":
        visitor.set("steps", 2)
        visitor.run("inside-example", "example")
    if place == "character":
        for i, colour in enumerate(("navy", "purple")):
            Image.new("RGB", (64, 64), colour).save(f"{i}.png")
        visitor.set("character-images", [str(p.resolve()) for p in Path().glob("*.png")])
        for name, value in (("name", f"zog{next(names)}"), ("prompt", "zog"), ("rank", "2")):
            visitor.set(f"character-{name}", value)
    return go, stop, status


@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment != "together"])
@pytest.mark.parametrize("place", PLACES)
def test_stop_leaves_the_page_in_the_right_state(served, visitor, place, moment):
    (_, gate), (go, stop, status) = served, prepare(visitor, place)
    if moment == "queue":
        visitor.open(go, "x")
        assert "gb-running" in visitor.value(status)
        visitor.stop(stop, "x")
        assert "gb-stopped" in visitor.value(status)
        visitor.stream(go, "x")  # its turn in the queue, if it was not taken out of it
    elif moment == "result":
        visitor.run(go, "x")
        assert "gb-done" in visitor.value(status)
        visitor.stop(stop, "x")
    else:
        gate.arm(moment)
        thread = threading.Thread(target=visitor.run, args=(go, "x"))
        thread.start()
        assert gate.reached.wait(60)
        visitor.stop(stop, "x")
        assert "gb-running" in visitor.value(status)  # the run itself says that it has stopped
        gate.release()
        thread.join(60)
    assert f"gb-{MOMENTS[moment]}" in visitor.value(status)
    if moment in ("queue", "before"):
        said = "Stopped after 0 steps" if place == "training" else "Stopped before the first step"
        assert said in visitor.value(status)


def test_a_stop_that_arrives_before_its_run_holds(visitor):
    visitor.stop("stop", "x")
    visitor.run("generate", "x")
    assert "Stopped before the first step" in visitor.value("status")
    visitor.run("generate", "y")
    assert "gb-done" in visitor.value("status")


def test_a_second_press_does_not_disturb_the_run(served, visitor):
    gate = served[1]
    visitor.set("steps", 200)
    gate.arm("middle")
    thread = threading.Thread(target=visitor.run, args=("generate", "x"))
    thread.start()
    assert gate.reached.wait(60)
    with pytest.raises(gr.Error) as refused:
        visitor.open("generate", "y")
    assert not refused.value.visible and not refused.value.print_exception
    visitor.stop("stop", "x y")
    gate.release()
    thread.join(60)
    assert "Stopped at step 2 of 200" in visitor.value("status")  # one step at most after Stop


def test_what_a_stopped_run_says_late_does_not_touch_the_next_one(served, visitor):
    gate = served[1]
    visitor.set("steps", 2)
    gate.arm("middle")
    thread = threading.Thread(target=visitor.run, args=("generate", "x"))
    thread.start()
    assert gate.reached.wait(60)
    visitor.stop("stop", "x")
    visitor.open("generate", "y")  # pressed again before the first has ended
    gate.release()
    thread.join(60)
    assert "gb-running" in visitor.value("status")
    visitor.stream("generate", "y")
    assert "gb-done" in visitor.value("status")


def test_an_error_is_a_terminal_state_too(visitor):
    visitor.set("steps", 9999)
    visitor.open("generate", "x")
    with pytest.raises(gr.Error, match="from 1 to 200"):
        visitor.stream("generate", "x")
    visitor.stop("stop", "x")
    assert "gb-error" in visitor.value("status")


def test_a_visitor_who_leaves_ends_the_work(served, visitor):
    page, gate = served
    visitor.set("steps", 200)
    gate.arm("")
    visitor.open("generate", "x")
    fn = next(f for f in page.fns.values() if f.trigger_after == visitor.listener("generate")._id)
    given = [visitor.values.get(b._id, getattr(b, "value", None)) for b in fn.inputs[1:]]
    updates = fn.fn(visitor.request, "x", *given)
    for _ in range(3):
        next(updates)
    assert gate.run.progress.index < 200
    updates.close()
    assert gate.run.state == "stopped" and gate.run.progress is None
    visitor.set("steps", 2)
    visitor.run("generate", "y")  # the device is free
    assert "gb-done" in visitor.value("status")


def test_generate_is_stopped_at_each_moment_in_a_browser(served, browser):
    page, gate = served
    url = demo.serve(page)[1]
    context = browser.new_context(locale="en-US")
    mine, other = context.new_page(), context.new_page()
    for one in (mine, other):
        one.goto(url)
        one.wait_for_selector("#generate:has-text('Generate')")
        one.fill("#steps input", "3")
    for moment in MOMENTS:
        wrong = stop_soak.press(mine, gate, stop_soak.PLACES["generate"], moment, other)
        assert not wrong, f"{moment}: {wrong}"
    context.close()
    page.close(verbose=False)
