"""The page in headless Chromium, in English and in Chinese, against a real server.

GLASSBOX_SCREENSHOTS=folder also writes pictures of the page, wide and narrow, light and dark.
"""

import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from demo.tabs import kernels
from demo.texts import TEXTS
from pipeline.backends import ATTENTION, GROUP_NORM

LOCALES = ("en", "zh")
SHOTS = os.environ.get("GLASSBOX_SCREENSHOTS")


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


@pytest.mark.parametrize(
    "language", [pytest.param(LOCALES[0], marks=pytest.mark.quick), *LOCALES[1:]]
)
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

    page.click("#stop")  # too late: it is done, and the page goes on saying so
    page.wait_for_timeout(800)
    assert page.locator("#status .gb-done").count() == 1

    page.evaluate("seen.steps.clear()")
    page.fill("#count input", "16")  # long enough to be stopped, even where the browser lags
    ask(page, prompt, 200)
    page.wait_for_function("seen.steps.size >= 2")
    page.click("#stop")
    page.wait_for_selector(".gb-stopped")
    page.wait_for_timeout(1500)  # and it stays so
    index, total = map(int, re.findall(r"\d+", page.inner_text(".gb-stopped .gb-line span"))[:2])
    bar = page.get_attribute(".gb-stopped .gb-bar i", "style")
    assert 0 < index <= total == 200
    assert float(re.search(r"width:([\d.]+)%", bar)[1]) < 100  # of all pictures
    page.fill("#count input", "1")

    ask(page, prompt, 3)
    page.wait_for_function("document.querySelector('#parameters textarea')?.value.includes(': 3,')")
    assert "Steps: 3" in finished(page)

    ask(page, prompt, 9999)
    page.wait_for_selector(".gb-error")
    assert "from 1 to 200, not 9999" in page.inner_text("#status")
    assert "from 1 to 200, not 9999" in page.inner_text(".toast-body")
    assert page.input_value("#prompt textarea") == prompt
    assert "Steps: 3" in page.input_value("#parameters textarea")

    ask(page, prompt, 4)
    page.wait_for_function("document.querySelector('#parameters textarea')?.value.includes(': 4,')")
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
        f"document.querySelector('#seed input, #seed textarea')?.value == '{seed}'"
    )
    page.click("#randomize")
    page.wait_for_function("document.querySelector('#seed input, #seed textarea')?.value == ''")


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


def test_tokens_and_weights_follow_what_is_typed(visit):
    page = visit()
    page.wait_for_selector("#prompt-line >> text=0 / 75 tokens")
    height = page.eval_on_selector("#prompt-line", "e => e.offsetHeight")
    page.click("#prompt textarea")
    page.keyboard.type("a red apple")
    page.wait_for_selector("#prompt-line >> text=3 / 75 tokens")
    assert page.inner_text("#prompt-line .gb-weights") == ""
    page.keyboard.type(" (on:1.5) [blue] BREAK <lora:soft light:1> <img src=x>")
    page.wait_for_selector("#prompt-line .gb-weights >> text=src=x>")  # all that was typed
    shown = page.inner_text("#prompt-line .gb-weights")
    assert "<img src=x>" in shown and not page.query_selector("#prompt-line img")
    sizes = {
        look: page.eval_on_selector(f"#prompt-line {look}", LOOK)
        for look in (".gb-up", ".gb-down", ".gb-weights")
    }
    assert sizes[".gb-up"][0] > sizes[".gb-weights"][0] > sizes[".gb-down"][0]
    assert len({colour for _, colour in sizes.values()}) == 3
    assert page.eval_on_selector("#prompt-line", "e => e.offsetHeight") == height
    page.fill("#negative textarea", "zonk")  # an embedding of five vectors
    page.wait_for_selector("#negative-line >> text=5 / 75 tokens")


LOOK = "e => [parseFloat(getComputedStyle(e).fontSize), getComputedStyle(e).backgroundColor]"


@pytest.mark.parametrize("language, width", [("en", 1400), ("zh", 390)])
def test_a_dropped_picture_fills_the_form(visit, tmp_path, language, width):
    first = visit(language)
    choose(first, "sampler", "Heun")
    first.fill("#clip_skip textarea, #clip_skip input", "2")
    first.fill("#cfg_rescale input", "0.25")
    first.fill("#width input", "96")
    first.fill("#negative textarea", "rain, (fog:1.2)")
    ask(first, "a <b>red</b> apple", 2)
    text = finished(first)
    (tmp_path / "no picture.png").write_text("hello")
    with first.expect_download() as download:
        first.click("#gallery .icon-button-wrapper :nth-child(1)")
    download.value.save_as(tmp_path / "picture.png")

    page = visit(language, viewport={"width": width, "height": 900})
    page.fill("#prompt textarea", "kept")
    page.click(f"[role=tab]:has-text('{_word('tab_info', language)}')")
    drop = page.locator("#info-file input[type=file]")
    drop.set_input_files(tmp_path / "no picture.png")
    page.wait_for_selector("#info-picture [role=alert]")
    said = page.inner_text("#info-picture")
    assert "no picture.png is no PNG" in said and "/tmp" not in said
    assert not page.is_visible("#info-use")
    assert page.input_value("#prompt textarea") == "kept"
    drop.set_input_files(tmp_path / "picture.png")
    page.wait_for_selector("#info-settings .gb-known")
    page.wait_for_function("document.querySelector('#info-picture img')?.naturalWidth == 96")
    shown = page.inner_text("#info-settings")
    assert "a <b>red</b> apple" in shown and "rain, (fog:1.2)" in shown and "Heun" in shown
    assert page.input_value("#info-text textarea") == text
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    _shoot(page, f"info-{language}-{width}")

    page.click("#info-use")
    page.wait_for_selector("#generate", state="visible")
    page.wait_for_function(
        f"document.querySelector('#status')?.innerText.includes({_word('info_used', language)!r})"
    )
    page.click("#generate")
    assert finished(page) == text
    assert page.foreign == []


