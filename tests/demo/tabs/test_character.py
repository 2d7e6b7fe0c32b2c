"""The Character tab in headless Chromium: trained on the page, stopped, gone on with, used."""

import re

import pytest
from gradio_client import Client, handle_file
from PIL import Image, ImageDraw
from safetensors import safe_open

from demo.tabs.character.training import train
from demo.ui.loss_curve import HEIGHT, loss_curve
from pipeline.errors import InputError
from pipeline.metadata import infotext

PATIENCE = 60_000  # milliseconds


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawings")
    for i, ground in enumerate(("navy", "white", "green")):
        image = Image.new("RGB", (80, 80), ground)
        ImageDraw.Draw(image).ellipse((10 + 5 * i, 20, 60 + 5 * i, 70), fill="purple")
        image.save(folder / f"{i}.png")
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="module")
def page(server, browser):
    page = browser.new_page(locale="en-US")
    page.set_default_timeout(PATIENCE)
    page.goto(server.url)
    page.wait_for_selector("#generate:has-text('Generate')")
    page.get_by_role("tab", name="Character").click()
    yield page
    page.close()


def fill(page, **fields):
    for name, value in fields.items():
        page.fill(f"#character-{name} :is(input, textarea)", value)


def status(page, words):
    found = page.locator("#character-status").get_by_text(re.compile(words))
    found.first.wait_for()
    return page.inner_text("#character-status")


def test_without_pictures_one_sentence(page):
    fill(page, name="zog", prompt="zog the blob")
    page.click("#character-go")
    assert "There are no pictures" in status(page, "There are no pictures")


def test_trained_on_the_page_and_used_in_the_prompt(page, drawings, server):
    page.set_input_files("#character-images input[type=file]", [str(d) for d in drawings])
    page.wait_for_selector('#character-images [aria-label="2.png"]')
    fill(page, name="zog", prompt="zog the blob", steps="8", rank="2")
    page.click("#character-go")
    said = status(page, "Learned")
    assert "<lora:zog:0.8>" in said and "Loss from" in said
    assert page.locator("#character-view img").count() == 1
    assert "zog-kohya" in page.inner_text("#character-files").replace("\n", "")
    page.click("#character-use")
    page.wait_for_selector("#prompt textarea:visible")
    assert page.input_value("#prompt textarea") == "zog the blob <lora:zog:0.8>"
    client = Client(server.url, verbose=False)
    _, text = client.predict(
        prompt="zog the blob <lora:zog:0.8>", steps=1, seed=1, api_name="/generate"
    )
    assert infotext.parse(text)["Lora hashes"].startswith("zog: ")


def test_clients_train_too(server, drawings, tmp_path):
    client = Client(server.url, verbose=False, download_files=tmp_path)
    fields = {"name": "blob two", "prompt": "zig", "steps": 3, "rank": 2}
    images = [handle_file(d) for d in drawings]
    files, use = client.predict(images=images, **fields, api_name="/train_lora")
    assert use == "zig <lora:blob two:0.8>"
    names = []
    for file in files:
        with safe_open(file, "pt") as opened:
            names.append(next(iter(opened.keys())))
    assert any(".lora_" in n for n in names) and any(n.startswith("lora_unet_") for n in names)
    with pytest.raises(Exception, match="is taken"):
        client.predict(images=images, **fields, api_name="/train_lora")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "There is no name"),
        ({"name": "x"}, "There is no prompt"),
        ({"name": "x", "prompt": "y"}, "There are no pictures"),
        ({"name": "x", "prompt": "y", "images": ["a"] * 51}, "at most 50"),
        ({"name": "x", "prompt": "y", "images": ["a"], "steps": "1e9"}, "whole number"),
        ({"name": "x", "prompt": "y", "images": ["a"], "steps": "3000"}, "at most 2000"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_loaded(given, words):
    with pytest.raises(InputError, match=words):
        next(train(None, given))


def test_the_curve_falls_as_the_loss_does():
    drawn = loss_curve([1.0, 0.5, 0.25], "en")
    heights = [float(p.split(",")[1]) for p in re.search('points="([^"]+)"', drawn)[1].split()]
    assert heights == sorted(heights) and heights[0] == 0 and heights[-1] == HEIGHT
    assert "from 1.000 to 0.250" in drawn
    assert loss_curve([1.0], "en") == ""
