"""From zero, chapters one to three in headless Chromium: the numbers on the page are true."""

from __future__ import annotations

import base64
import io
import json
import math
import re

import pytest
import torch
from PIL import Image

from demo.tabs.from_zero import chapter_html, training
from demo.tabs.from_zero.chapters import CHAPTERS
from pipeline.introspection.clip import Clip, contrastive_loss
from pipeline.latents.noise import alphas_cumprod
from pipeline.model_files.library import EMBEDDED


@pytest.fixture
def chapter(visit):
    """A function chapter(key, language) that opens the page at a chapter and returns the page."""

    def open_chapter(key, language="en"):
        page = visit(language)
        page.get_by_role("tab", name={"en": "From zero", "zh": "从零讲起"}[language]).click()
        page.click(f"#zero-{key}-button")
        page.wait_for_selector(f"#zero-{key}:visible")
        return page

    return open_chapter


def numbers(text: str) -> list[float]:
    return [float(n.replace(",", "")) for n in re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)]


def picture(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))


def test_every_chapter_ends_with_its_code(chapter):
    page = chapter("latents")
    for key in CHAPTERS:
        page.click(f"#zero-{key}-button")
        page.wait_for_selector(f"#zero-{key} .gb-prose:visible")
    page.click("#zero-latents-button")
    page.click("#zero-latents summary >> nth=0")
    code = page.inner_text("#zero-latents .gb-places pre >> nth=0")
    assert "def encode(vae: Any, pixels" in code and "latent_dist.mode()" in code
    page.click("#zero-to-words")
    page.wait_for_selector("#zero-words:visible")
    assert page.foreign == []


def test_source_is_the_file_at_that_line():
    line, code = chapter_html.read_source("pipeline/introspection/clip.py", "Clip.embed_texts")
    lines = (
        (chapter_html.ROOT / "pipeline/introspection/clip.py")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    assert lines[line - 1 : line - 1 + len(code.splitlines())] == code.splitlines()
    assert "def embed_texts" in code and code.rstrip().endswith("dim=-1)")


def test_a_picture_becomes_48_times_fewer_numbers(chapter, tiny_model):
    page = chapter("latents")
    page.click("#zero-draw")
    page.wait_for_selector("#zero-latents-status .gb-done")
    text = page.inner_text("#zero-counted").replace("Stable Diffusion 1,", "")
    pixels, count, times, side, other, sd1_pixels, sd1_count, sd1_times = numbers(text)
    depth, high, wide, product = numbers(
        re.search(r"Latents: (.+?)\. ", page.inner_text("#zero-latents-view"))[1]
    )
    assert count == product == depth * high * wide
    assert pixels == 3 * 8 * high * 8 * wide
    assert times == sd1_times == pixels / count == 48
    assert side == other == 512
    assert (sd1_pixels, sd1_count) == (3 * 512 * 512, 4 * 64 * 64)
    planes = page.locator("#zero-latents-view .gb-planes img")
    assert planes.count() == depth
    first = picture(planes.first.get_attribute("src"))
    assert first.size == (wide, high) and first.getextrema() == (0, 255)

    # The formula's numbers are the model's own, wherever the slider is.
    config = json.loads((tiny_model / "scheduler" / "scheduler_config.json").read_text())
    alphas, positions = alphas_cumprod(config), []
    slider = page.locator("#zero-noise input[type=range]")
    slider.focus()
    for key in ("Home", "ArrowRight", "PageUp", "End"):
        page.keyboard.press(key)
        t, a, b = (
            float(page.inner_text(f"#zero-noise .gb-filled [data-is={name}] >> nth=0"))
            for name in ("t", "a", "b")
        )
        assert f"t = {t:.0f}" == page.inner_text("#zero-noise output")
        assert a == pytest.approx(float(alphas[int(t)]) ** 0.5, abs=6e-5)
        assert a * a + b * b == pytest.approx(1, abs=2e-4)
        positions.append((t, page.get_attribute("#zero-noise img[data-is=x]", "src")))
    assert positions[0][0] == 0 and positions[-1][0] == len(alphas) - 1
    assert len(set(positions)) == len(positions)


def test_an_own_picture_is_encoded_and_what_is_none_is_refused(chapter, tmp_path):
    page = chapter("latents", "zh")
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "own.png")
    page.set_input_files("#zero-picture input[type=file]", str(tmp_path / "own.png"))
    page.wait_for_selector("#zero-latents-status .gb-done")
    first = picture(page.get_attribute("#zero-latents-view img >> nth=0", "src")).convert("L")
    top, bottom = (first.crop((0, y, first.width, y + 1)).resize((1, 1)) for y in (0, 63))
    assert top.getpixel((0, 0)) < 20 < 230 < bottom.getpixel((0, 0))
    (tmp_path / "none.png").write_text("no picture")
    page = chapter("latents")
    page.set_input_files("#zero-picture input[type=file]", str(tmp_path / "none.png"))
    page.wait_for_selector("#zero-latents-status .gb-error")
    assert "none.png" in page.inner_text("#zero-latents-status")


def table(page) -> torch.Tensor:
    return torch.tensor(
        [
            [float(cell.inner_text()) for cell in row.query_selector_all("td b")]
            for row in page.query_selector_all("#zero-similar tbody tr")
        ]
    )