def test_a_pasted_text_fills_the_form_with_a_new_seed(visit):
    page = visit()
    page.click(f"[role=tab]:has-text('{_word('tab_info', 'en')}')")
    page.fill("#info-text textarea", "a cat\nSteps: 2, Sampler: Euler, Seed: 5, Size: 64x96")
    page.wait_for_selector("#info-settings .gb-known")
    page.click("#info-vary")
    page.wait_for_selector("#status >> text=in the form")
    assert page.input_value("#seed textarea, #seed input") == ""
    assert page.input_value("#height input") == "96"
    page.click(f"[role=tab]:has-text('{_word('tab_info', 'en')}')")
    picture = {"name": "x.png", "mimeType": "image/png", "buffer": b"hello"}
    page.locator("#info-file input[type=file]").set_input_files(picture)
    page.wait_for_selector("#info-picture [role=alert]")
    assert "a cat" in page.inner_text("#info-settings")  # nothing is lost
    page.fill("#info-text textarea", "")
    page.wait_for_selector("#info-settings >> text=will stand here")


def test_the_history_survives_a_reload_and_is_this_browsers_alone(visit):
    page = visit()
    for prompt in ("first", "second"):
        ask(page, prompt, 2)
        page.wait_for_selector(f"#strip img[alt='{prompt}']")
    page.reload()
    page.wait_for_selector("#strip img")
    assert page.eval_on_selector_all("#strip img", ALTS) == ["second", "first"]
    page.wait_for_selector("#prompt-line >> text=0 / 75 tokens")
    page.locator("#strip button").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#history-settings >> text=first")
    page.keyboard.press("Enter")
    page.wait_for_selector("#history-settings", state="hidden")
    page.keyboard.press("Enter")
    page.wait_for_selector("#history-settings >> text=first")
    page.click("#history-use")
    page.wait_for_function("document.querySelector('#prompt textarea')?.value == 'first'")

    stranger = visit()
    assert stranger.locator("#strip img").count() == 0
    assert stranger.is_visible(f"text={_word('history_hint', 'en')}")

    tab = page.context.new_page()  # another page of the same browser adds to the same list
    tab.goto(page.url)
    tab.wait_for_selector("#strip img")
    ask(tab, "third", 2)
    tab.wait_for_selector("#strip img[alt='third']")
    page.wait_for_selector("#strip img[alt='third']")
    page.click("#history-clear")
    page.wait_for_selector("#strip img", state="detached")
    page.wait_for_selector("#history-settings", state="hidden")
    page.reload()
    page.wait_for_selector(f"text={_word('history_hint', 'en')}")
    assert page.locator("#strip img").count() == 0


ALTS = "all => all.map(picture => picture.alt)"
PIXEL = "data:image/jpeg;base64,/9j/4AAQ"
EVIL = "<img src=x onerror='window.hacked = 1'>"


STORE = """text => {
  localStorage.setItem('glassbox.history', text);
  window.dispatchEvent(new StorageEvent('storage', {key: 'glassbox.history'}));
}"""
DAMAGED = [  # what lies in the store, the texts that are shown of it
    ("no JSON", []),
    ('{"a": 1}', []),
    (json.dumps([None, 3, {"text": "a"}, {"image": PIXEL, "text": 5}]), []),
    (json.dumps([{"image": f"{PIXEL}' onerror='hacked = 1", "text": "a"}]), []),
    (json.dumps([{"image": "javascript:hacked = 1", "text": "a"}]), []),
    (json.dumps([{"image": PIXEL, "text": str(i)} for i in range(60)]), [*map(str, range(40))]),
    (json.dumps([{"image": PIXEL, "text": EVIL}, {"image": PIXEL}]), [EVIL]),
]


def test_a_damaged_history_does_no_harm(visit):
    page = visit()
    for stored, shown in DAMAGED:
        page.evaluate(STORE, stored)
        assert page.eval_on_selector_all("#strip img", ALTS) == shown
    page.reload()  # the last of them, met by a page that opens
    page.click("#strip button")
    page.wait_for_selector("#history-settings >> text=onerror")
    assert page.evaluate("window.hacked") is None


