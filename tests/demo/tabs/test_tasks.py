"""Every task on the page, in headless Chromium: a picture is given, a button pressed, and what the
task promises is looked for in the file that is downloaded. See conftest.py for `visit`."""

import base64

import numpy as np
import pytest
from PIL import Image

from demo.tabs import TABS, TASK_TABS
from demo.texts import TEXTS
from pipeline.images.lab import to_lab

DROP = """([where, name, type, data]) => {
  const carried = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
  carried.items.add(new File([bytes], name, {type}));
  const fall = {dataTransfer: carried, bubbles: true, cancelable: true};
  const place = document.querySelector(where);
  for (const kind of ['dragenter', 'dragover', 'drop']) {
    place.dispatchEvent(new DragEvent(kind, fall));
  }
}"""


@pytest.fixture
def page(visit):
    """A visit that draws with the embedded model, whose pictures are pictures."""
    page = visit(viewport={"width": 1400, "height": 1000})
    page.click("#model input")
    page.click("[role=listbox] [role=option][aria-label^=emoji]")
    page.wait_for_selector(".gb-badge >> text=emoji")
    page.fill("#prompt textarea", "a red apple on a blue background")
    page.fill("#steps input", "3")
    page.fill("#seed textarea, #seed input", "1")
    return page


@pytest.fixture
def given(tmp_path):
    """given(width, height) is the path of a picture with soft colours and fine noise."""

    def draw(width, height):
        small = np.random.default_rng(width).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC))
        noise = np.random.default_rng(height).integers(-3, 4, pixels.shape)
        path = tmp_path / f"{width}x{height}.png"
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(path)
        return path

    return draw


def open_tab(page, key):
    page.click(f"#tab-{key}-button")
    page.wait_for_selector(f"#{key}" if page.query_selector(f"#{key}.gb-go") else f"#tab-{key}")


def upload(page, key, path):
    page.locator(f"#{key}-picture input[type=file]").set_input_files(path)
    page.wait_for_selector("#status >> text=in its place")


def drop(page, where, name, data, kind="image/png"):
    page.evaluate(DROP, [where, name, kind, base64.b64encode(data).decode()])


def draw(page, key, tmp_path):
    """Press the task's button; the file of the picture shown, opened."""
    before = page.input_value("#parameters textarea")
    page.evaluate(
        "document.querySelector('.gb-error')?.classList.remove('gb-error')"
    )  # the last one
    page.click(f"#{key}")
    return drawn(page, before, tmp_path)


def drawn(page, before, tmp_path):
    page.wait_for_function(
        """before => document.querySelector('.gb-error')
          || document.querySelector('.gb-done')
             && document.querySelector('#parameters textarea').value != before""",
        arg=before,
    )
    assert page.query_selector(".gb-error") is None, page.inner_text("#status")
    page.wait_for_selector("#gallery .preview img")
    with page.expect_download() as download:
        page.click("#gallery button[aria-label='Download']")
    path = tmp_path / "drawn.png"
    download.value.save_as(path)
    return Image.open(path)


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def test_image_to_image(page, given, tmp_path):
    open_tab(page, "image_to_image")
    path = given(128, 96)
    upload(page, "image_to_image", path)
    page.fill("#steps input", "30")  # even at 0 the last step is taken; of many it is a small one
    page.fill("#image_to_image-strength input[type=number]", "0")
    kept = draw(page, "image_to_image", tmp_path)
    assert kept.size == (128, 96)
    off = np.abs(pixels(kept) - pixels(Image.open(path))).mean()
    page.fill("#image_to_image-strength input[type=number]", "1")
    changed = draw(page, "image_to_image", tmp_path)
    assert off < 25 < np.abs(pixels(changed) - pixels(Image.open(path))).mean()
    assert "Denoising strength: 1," in changed.info["parameters"]

    page.click("#compare-open")
    page.wait_for_selector("#compare img")
    page.uncheck("#own_size input")
    page.fill("#width input", "64")
    page.fill("#height input", "64")
    assert draw(page, "image_to_image", tmp_path).size == (64, 64)
    page.wait_for_selector("#compare", state="detached")


def test_what_is_painted_over_is_repainted_and_nothing_else(page, given, tmp_path):
    open_tab(page, "inpaint")
    path = given(128, 128)
    drop(page, "#prompt textarea", "dropped.png", path.read_bytes())
    page.wait_for_selector("#inpaint-painted canvas")
    page.wait_for_selector("#inpaint-painted >> text=/\\d+%/")
    page.click("#inpaint")
    page.wait_for_selector(".gb-error >> text=nothing to repaint")

    page.locator("#inpaint-painted").scroll_into_view_if_needed()
    canvas = page.locator("#inpaint-painted canvas").first.bounding_box()
    zoom = int(page.locator("#inpaint-painted >> text=/^\\d+%$/").inner_text()[:-1]) / 100
    middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(middle[0] - 20 * zoom, middle[1])
    page.mouse.down()
    page.mouse.move(middle[0] + 20 * zoom, middle[1], steps=3)
    page.mouse.up()
    image = draw(page, "inpaint", tmp_path)
    rows, columns = np.nonzero((pixels(image) != pixels(Image.open(path))).any(-1))
    assert image.size == (128, 128)
    # The stroke goes from 44 to 84 in the middle; the brush is a sixteenth of the picture thick.
    assert 30 < columns.min() < 50 and 78 < columns.max() < 98
    assert 48 < rows.min() < 64 < rows.max() < 80
    assert len(rows) > 200

    page.click("#inpaint-other")
    page.wait_for_selector("#inpaint-picture [data-testid=upload-text]")
    page.click("#inpaint")
    page.wait_for_selector(".gb-error >> text=give a picture")


