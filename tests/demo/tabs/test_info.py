"""Verifying on the page and through its API: what is dropped, what is said, in both languages."""

import json
import re
import threading
from html import unescape

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from demo.server.runner import Runner
from demo.tabs.info import verdict_view
from demo.tabs.info import verify as verifying
from demo.texts import TEXTS, say
from pipeline import InputError, load, tasks, verify
from pipeline.metadata import receipt
from pipeline.metadata.fingerprint import fingerprint
from pipeline.metadata.save import save_picture
from pipeline.metadata.verdict import KINDS
from pipeline.model_cache import ModelCache


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(str(tiny_model), device="cpu")


@pytest.fixture
def path(models, tmp_path):
    result = models.generate(prompt="a red apple", seed=2, steps=3, sampler="euler")
    return result.save(tmp_path / "picture.png")[0]


def changed(path, change=None, paint=None):
    """The file with another receipt or other pixels."""
    with Image.open(path) as opened:
        opened.load()
    about = json.loads(opened.info["glassbox"])
    if change:
        change(about)
    picture = opened.convert("RGB")
    if paint:
        picture.paste(paint, (8, 8, 24, 24))
    picture.info = {"parameters": opened.info["parameters"], "receipt": receipt.to_json(about)}
    return save_picture(picture, path)


def word(key, language):
    return TEXTS[key][language == "zh"]


def drop(page, path):
    page.set_input_files("#info-file input[type=file]", path)


def verdict(page, path):
    """What is said of a file that is dropped and verified."""
    drop(page, path)
    page.wait_for_function("!document.querySelector('#info-verdict .gb-verdict')")
    page.click("#info-verify")
    page.wait_for_selector("#info-verdict .gb-verdict-word")
    return page.inner_text("#info-verdict")


def test_a_picture_of_the_page_is_verified_there(visit, tmp_path):
    page = visit()
    page.fill("#prompt textarea", "a red apple")
    page.fill("#steps input", "4")
    page.click("#generate")
    page.wait_for_selector(".gb-done")
    page.wait_for_selector("#gallery img")
    with page.expect_download() as download:
        page.click("#gallery button[aria-label='Download']")
    download.value.save_as(tmp_path / "made.png")
    page.click(f"[role=tab]:has-text('{word('tab_info', 'en')}')")
    said = verdict(page, tmp_path / "made.png")
    assert word("verdict_identical", "en") in said and page.is_visible("#info-verify")
    assert say("said_identical", "en", steps=4) in said
    assert page.locator("#info-verdict .gb-marks .gb-same").count() == 5
    assert page.locator("#info-verdict .gb-apart, #info-verdict img").count() == 0
    said = verdict(page, changed(tmp_path / "made.png", paint=(255, 0, 255)))
    assert word("verdict_tampered", "en") in said and word("said_tampered_pixels", "en") in said


def test_a_changed_picture_is_told_in_chinese_too(visit, path):
    language = "zh"
    page = visit(language)
    page.click(f"[role=tab]:has-text('{word('tab_info', language)}')")
    before = np.asarray(Image.open(path))
    said = verdict(page, changed(path, paint=(255, 0, 255)))
    assert page.inner_text("#info-verify").strip() == word("verify", language)
    assert word("verdict_tampered", language) in said
    assert word("said_tampered_pixels", language) in said
    share = (before != np.asarray(Image.open(path))).any(-1).mean()
    assert f"{share:.1%}" in said and 0.05 < share < 0.07
    alts = page.eval_on_selector_all("#info-verdict img", "found => found.map(i => i.alt)")
    assert alts == [word("verify_again", language), word("verify_difference", language)]

    # A picture without a receipt is no case, and the verdict before goes.
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.info = {"parameters": opened.info["parameters"]}
    drop(page, save_picture(picture, path.with_name("plain.png")))
    page.wait_for_selector("#info-verify", state="hidden")
    assert word("verify_none", language) in page.inner_text("#info-receipt")
    assert page.locator("#info-verdict .gb-verdict").count() == 0


def test_the_picture_that_it_began_from_is_asked_for(visit, models, path, tmp_path):
    asked = tasks.options("image_to_image", picture=str(path), prompt="blue", seed=1, steps=3)
    *_, result = tasks.stream(models, "image_to_image", asked)
    (made,) = result.save(tmp_path / "made.png")
    page = visit()
    page.click(f"[role=tab]:has-text('{word('tab_info', 'en')}')")
    drop(page, made)
    page.click("#info-verify")
    page.wait_for_selector("#info-verdict [role=alert]")
    assert "It began from a picture" in page.inner_text("#info-verdict")
    page.set_input_files("#info-verify-picture input[type=file]", path)
    page.wait_for_selector("#info-verify-picture img")
    page.click("#info-verify")
    page.wait_for_selector("#info-verdict .gb-verdict-identical")
    assert page.locator("#info-verify-mask").count() == 0


def test_the_endpoint(server, path, tmp_path):
    client = Client(server.url, verbose=False)
    said = client.predict(handle_file(path), None, None, api_name="/verify")
    assert said.startswith("Identical: all 3 steps")
    client.predict(handle_file(path), api_name="/verify")  # the others may be left out
    changed(path, lambda about: about["steps"].reverse())
    said = client.predict(handle_file(path), api_name="/verify")
    assert said.startswith("Departs: the latents differ before the first of 3 steps")
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    with pytest.raises(AppError, match=r"^bare\.png carries no receipt"):
        client.predict(handle_file(tmp_path / "bare.png"), api_name="/verify")


def test_a_verdict_says_the_same_in_both_languages(models, path):
    """Each kind, with its numbers; what comes from the file is escaped."""

    def other(about):
        about["versions"]["<i>torch"] = "<b>1</b>"
        about["steps"][2] = str(fingerprint(models.generate(steps=1, seed=9).latents[0]))

    found = verify.verify(models, changed(path, other))
    assert (found.kind, found.step, found.steps) == ("departs", 2, 3)
    for language in ("en", "zh"):
        page = verdict_view.render_verdict(found, language)
        assert "&lt;i&gt;torch" in page and "&lt;b&gt;1" in page and "<i>t" not in page
        kinds = re.findall('class="gb-(same|apart|open)"', page)
        assert kinds == ["same", "same", "apart", "same"]
        words = unescape(" ".join(verdict_view.verdict_sentences(found, language)))
        assert f"{found.amount:.2g}" in words and "2" in words and "3" in words
    assert set(verdict_view.MARKS) == set(KINDS)


def test_the_device_is_held_while_it_is_made_again(models, path, tmp_path):
    """Who paints waits; closing gives it free; what cannot be is said without waiting."""
    model_cache = ModelCache(models)
    runner = Runner(model_cache)
    verified = verifying.make_verifier(model_cache, runner.on_device, runner.visitors.lora_folder)
    events = verified(str(path), "", picture=None, mask=None)
    assert next(events).same
    painted = threading.Event()

    def draw():
        list(runner.stream({"prompt": "", "steps": 1}, str(tmp_path)))
        painted.set()

    thread = threading.Thread(target=draw)
    thread.start()
    assert not painted.wait(0.5)
    forged = changed(path, lambda about: about["model"].update(name="../x", hash="0"))
    with pytest.raises(InputError, match="which is not here; there is"):
        next(verified(str(forged), ""))
    events.close()
    thread.join()
    assert painted.is_set()
