"""Look inside in headless Chromium, on numbers that the page shows and pixels that it draws."""

import base64
import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from gradio_client import Client
from PIL import Image

from demo.tabs.inside import frame_server
from demo.tabs.inside.frame_server import FrameServer
from demo.tabs.inside.handlers import CHANGES
from demo.tabs.inside.tree import add_picture, describe_change
from demo.tabs.inside.view import describe_picture
from demo.texts import TEXTS
from pipeline import GenerateOptions, load
from pipeline.introspection import decoded_views
from pipeline.introspection.branch import BranchRun
from pipeline.introspection.recording import Recorder, RecordingStore, plain_options
from pipeline.introspection.recording_file import open_tree
from pipeline.introspection.word_maps import average_word_maps
from pipeline.latents import vae
from pipeline.metadata import infotext
from pipeline.model_cache import ModelCache

PROMPT = "red apple"


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(str(tiny_model), device="cpu", dtype="fp32")


@pytest.fixture(scope="module")
def recording(models):
    asked = GenerateOptions(prompt=PROMPT, seed=7, steps=4, cfg=3.0, sampler="euler")
    recorder = Recorder(models, models.stream(asked, words=True))
    list(recorder)
    return recorder.recordings[0]


def branched(models, recording, step, **changes):
    recorder = BranchRun(models, recording, step, changes)
    list(recorder)
    return recorder.recordings[0]


# ---- what the browser is told -------------------------------------------------------------------


def test_the_description_has_every_call_as_it_was(recording):
    told = json.loads(describe_picture(recording, {}, "en"))
    assert told["kinds"] == list(decoded_views.KINDS) and told["steps"] == 4
    assert [c[0] for c in told["calls"]] == [0, 1, 2, 3]
    assert [c[2] for c in told["calls"]] == [m.sigma for m in recording.calls]
    assert told["words"] == [["red", "apple"]]
    assert told["grids"] == [list(g.shape[1:]) for g in recording.calls[0].grids]


def test_without_guidance_there_is_none_to_look_at(models):
    options = GenerateOptions(steps=1, seed=1, cfg=1.0)
    recorder = Recorder(models, models.stream(options, words=True))
    list(recorder)
    told = json.loads(describe_picture(recorder.recordings[0], {}, "zh"))
    assert told["kinds"] == ["clean", "latents", "noise"]


@pytest.mark.parametrize("kind", decoded_views.KINDS)
def test_a_frame_is_what_the_autoencoder_makes_of_it(models, recording, kind):
    call = recording.calls[2]
    alpha = 1 / math.sqrt(1 + call.sigma**2)
    cond, uncond = (
        (call.latents - call.sigma * alpha * output) / alpha
        for output in (call.answer.cond, call.answer.uncond)
    )
    told = {"clean": call.clean, "latents": call.latents, "cond": cond, "uncond": uncond}
    told["noise"] = call.answer.output  # this model predicts noise
    if kind == "guidance":
        sides = (vae.decode(models.vae, x) for x in (cond, uncond))
        expected = ((next(sides) - next(sides)) / 2 + 0.5).clamp(0, 1)
    else:
        expected = vae.decode(models.vae, told[kind])
    image = decoded_views.decode_view(models, call, kind, "epsilon")
    off = np.abs(np.asarray(image, int) - np.asarray(vae.to_image(expected), int))
    assert off.max() <= 1


def frame_server_of(models, *recordings):
    kept = RecordingStore()
    kept.put(recordings)
    return FrameServer(ModelCache(models), kept)