def test_drawn_large_then_sent_on_and_enlarged(page, tmp_path):
    open_tab(page, "hires")
    page.fill("#width input", "64")
    page.fill("#height input", "64")
    page.press("#prompt textarea", "Enter")
    image = drawn(page, "", tmp_path)
    assert image.size == (128, 128)
    assert "Hires upscale: 2" in image.info["parameters"]

    page.click("#gallery-to-upscale")
    page.wait_for_selector("#upscale-picture img")
    assert page.is_visible("#upscale") and not page.is_visible("#hires")
    assert not page.is_visible("#width")
    image = draw(page, "upscale", tmp_path)
    assert image.size == (256, 256)
    assert "Upscale: 2" in image.info["parameters"]


def test_colours_keep_the_lightness(page, given, tmp_path):
    """The picture is dropped into PNG info, which reads its text, and sent on from there."""
    page.fill("#width input", "96")
    image = draw(page, "generate", tmp_path)
    open_tab(page, "info")
    drop(page, "#info-text textarea", "apple.png", (tmp_path / "drawn.png").read_bytes())
    page.wait_for_selector("#info-picture img")
    page.click("#info-to-colorize")
    page.wait_for_selector("#colorize-picture img")
    assert page.is_visible("#colorize")
    page.fill("#prompt textarea", "a green apple on a pink background")
    image.load()
    coloured = draw(page, "colorize", tmp_path)
    assert coloured.size == image.size == (96, 128)
    lightness = [to_lab(np.asarray(i.convert("RGB")))[..., 0] for i in (image, coloured)]
    assert np.abs(lightness[0] - lightness[1]).max() <= 0.5
    assert not np.array_equal(pixels(image), pixels(coloured))


def test_a_grid_is_a_sheet_and_its_pictures(page, tmp_path):
    open_tab(page, "grid")
    assert not page.is_visible("#count")
    page.fill("#width input", "64")
    page.fill("#height input", "64")
    page.fill("#grid-x textarea, #grid-x input", "2, 4, 6")
    page.click("#grid-y-name input")
    page.click("[role=listbox] [role=option][aria-label=Steps]")
    page.wait_for_selector("#grid-y [placeholder='5-20 (+5)']")
    page.fill("#grid-y textarea, #grid-y input", "1-2")
    sheet = draw(page, "grid", tmp_path)
    assert sheet.width > 3 * 64 and sheet.height > 2 * 64
    assert page.locator("#gallery .thumbnails button").count() == 1 + 3 * 2

    page.fill("#grid-x textarea, #grid-x input", "2, hot")
    page.click("#grid")
    page.wait_for_selector(".gb-error >> text=/axis x.*hot/")


@pytest.mark.quick
def test_a_file_that_is_no_picture_is_refused_at_once_and_nothing_is_lost(page):
    prompt = page.input_value("#prompt textarea")
    open_tab(page, "image_to_image")
    bad = {"name": "bad.png", "mimeType": "image/png", "buffer": b"hello"}
    page.locator("#image_to_image-picture input[type=file]").set_input_files(bad)
    page.wait_for_selector(".gb-error >> text=bad.png is no PNG")
    page.wait_for_selector("#image_to_image-picture [data-testid=upload-text]")
    assert "/tmp" not in page.inner_text("#status")
    page.click("#tab-inpaint-button")
    drop(page, "body", "worse.png", b"\x89PNG\r\n\x1a\nhello")
    page.wait_for_selector(".gb-error >> text=worse.png")
    drop(page, "#gallery", "note.txt", b"hello", "text/plain")
    page.wait_for_selector(".toast-body >> text=note.txt")
    assert page.input_value("#prompt textarea") == prompt
    assert page.is_visible("#inpaint")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_tab_fits_a_narrow_screen_in_its_language(visit, language):
    page = visit(language, viewport={"width": 390, "height": 844})
    for key in TABS:
        page.click(f"#tab-{key}-button")
        page.wait_for_selector(f"#tab-{key}[style*=flex]", state="attached")
        name = TEXTS[f"tab_{key}"][language == "zh"]
        assert page.inner_text("#tabs [role=tab][aria-selected=true]") == name
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        shown = [b.inner_text() for b in page.locator(".gb-go").all() if b.is_visible()]
        assert shown == ([TEXTS[key][language == "zh"]] if key in TASK_TABS else [])