def test_a_full_store_drops_the_oldest(visit):
    page = visit()
    page.evaluate(
        """pixel => {
          const image = pixel + 'A'.repeat(45000);
          const all = [...Array(30).keys()].map(i => ({image, text: String(i)}));
          localStorage.setItem('glassbox.history', JSON.stringify(all));
          let rest = '';
          for (let n = 1 << 22; n; n >>= 1) {
            try {
              localStorage.setItem('rest', rest + 'x'.repeat(n));
              rest += 'x'.repeat(n);
            } catch (full) { /* half as much */ }
          }
        }""",
        PIXEL,
    )
    ask(page, "new", 2)
    page.wait_for_selector("#strip img[alt='new']")
    page.reload()
    page.wait_for_selector("#strip img")
    left = page.eval_on_selector_all("#strip img", ALTS)
    assert left[:2] == ["new", "0"] and len(left) < 31


def test_another_model_is_chosen_or_refused(visit):
    page = visit()
    assert "tiny" in page.inner_text(".gb-badge")
    choose(page, "model", "other · SD 1.x")
    page.wait_for_selector(".gb-badge >> text=other")
    got = {k: page.input_value(f"#{k} input") for k in ("sampler", "schedule", "steps", "cfg")}
    assert got == {"sampler": "DPM++ 2M", "schedule": "Karras", "steps": "3", "cfg": "2.5"}
    page.fill("#prompt textarea", "a")
    page.click("#generate")
    assert "Size: 128x64" in (text := finished(page)) and "Model: other" in text
    choose(page, "model", "damaged ✕")
    page.wait_for_selector(".gb-error")
    assert "damaged.safetensors" in page.inner_text("#status")
    page.wait_for_function("document.querySelector('#model input')?.value.startsWith('other')")
    assert "other" in page.inner_text(".gb-badge")
    assert page.input_value("#prompt textarea") == "a"
    stranger = visit()
    ask(stranger, "b", 2)
    assert "Model: tiny" in finished(stranger)


def test_loras_and_embeddings_go_into_the_prompt(visit):
    page = visit()
    page.fill("#prompt textarea", "a red apple")
    page.wait_for_selector("#lora")
    for _ in range(2):
        choose(page, "lora", "soft light")
        page.wait_for_function("document.querySelector('#lora input')?.value == ''")
    choose(page, "embedding", "zonk")
    wanted = "a red apple <lora:soft light:1> zonk"
    page.wait_for_function(f"document.querySelector('#prompt textarea')?.value == {wanted!r}")
    page.wait_for_selector("#prompt-line >> text=8 / 75 tokens")
    ask(page, f"{wanted} <lora:nowhere:1>", 2)
    text = finished(page)
    assert 'Lora hashes: "soft light: ' in text and 'TI hashes: "zonk: ' in text
    assert "There is no LoRA 'nowhere'" in page.inner_text("#status .gb-warnings")


@pytest.mark.parametrize("language, width", [("en", 1400), ("zh", 390)])
def test_the_kernels_tab_shows_what_was_measured_and_what_can_run(visit, language, width):
    page = visit(language, viewport={"width": width, "height": 900})
    page.click(f"[role=tab]:has-text('{_word('tab_kernels', language)}')")
    page.wait_for_selector("#backends .gb-yes")
    cells = page.locator("#backends tr").all_inner_texts()
    assert len(cells) == len(ATTENTION) + len(GROUP_NORM)
    assert any("sdpa" in c and _word("auto_takes", language) in c for c in cells)
    assert any("xformers" in c and _word("cannot_run", language) in c for c in cells)

    rows = next(iter(kernels.machines().values()))
    timed = [r for r in rows if (r["kernel"], r["mode"]) == ("attention", "forward") and r["p50"]]
    page.wait_for_selector("#bench .gb-row")
    shown = page.locator("#bench .gb-row").all_inner_texts()
    assert len(shown) == len(timed)
    for text, row in zip(shown, timed, strict=True):
        assert text.split("\t")[0] == row["provider"] and f"{row['rate']:.3g}" in text
    assert page.is_visible("#bench .gb-share") == (width > 860)
    widths = page.eval_on_selector_all(
        "#bench .gb-bench",
        "all => all.map(t => [...t.querySelectorAll('i')].map(i => i.offsetWidth))",
    )
    rates = {}
    for row in timed:
        rates.setdefault(row["shape"], []).append(row["rate"])
    for drawn, wanted in zip(widths, rates.values(), strict=True):
        assert drawn[wanted.index(max(wanted))] == max(drawn) > 0
    assert page.is_visible("#bench svg")
    choose(page, "operation", "GroupNorm · forward")
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
      // its card moves with the window, so that it stays in view
      const card = document.querySelector('#gb-see').getBoundingClientRect();
      return [box.left, box.top - card.top, card.left, box.width, box.height];
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