def test_the_eye_gives_frames_once_decoded_and_sentences(models, recording, monkeypatch):
    frames = frame_server_of(models, recording)
    asked = {"key": recording.key, "call": 1, "kind": "clean"}
    first = frames.frame(asked)["url"]
    picture = Image.open(io.BytesIO(base64.b64decode(first.split(",")[1])))
    assert picture.size == recording.image.size
    monkeypatch.setattr(decoded_views, "decode_view", lambda *a: pytest.fail("it was there"))
    assert frames.frame(asked)["url"] == first
    monkeypatch.undo()
    assert "no call 9" in frames.frame(asked | {"call": 9})["error"]
    assert "no view 'x'" in frames.frame(asked | {"kind": "x"})["error"]
    assert frames.frame(asked | {"key": "other"}) == {"evicted": "yes"}
    assert frames.maps({"key": "other", "call": 0}) == {"evicted": "yes"}
    for nonsense in (None, {}, {"key": recording.key, "call": "x", "kind": 1}, [1]):
        assert "error" in frames.frame(nonsense) and "error" in frames.maps(nonsense)
    frames.recordings.put([replace(recording, model=("tiny", "0000000000", None))])
    assert "0000000000" in frames.frame(asked | {"call": 2})["error"]


def test_the_cache_of_frames_is_bounded(models, recording, monkeypatch):
    monkeypatch.setattr(frame_server, "CACHE_CHARACTERS", 40_000)
    frames = frame_server_of(models, recording)
    for call in range(4):
        for kind in decoded_views.KINDS:
            assert "url" in frames.frame({"key": recording.key, "call": call, "kind": kind})
            urls = frames._urls
            assert urls.size == sum(map(len, urls._entries.values()))
            assert urls.size <= 40_000 or len(urls._entries) == 1


def test_word_maps_are_sent_in_255_parts_of_their_peak(models, recording):
    frames = frame_server_of(models, recording)
    for call in (0, 3, -1):
        found = frames.maps({"key": recording.key, "call": call})["grids"]
        for grid, expected in zip(found, average_word_maps(recording, call), strict=True):
            assert grid["size"] == list(expected.shape[1:])
            raw = np.frombuffer(base64.b64decode(grid["data"]), np.uint8)
            got = torch.tensor(raw.astype(np.float32)).view(expected.shape) / 255 * grid["peak"]
            assert (got - expected).abs().max() <= grid["peak"] / 500


def test_a_tree_grows_and_names_what_changed(models, recording):
    one = branched(models, recording, 1, cfg=6.5, sampler="heun")
    tree = add_picture(add_picture({}, recording), one)
    assert list(tree) == [recording.key, one.key]
    node = tree[one.key]
    assert (node.parent, node.at, node.change) == (
        recording.key,
        1,
        {"sampler": "heun", "cfg": 6.5},
    )
    assert describe_change(node.change, "en") == "Sampler: Heun, Guidance: 6.5"
    assert describe_change({}, "zh") == TEXTS["inside_nothing"][1]
    assert tree[recording.key].lineage == (plain_options(recording.options),)
    assert len(node.lineage) == 2
    assert list(add_picture(tree, recording)) == [recording.key]  # another picture, another tree


def test_every_field_of_a_branch_has_its_words():
    for name in (*CHANGES, "schedule", "cfg_rescale"):
        assert f"inside_{name}" in TEXTS


# ---- in the browser -----------------------------------------------------------------------------


def draw(page, prompt=PROMPT, seed="7", steps="4", sampler=None):
    page.fill("#prompt textarea", prompt)
    page.fill("#seed :is(input, textarea)", seed)
    page.fill("#steps input", steps)
    page.click("#generate")
    page.wait_for_selector(".gb-done")


def look(page):
    page.click("#look")
    page.wait_for_selector(".gbi-frame img.gbi-a[src^='data:']")


def give(page, file):
    with page.expect_file_chooser() as chooser:
        page.click("#inside-import")
    chooser.value.set_files(str(file))


