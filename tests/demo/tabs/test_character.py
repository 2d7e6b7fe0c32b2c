"""The Character tab in headless Chromium: trained on the page, stopped, gone on with, used."""

import re
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from PIL import Image, ImageDraw
from safetensors import safe_open

import demo
from demo.limits import Limits
from demo.server.visitors import COOKIE, MB, Visitors
from demo.tabs.character.training import train
from demo.ui.loss_curve import HEIGHT, loss_curve
from pipeline import load
from pipeline.errors import InputError
from pipeline.metadata import infotext
from pipeline.model_cache import ModelCache

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
    token = next(c for c in page.context.cookies() if c["name"] == COOKIE)["value"]
    asked = {"prompt": "zog the blob <lora:zog:0.8>", "steps": 1, "seed": 1}
    client = Client(server.url, verbose=False, headers={"Cookie": f"{COOKIE}={token}"})
    _, text = client.predict(**asked, api_name="/generate")
    assert infotext.parse(text)["Lora hashes"].startswith("zog: ")
    stranger = Client(server.url, verbose=False)
    _, text = stranger.predict(**asked, api_name="/generate")
    assert "Lora hashes" not in infotext.parse(text)


def test_the_browser_finds_its_lora_again_after_a_reload_and_another_does_not(page, browser):
    page.reload()
    other = browser.new_page(locale="en-US")
    other.goto(page.url)
    for opened, there in ((page, True), (other, False)):
        opened.wait_for_selector("#generate:has-text('Generate')")
        opened.get_by_role("tab", name="Generate").click()
        opened.click("#lora input")
        choices = opened.locator("#lora [role=option]")
        choices.first.wait_for()
        names = [text.strip(" ✓\n") for text in choices.all_inner_texts()]
        assert any(name.startswith("soft light") for name in names)
        assert any(name.startswith("zog") for name in names) == there
    other.close()
    page.get_by_role("tab", name="Character").click()


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
    with pytest.raises(Exception, match="is taken") as error:
        client.predict(images=images, **fields, api_name="/train_lora")
    assert "visitors" not in str(error.value)
    text = client.predict(prompt=use, steps=1, seed=1, api_name="/generate")[1]
    assert infotext.parse(text)["Lora hashes"].startswith("blob two: ")


def test_a_stranger_is_told_nothing_and_may_take_the_same_name(server, drawings, tmp_path):
    """One visitor's training, stopped and done, and all that another can ask about it."""
    images = [handle_file(d) for d in drawings]
    owner, stranger = (Client(server.url, verbose=False, download_files=tmp_path) for _ in "ab")
    given = {"images": images, "steps": 2, "rank": 2, "api_name": "/train_lora"}
    owner.predict(name="secret", prompt="my secret prompt", **given)
    _, use = stranger.predict(name="secret", prompt="another", resume=True, **given)
    assert use == "another <lora:secret:0.8>"
    asked = {"prompt": "a <lora:SECRET:1> b", "steps": 1, "seed": 3, "api_name": "/generate"}
    texts = [c.predict(**asked)[1] for c in (owner, stranger)]
    hashes = [infotext.parse(text)["Lora hashes"] for text in texts]
    assert hashes[0] != hashes[1]
    nobody = Client(server.url, verbose=False)
    assert "Lora hashes" not in infotext.parse(nobody.predict(**asked)[1])


def test_where_nobody_may_train_both_tab_and_client_are_told_why(
    fake_models, fake_model_cache, drawings, browser, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    page = demo.build(fake_model_cache(fake_models()), limits=Limits(allow_training=False))
    url = demo.serve(page)[1]
    try:
        client = Client(url, verbose=False)
        given = {"images": [handle_file(drawings[0])], "name": "x", "prompt": "y"}
        with pytest.raises(Exception, match=r"does not train.*--allow-training"):
            client.predict(**given, api_name="/train_lora")
        for locale, words in (("en-US", "does not train"), ("zh-CN", "不提供训练")):
            opened = browser.new_page(locale=locale)
            opened.goto(url)
            opened.get_by_role("tab", name=re.compile("Character|角色")).click()
            opened.locator("#character-off").get_by_text(words).wait_for()
            assert opened.is_disabled("#character-go")
            opened.close()
        assert not Path("runs").exists()
    finally:
        page.close(verbose=False)


@pytest.fixture
def limited(tiny_model, tmp_path, monkeypatch):
    """A function that trains for a visitor under limits and returns the last event."""
    monkeypatch.chdir(tmp_path)
    cache = ModelCache(load(tiny_model, device="cpu"))

    def run(visitors, visitor="browser x", **more):
        given = {"name": "zog", "prompt": "zog", "steps": 2, "rank": 2} | more
        return list(train(cache, visitors, visitor, given))[-1]

    return run


def test_the_disk_fills_up_to_the_quota_and_the_sentence_names_what_fits(limited, drawings):
    visitors = Visitors(Limits(training_disk_visitor_mb=1, training_hours=5))
    with pytest.raises(InputError, match=r"takes up to 7 MB .* 1 MB are left .* a rank of ") as e:
        limited(visitors, images=drawings, rank=256)
    rank = int(re.search(r"a rank of (\d+) fits", str(e.value))[1])
    assert limited(visitors, images=drawings, rank=rank, steps=1).path.exists()
    assert not list(Path("runs").rglob("checkpoint-*"))
    count = 0
    with pytest.raises(InputError, match="deleted when nothing has used them for 5 hours"):
        for count in range(100):
            limited(visitors, images=drawings, name=f"zog{count}", rank=1, steps=1)
    assert 1 < count < 20
    assert sum(p.stat().st_size for p in Path("runs").rglob("*") if p.is_file()) < MB
    assert limited(visitors, "browser y", images=drawings, rank=1).path.exists()


def test_shared_trainings_are_everybodys(limited, drawings):
    visitors = Visitors(Limits(shared_training=True))
    end = limited(visitors, "browser x", images=drawings)
    assert end.path == Path("models/lora/zog.safetensors")
    with pytest.raises(InputError, match=r"The name zog is taken: runs/lora/zog holds a run"):
        limited(visitors, "browser y", images=drawings)
    assert limited(visitors, "browser y", images=drawings, steps=3, resume=True).steps == 3


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
        next(train(None, Visitors(), "browser x", given))


def test_the_curve_falls_as_the_loss_does():
    drawn = loss_curve([1.0, 0.5, 0.25], "en")
    heights = [float(p.split(",")[1]) for p in re.search('points="([^"]+)"', drawn)[1].split()]
    assert heights == sorted(heights) and heights[0] == 0 and heights[-1] == HEIGHT
    assert "from 1.000 to 0.250" in drawn
    assert loss_curve([1.0], "en") == ""
