"""The page in headless Chromium, in English and in Chinese, against a real server.

GLASSBOX_SCREENSHOTS=folder also writes pictures of the page, wide and narrow, light and dark.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from demo.texts import TEXTS
from kernels.bench import results
from pipeline.backends import ATTENTION, GROUP_NORM

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # milliseconds before a wait counts as in vain
LOCALES = {"en": "en-US", "zh": "zh-CN"}
SHOTS = os.environ.get("GLASSBOX_SCREENSHOTS")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

# Notes every preview and every status that the page shows.
WATCH = """() => {
  window.seen = {previews: new Set(), steps: new Set()};
  new MutationObserver(() => {
    const picture = document.querySelector('.gb-live img');
    const step = document.querySelector('.gb-running .gb-line span');
    if (picture) seen.previews.add(picture.getAttribute('src'));
    if (step && /\\d/.test(step.textContent)) seen.steps.add(step.textContent);
  }).observe(document.querySelector('#gb-see'),
             {subtree: true, childList: true, attributes: true, characterData: true});
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, server):
    """visit(language, ...) opens the page as a new visitor."""
    contexts = []

    def open_page(language="en", **more):
        context = browser.new_context(locale=LOCALES[language], accept_downloads=True, **more)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.foreign = []
        page.on("request", lambda r: page.foreign.append(r.url) if _foreign(r.url, server) else 0)
        page.goto(server.url)
        page.wait_for_selector("#generate")
        page.wait_for_selector(f"#generate:has-text('{_word('generate', language)}')")
        page.evaluate(WATCH)
        return page

    yield open_page
    for context in contexts:
        context.close()


def _foreign(url, server):
    return not url.startswith((server.url, "data:", "blob:"))


def _word(key, language):
    return TEXTS[key][language == "zh"]


def ask(page, prompt, steps):
    page.fill("#prompt textarea", prompt)
    page.fill("#steps input", str(steps))
    page.click("#generate")


def finished(page):
    page.wait_for_selector(".gb-done")
    page.wait_for_selector("#gallery img")
    return page.input_value("#parameters textarea")


@pytest.mark.parametrize("language", LOCALES)
def test_a_visit(visit, tmp_path, language):
    page = visit(language)
    for key in ("prompt", "negative", "sampler", "schedule", "steps", "cfg", "seed", "count"):
        assert page.is_visible(f"#{key} >> text={_word(key, language)}")
    for key in ("generate", "stop", "randomize", "reuse"):
        assert page.inner_text(f"#{key}").strip() == _word(key, language)
    assert _word("idle", language) in page.inner_text("#stage")

    prompt = {"en": "a red apple on a blue background", "zh": "蓝色背景上的红苹果"}[language]
    ask(page, prompt, 60)
    text = finished(page)
    assert text.startswith(prompt)
    assert "Steps: 60" in text
    assert page.evaluate("seen.previews.size") >= 2
    assert page.evaluate("seen.steps.size") >= 2
    assert re.search(r"\d", page.inner_text(".gb-time"))

    with page.expect_download() as download:
        page.click(f"#gallery button[aria-label='{'Download' if language == 'en' else '下载'}']")
    download.value.save_as(tmp_path / "picture.png")
    assert Image.open(tmp_path / "picture.png").info["parameters"] == text

    page.evaluate("seen.steps.clear()")
    ask(page, prompt, 200)
    page.wait_for_function("seen.steps.size >= 2")
    page.click("#stop")
    page.wait_for_selector(".gb-stopped")
    page.wait_for_timeout(1500)  # and it stays so
    index, total = map(int, re.findall(r"\d+", page.inner_text(".gb-stopped .gb-line span"))[:2])
    assert (index < 200, total) == (True, 200)

    ask(page, prompt, 3)
    page.wait_for_function("document.querySelector('#parameters textarea').value.includes(': 3,')")
    assert "Steps: 3" in finished(page)

    ask(page, prompt, 9999)
    page.wait_for_selector(".gb-error")
    assert "from 1 to 200, not 9999" in page.inner_text("#status")
    assert "from 1 to 200, not 9999" in page.inner_text(".toast-body")
    assert page.input_value("#prompt textarea") == prompt
    assert "Steps: 3" in page.input_value("#parameters textarea")

    ask(page, prompt, 4)
    page.wait_for_function("document.querySelector('#parameters textarea').value.includes(': 4,')")
    assert page.foreign == []