def shown(page):
    """The picture in the frame, as pixels."""
    url = page.get_attribute(".gbi-frame img.gbi-a", "src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))), float)


def step_to(page, call):
    slider = page.locator(".gbi-main .gbi-slider")
    slider.fill(str(call))
    slider.dispatch_event("change")
    page.wait_for_function(
        f"document.querySelector('.gbi-a')?.dataset.shown?.endsWith('/{call}/' +"
        " document.querySelector('.gbi-kinds [aria-checked=true]')?.dataset.kind)"
    )


def test_steps_words_and_branches_of_a_picture(visit, server, models, tmp_path):
    page = visit("en")
    draw(page)
    text = page.input_value("#parameters textarea")
    look(page)
    # Steps: the numbers are those of the same request made here, the pixels those of its frames.
    given = infotext.parse(text)
    asked = GenerateOptions(
        prompt=PROMPT, seed=7, steps=4, sampler=given["Sampler"], cfg=float(given["CFG scale"])
    )
    recorder = Recorder(models, models.stream(asked, words=True))
    list(recorder)
    same = recorder.recordings[0]
    assert "Step 4 / 4" in page.inner_text(".gbi-where")
    for call, kind in ((3, "clean"), (1, "clean"), (1, "latents"), (0, "noise"), (2, "guidance")):
        page.click(f".gbi-kinds [data-kind={kind}]")
        step_to(page, call)
        call = same.calls[call]
        assert float(page.get_attribute(".gbi-where [data-sigma]", "data-sigma")) == call.sigma
        assert float(page.get_attribute(".gbi-where [data-time]", "data-time")) == call.t
        wanted = np.asarray(
            decoded_views.decode_view(models, call, kind, same.origin.prediction), float
        )
        assert np.abs(shown(page) - wanted).max() <= 1, (call, kind)
    assert page.input_value("#inside-at input") == "3"
    # Two steps, a line between them.
    page.check(".gbi-compare")
    page.locator(".gbi-second .gbi-slider").fill("0")
    page.wait_for_function("document.querySelector('.gbi-b')?.dataset.shown?.includes('/0/')")
    page.locator(".gbi-divider").fill("30")
    assert "30%" in page.get_attribute(".gbi-b", "style")
    assert page.inner_text(".gbi-tag-b") == "1"
    page.uncheck(".gbi-compare")
    # Words: pointing at one darkens the picture where it does not look.
    page.click(".gbi-kinds [data-kind=clean]")
    page.hover(".gbi-word >> nth=1")
    page.wait_for_function("document.querySelector('.gbi-veil')?.width > 0")
    light = page.evaluate(
        """() => { const c = document.querySelector('.gbi-veil');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, n = 8, out = [];
        for (let y = 0; y < n; y++) for (let x = 0; x < n; x++)
          out.push(d[4 * (Math.floor((y + .5) * c.height / n) * c.width
                          + Math.floor((x + .5) * c.width / n)) + 3]);
        return out; }"""
    )
    wanted = same.calls[2].maps[1].float().flatten().numpy()
    assert np.corrcoef(255 - np.array(light), wanted)[0, 1] > 0.95
    box = page.locator(".gbi-frame").bounding_box()
    at = np.argmax(wanted / wanted.mean() - same.calls[2].maps[0].float().flatten().numpy())
    place = {"x": (at % 8 + 0.5) / 8 * box["width"], "y": (at // 8 + 0.5) / 8 * box["height"]}
    page.locator(".gbi-frame").hover(position=place)
    lit = page.eval_on_selector_all(
        ".gbi-word", "all => all.map(c => +c.style.getPropertyValue('--by'))"
    )
    assert len(lit) == 2 and max(lit) == 1
    # A branch: the picture that the library makes of the same change.
    step_to(page, 2)
    page.fill("#inside-prompt textarea", "blue apple")
    page.click("#inside-go")
    page.wait_for_selector(".gbi-node >> nth=1")
    node = page.locator(".gbi-node[aria-current=true]")
    assert node.inner_text().split("\n") == ["From step 3", "Prompt: blue apple"]
    made = branched(models, same, 2, prompt="blue apple")
    page.wait_for_function("document.querySelector('.gbi-a')?.dataset.shown?.endsWith('/3/clean')")
    page.wait_for_selector(".gbi-wait", state="hidden")
    wanted = np.asarray(decoded_views.decode_view(models, made.calls[3], "clean", "epsilon"), float)
    assert np.abs(shown(page) - wanted).max() <= 1
    page.click(".gbi-small")
    assert page.locator(".gbi-sides figure").count() == 2
    page.click("#inside-stop")  # too late: what is done stays said
    page.wait_for_timeout(800)
    assert page.locator("#inside-status .gb-done").count() == 1
    # What cannot be gets a sentence, and nothing is lost.
    page.fill("#inside-at input", "9")
    page.click("#inside-go")
    page.wait_for_selector("#inside-status .gb-error")
    assert "There is no step 9" in page.inner_text("#inside-status")
    assert page.locator(".gbi-node").count() == 2
    # Exported, opened by another visitor, gone on from there.
    with page.expect_download() as download:
        page.click("#inside-export")
        page.click("#inside-file a")
    file = tmp_path / "tree.safetensors"
    download.value.save_as(file)
    root, branch = open_tree(file)
    assert torch.equal(branch.final, made.final) and branch.parent == root.key
    other = visit("zh")
    other.get_by_role("tab", name=TEXTS["tab_inside"][1]).click()
    give(other, file)
    other.wait_for_selector(".gbi-node >> nth=1")
    other.click(".gbi-node >> nth=0")
    other.wait_for_selector(".gbi-tree > ul > li > .gbi-node[aria-current=true]")
    other.fill("#inside-at input", "1")
    other.click("#inside-go")
    other.wait_for_selector(".gbi-node >> nth=2")
    assert TEXTS["inside_nothing"][1] in other.locator(".gbi-node[aria-current=true]").inner_text()


def test_steps_that_were_dropped_are_said_and_made_again(visit):
    page = visit("en")
    draw(page, seed="11")
    dropping = []

    def drop(route):
        if dropping:
            return route.fulfill(json={"evicted": "yes"})
        return route.continue_()

    page.route(re.compile("component_server"), drop)
    look(page)
    before = shown(page)
    page.wait_for_function("document.querySelector('.gbi-a')?.dataset.shown?.endsWith('/3/clean')")
    dropping.append(True)
    page.click(".gbi-kinds [data-kind=noise]")
    page.wait_for_selector("#inside-status .gb-error")
    assert "were dropped" in page.inner_text("#inside-status")
    dropping.clear()
    page.click("#inside-again")
    page.wait_for_selector("#inside-status .gb-done")
    page.click(".gbi-kinds [data-kind=clean]")
    page.wait_for_function("document.querySelector('.gbi-a')?.dataset.shown?.endsWith('/3/clean')")
    assert np.abs(shown(page) - before).max() == 0
    assert page.locator(".gbi-node").count() == 1


def test_an_empty_place_offers_to_draw_and_files_that_are_none_are_refused(visit, tmp_path):
    page = visit("en", viewport={"width": 390, "height": 844})
    page.get_by_role("tab", name="Look inside").click()
    (tmp_path / "x.safetensors").write_bytes(b"junk" * 30)
    give(page, tmp_path / "x.safetensors")
    page.wait_for_selector("#inside-status .gb-error")
    page.click("#inside-go")
    page.get_by_text(TEXTS["inside_none"][0]).first.wait_for()
    page.fill("#steps input", "2", force=True) if page.is_visible("#steps input") else None
    page.click("#inside-example")
    page.wait_for_selector(".gbi-frame img.gbi-a[src^='data:']", timeout=120_000)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    assert page.locator(".gbi-word").count() >= 5
    page.click(".gbi-play")  # from the start to the end by itself
    page.wait_for_function("document.querySelector('.gbi-main .gbi-slider')?.value === '0'")
    page.wait_for_function(
        "(s => s.value === s.max)(document.querySelector('.gbi-main .gbi-slider'))", timeout=120_000
    )


def test_the_api_knows_nothing_of_it(server):
    client = Client(server.url, verbose=False)
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert not [name for name in named if "inside" in name or "frame" in name]