def test_the_table_of_texts_and_pictures_is_what_the_towers_say(chapter, server):
    """The loaded model has no image encoder, so the chapter uses the embedded model's CLIP."""
    page = chapter("words")
    lines = ["a red apple", "蓝色背景上的猫"]
    page.fill("#zero-sentences textarea", "\n".join(lines))
    page.click("#zero-draw-all")
    page.wait_for_selector("#zero-words-status .gb-done")
    clip = Clip.load(EMBEDDED / "emoji")
    columns = [
        picture(image.get_attribute("src"))
        for image in page.query_selector_all("#zero-similar thead img")
    ]
    vectors = clip.embed_pictures(columns)
    expected = clip.embed_texts(lines) @ vectors.T
    assert table(page).shape == (2, 2)
    torch.testing.assert_close(table(page), expected, atol=6e-4, rtol=0)
    loss, guess = numbers(page.inner_text("#zero-loss-now"))[1:]
    assert loss == pytest.approx(contrastive_loss(expected, clip.scale), abs=6e-4)
    assert guess == pytest.approx(math.log(2), abs=6e-4)
    shape = page.inner_text("#zero-context-shape")
    assert "1 × 77 × 192 = 14,784" in shape and "1 × 77 × 32" in shape
    assert page.inner_text(".gb-pieces").split("\n")[1:-1] == ["a", "red", "apple"]

    # Other sentences to the same pictures, as they are typed.
    lines = ["红苹果", "a rocket", "a cat on a blue background"]
    page.fill("#zero-sentences textarea", "\n".join(lines))
    page.wait_for_selector("#zero-similar tbody th:has-text('a rocket')")
    torch.testing.assert_close(table(page), clip.embed_texts(lines) @ vectors.T, atol=6e-4, rtol=0)
    page.wait_for_selector("#zero-loss:has-text('draw them again')")
    page.fill("#zero-sentences textarea", "alone")
    page.wait_for_selector("#zero-words-status .gb-error:has-text('two to 6')")


def test_every_block_of_the_own_run_shows_its_shape(chapter):
    page = chapter("unet")
    page.click("#zero-u-draw")
    page.wait_for_selector("#zero-u-status .gb-done")
    blocks = {
        block.query_selector("b").inner_text(): block.query_selector("code").inner_text()
        for block in page.query_selector_all("#zero-u .gb-block")
    }
    side = int(page.input_value("#width input")) // 8 if page.query_selector("#width input") else 8
    assert blocks["conv_in"] == f"16 × {side} × {side}"
    assert blocks["mid_block"] == f"32 × {side // 2} × {side // 2}"
    assert blocks["conv_out"] == f"4 × {side} × {side}"
    words = page.inner_text("#zero-u .gb-mid .gb-tag-w")
    assert numbers(words) == [(side // 2) ** 2, 32, 77, 32]
    last = page.get_attribute("#zero-u img[data-is=mid_block]", "src")
    assert picture(last).width % (side // 2) == 0
    page.locator("#zero-u input[type=range]").focus()
    page.keyboard.press("Home")
    assert page.inner_text("#zero-u output").startswith("Step 1 of")
    assert page.get_attribute("#zero-u img[data-is=mid_block]", "src") != last


def test_one_visitor_trains_at_a_time_and_may_stop(chapter, server):
    first, second = chapter("unet"), chapter("unet", "zh")
    first.click("#zero-train")
    first.wait_for_selector("#zero-train-view img")
    second.click("#zero-train")
    second.wait_for_selector("#zero-train-status .gb-error:has-text('别人正在训练')")
    second.click("#zero-train-stop")  # it is not the second's
    first.wait_for_function(
        """() => {
          const caption = document.querySelector('#zero-train-view .gb-loss figcaption');
          const [from, to] = (caption?.textContent.match(/\\d+\\.\\d+/g) || []).map(Number);
          return to < 0.8 * from;
        }"""
    )
    before, now = (
        float(re.search(r"\d\.\d+", text)[0])
        for text in first.locator("#zero-train-view figcaption").all_inner_texts()[:2]
    )
    assert now < before
    sheets = first.locator("#zero-train-view img")
    assert picture(sheets.first.get_attribute("src")).size == (96, 64)
    assert sheets.first.get_attribute("src") != sheets.last.get_attribute("src")
    first.click("#zero-train-stop")
    first.wait_for_selector("#zero-train-status .gb-stopped")
    steps = numbers(first.inner_text("#zero-train-status"))[0]
    assert steps > 0
    second.click("#zero-train")
    second.wait_for_selector("#zero-train-view img")
    second.close()  # whoever leaves makes room
    for _ in range(60):  # until the server has noticed
        first.click("#zero-train")
        first.wait_for_selector("#zero-train-status :is(.gb-error, .gb-running)")
        first.click("#zero-train-stop")  # before there is anything to see
        first.wait_for_selector("#zero-train-status :is(.gb-error, .gb-stopped)")
        if first.query_selector("#zero-train-status .gb-stopped"):
            break
        first.wait_for_timeout(500)
    assert first.query_selector("#zero-train-status .gb-stopped")


def test_a_training_that_breaks_is_an_error_and_one_that_is_stopped_is_not(monkeypatch):
    monkeypatch.setattr(training.sys, "executable", "/bin/false")
    broken = training.Training(1)
    with pytest.raises(RuntimeError, match="ended before its time"):
        list(broken.reports())
    monkeypatch.undo()
    stopped = training.Training(60)
    stopped.stop()
    assert list(stopped.reports()) == []
    assert stopped.process.returncode is not None