def test_the_schedules_follow_the_sampler(visit):
    page = visit()
    choose(page, "sampler", "DPM++ 2M")
    page.wait_for_selector("#sampler >> text=15 to 25 steps")
    choose(page, "schedule", "Karras")
    page.wait_for_selector("#schedule >> text=little noise")
    choose(page, "sampler", "LCM")
    page.wait_for_selector("#schedule >> text=suits the sampler best")
    page.wait_for_selector("[role=listbox]", state="detached")
    page.click("#schedule input")
    shown = page.inner_text("[role=listbox]")
    assert "Uniform" in shown
    assert "Karras" not in shown
    page.keyboard.press("Escape")
    ask(page, "a", 2)
    assert "Sampler: LCM, Schedule type: Automatic" in finished(page)


def choose(page, box, label):
    page.click(f"#{box} input")
    page.click(f"[role=listbox] [role=option][aria-label='{label}']")


def test_the_seed_is_reused_and_made_random_again(visit):
    page = visit()
    ask(page, "a", 2)
    seed = re.search(r"Seed: (\d+)", finished(page))[1]
    page.click("#reuse")
    page.wait_for_function(
        f"document.querySelector('#seed input, #seed textarea').value == '{seed}'"
    )
    page.click("#randomize")
    page.wait_for_function("document.querySelector('#seed input, #seed textarea').value == ''")


def test_backends_are_chosen_or_refused_with_their_reason(visit):
    page = visit()
    choose(page, "attention", "math")
    page.wait_for_selector("#attention >> text=plain matrix products")
    ask(page, "a", 2)
    assert "Steps: 2" in finished(page)
    assert "· math · torch" in page.inner_text("#status")
    choose(page, "attention", "xformers ✕")
    page.wait_for_selector("#attention >> text=/xformers (is not installed|has no attention)/")
    ask(page, "a", 3)
    page.wait_for_selector(".gb-error")
    assert "xformers cannot run here: xformers" in page.inner_text("#status")
    assert "Steps: 2" in page.input_value("#parameters textarea")


@pytest.mark.parametrize("language, width", [("en", 1400), ("zh", 390)])
def test_the_kernels_tab_shows_what_was_measured_and_what_can_run(visit, language, width):
    page = visit(language, viewport={"width": width, "height": 900})
    page.click(f"[role=tab]:has-text('{_word('tab_kernels', language)}')")
    page.wait_for_selector("#backends .gb-yes")
    cells = page.locator("#backends tr").all_inner_texts()
    assert len(cells) == len(ATTENTION) + len(GROUP_NORM)
    assert any("sdpa" in c and _word("auto_takes", language) in c for c in cells)
    assert any("xformers" in c and _word("cannot_run", language) in c for c in cells)

    rows = next(iter(results.read().values()))
    timed = [r for r in rows if (r["kernel"], r["mode"]) == ("attention", "forward") and r["p50"]]
    page.wait_for_selector("#bench .gb-row")
    shown = page.locator("#bench .gb-row").all_inner_texts()
    assert len(shown) == len(timed)
    for text, row in zip(shown, timed, strict=True):
        assert text.split("\t")[0] == row["provider"] and f"{row['rate']:.3g}" in text
    widths = page.eval_on_selector_all("#bench i", "all => all.map(i => i.offsetWidth)")
    fastest = max(range(len(timed)), key=lambda i: timed[i]["rate"])
    assert widths[fastest] == max(widths) > 0
    assert page.is_visible("#bench svg")
    choose(page, "operation", "GroupNorm · backward")
    page.wait_for_selector("#bench caption:has-text('all 61 norms NHWC')")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.foreign == []
    _shoot(page, f"kernels-{language}-{width}")


def test_two_visitors_take_turns(visit):
    first, second = visit("en"), visit("zh")
    ask(first, "first", 80)
    first.wait_for_selector(".gb-live")
    ask(second, "second", 2)
    assert finished(second).startswith("second\n")
    assert finished(first).startswith("first\n")


def test_leaving_frees_the_device(visit):
    page = visit()
    page.fill("#count input", "16")
    ask(page, "gone", 200)
    page.wait_for_selector(".gb-live")
    page.context.close()
    other = visit()
    ask(other, "here", 2)
    assert finished(other).startswith("here\n")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_sticks_out_or_jumps(visit, width, scheme):
    page = visit(viewport={"width": width, "height": 900}, color_scheme=scheme)
    frame = """(() => {
      const box = document.querySelector('#gb-frame').getBoundingClientRect();
      return [box.left, box.top + window.scrollY, box.width, box.height];
    })()"""
    page.fill("#prompt textarea", "a red apple on a blue background")
    page.wait_for_timeout(100)  # the field grows with what is typed
    before = page.evaluate(frame)
    page.fill("#steps input", "30")
    page.click("#generate")
    page.wait_for_selector(".gb-live")
    during = page.evaluate(frame)
    _shoot(page, f"{scheme}-{width}-live")
    finished(page)
    after = page.evaluate(frame)
    assert before == during == after
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.mouse.move(0, 0)
    _shoot(page, f"{scheme}-{width}-done")


def _shoot(page, name):
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)
