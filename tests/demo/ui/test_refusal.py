"""A request that may not wait is refused on the page: said in the visitor's language, with a retry.

It holds for every listener that waits in a line, whatever tab it belongs to.
"""

import pytest
from gradio.components import HTML

import demo
from demo.texts import TEXTS
from pipeline import load
from pipeline.model_cache import ModelCache
from tests.demo.conftest import LOCALES

BUSY = TEXTS["queue_full"]
AGAIN = TEXTS["again"]
TABS = {  # tab, and chapter of From zero: buttons
    ("generate", ""): ["generate"],
    ("image_to_image", ""): ["image_to_image"],
    ("inpaint", ""): ["inpaint"],
    ("hires", ""): ["hires"],
    ("upscale", ""): ["upscale"],
    ("colorize", ""): ["colorize"],
    ("grid", ""): ["grid"],
    ("inside", ""): ["inside-example", "inside-go", "inside-export"],
    ("arena", ""): ["arena-go", "arena-backends"],
    ("character", ""): ["character-go"],
    ("zero", "latents"): ["zero-draw"],
    ("zero", "words"): ["zero-draw-all"],
    ("zero", "unet"): ["zero-u-draw", "zero-train"],
    ("zero", "whole"): ["whole-draw"],
}
FEW = ("arena", ""), ("zero", "unet")  # tried in the other language
HIDDEN = {"inside-again", "info-verify"}  # shown only for what these tests have not


@pytest.fixture(scope="module")
def served(tiny_model):
    """A page of the tiny model and its address."""
    page = demo.build(ModelCache(load(str(tiny_model), device="cpu")))
    yield page, demo.serve(page)[1]
    page.close(verbose=False)


def waiting_listeners(page):
    """Return the page's own listeners that wait in a line."""
    return [fn for fn in page.fns.values() if fn.queue and fn.api_visibility == "private"]


def status_of(page, listener):
    """Return the status line in which the refusal of a listener is said; None for none."""
    said = [fn for fn in page.fns.values() if fn.trigger_after == listener._id
            and fn.trigger_only_on_failure and not fn.queue]  # fmt: skip
    return said[0].outputs[0] if said else None


def button_of(page, listener):
    """Return the elem_id of the button that starts a listener; None for another component."""
    while listener.trigger_after is not None:
        listener = page.fns[listener.trigger_after]
    block, event = listener.targets[0]
    return page.blocks[block].elem_id if event == "click" else None


def test_every_listener_that_waits_has_a_place_where_its_refusal_is_said(served):
    page, _ = served
    listeners = [fn for fn in waiting_listeners(page) if fn.fn is not None]
    assert len(listeners) > 15
    assert all(isinstance(status_of(page, fn), HTML) for fn in listeners)


def test_every_button_that_runs_something_is_tried_below(served):
    page, _ = served
    buttons = {button_of(page, fn) for fn in waiting_listeners(page)} - {None}
    tried = {button for buttons in TABS.values() for button in buttons}
    assert {b for b in buttons - tried - HIDDEN if not b.startswith(("info", "history"))} == set()


@pytest.mark.parametrize("language", LOCALES)
def test_a_full_line_is_said_in_every_tab_with_a_retry(served, browser, language):
    page, url = served
    queue, at = page._queue, list(LOCALES).index(language)
    statuses = {button_of(page, fn): status_of(page, fn).elem_id for fn in waiting_listeners(page)}
    context = browser.new_context(locale=LOCALES[language])
    visitor = context.new_page()
    visitor.goto(url)
    visitor.wait_for_selector("#generate:visible")
    size, queue.size = queue.size, 0
    try:
        tried = TABS if language == "en" else {key: TABS[key] for key in FEW}
        for (tab, chapter), buttons in tried.items():
            visitor.click(f"#tab-{tab}-button")
            if chapter:
                visitor.click(f"#zero-{chapter}-button")
            for button in buttons:
                visitor.wait_for_selector(f"#{button}", state="attached")
                visitor.evaluate("id => document.getElementById(id).click()", button)
                status = f"#{statuses[button]}"
                again = visitor.wait_for_selector(f"{status} [data-press='{button}']")
                assert again.inner_text() == AGAIN[at]
                assert BUSY[at].format(count=0) in visitor.inner_text(f"{status} .gb-error")
                assert not visitor.locator(f"{status} .gb-running").count()
        visitor.click("#tab-generate-button")
        visitor.click("#generate")
        visitor.wait_for_selector("#status [data-press='generate']")
        queue.size = size
        visitor.click("#status [data-press='generate']")
        visitor.wait_for_selector("#status .gb-done")
    finally:
        queue.size = size
        context.close()
