"""`/generate` of a real server, called as users call it."""

import json
import re
import sys

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from demo.server import api
from pipeline import tasks
from pipeline.images import lab
from pipeline.metadata import infotext


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    return Client(server.url, verbose=False, download_files=folder)


def call(client, **fields):
    fields = {"prompt": "a red apple", "steps": 2} | fields
    return client.predict(**fields, api_name="/generate")


def still_draws(client):
    pictures, text = call(client, seed=1)
    assert len(pictures) == 1
    return "Seed: 1" in text


def test_pictures_are_png_that_keep_their_text(client):
    pictures, text = call(client, prompt="a red apple, 红苹果", steps=3, seed=7, count=2)
    assert len(pictures) == 2
    for i, picture in enumerate(pictures):
        image = Image.open(picture["image"])
        assert image.format == "PNG"
        assert image.size == (64, 64)
        kept = infotext.parse(image.info["parameters"])
        assert kept["Seed"] == str(7 + i)
        assert kept["Steps"] == "3"
        assert image.info["parameters"] in text


def test_all_but_the_prompt_may_be_left_out(client):
    pictures, text = client.predict(prompt="", steps=1, api_name="/generate")
    assert len(pictures) == 1
    assert "Steps: 1" in text


def test_every_task_is_an_endpoint_whose_fields_are_explained(client):
    found = client.view_api(return_format="dict")["named_endpoints"]
    others = {"/train_lora", "/race", "/verify"}
    assert set(found) == {*(f"/{key}" for key in tasks.TASKS), *others}
    for key in tasks.TASKS:
        asked = [p["parameter_name"] for p in found[f"/{key}"]["parameters"]]
        assert asked == list(api.names(key))
        there = set(tasks.module(key).Options.model_fields) - {"attention", "group_norm"}
        assert set(asked) == there | {"model", "vae"}
        told = api.handler(key, None).__doc__
        assert all(f"    {name}: " in told for name in asked)


@pytest.fixture
def picture(tmp_path):
    """A picture file of another size than the model's."""
    path = tmp_path / "given.png"
    field = np.random.default_rng(1).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(field).resize((72, 64), Image.Resampling.BICUBIC).save(path)
    return path


def opened(answer):
    """The first picture of an answer and what its text says."""
    pictures, _ = answer
    image = Image.open(pictures[0]["image"])
    assert image.format == "PNG"
    return image.convert("RGB"), infotext.parse(image.info["parameters"])


def test_image_to_image(client, picture):
    fields = {"picture": handle_file(picture), "prompt": "a red apple", "steps": 3}
    drawn, text = opened(client.predict(**fields, strength=0.5, api_name="/image_to_image"))
    assert drawn.size == (72, 64)
    assert text["Denoising strength"] == "0.5"


def test_inpaint(client, picture, tmp_path):
    mask = Image.new("L", (72, 64))
    mask.paste(255, (10, 10, 40, 40))
    mask.save(tmp_path / "mask.png")
    fields = {"picture": handle_file(picture), "mask": handle_file(tmp_path / "mask.png")}
    drawn, _ = opened(client.predict(**fields, steps=3, seed=1, api_name="/inpaint"))
    given = np.asarray(Image.open(picture))
    changed = (np.asarray(drawn) != given).any(-1)
    assert not changed[np.asarray(mask) == 0].any() and changed.any()
    wider, _ = opened(client.predict(fields["picture"], right=16, steps=2, api_name="/inpaint"))
    assert wider.size == (88, 64)
    assert (np.asarray(wider)[:, :72] == given).all()


@pytest.mark.parametrize("key, size", [("hires", (128, 128)), ("upscale", (144, 128))])
def test_larger(client, picture, key, size):
    given = {"picture": handle_file(picture)} if key == "upscale" else {"prompt": "a red apple"}
    drawn, _ = opened(client.predict(**given, steps=2, api_name=f"/{key}"))
    assert drawn.size == size


def test_colorize_keeps_the_lightness(client, picture):
    drawn, _ = opened(client.predict(handle_file(picture), steps=2, api_name="/colorize"))
    ours, theirs = (lab.to_lab(np.asarray(p)) for p in (drawn, Image.open(picture)))
    off = ours[..., 0] - theirs[..., 0]
    assert np.abs(off).max() <= 0.5


def test_grid(client):
    fields = {"prompt": "a red apple", "x": "steps: 1, 2", "y": "cfg: 1, 3, 5"}
    pictures, text = client.predict(**fields, api_name="/grid")
    assert len(pictures) == 1 + 6
    sheet, cell = (Image.open(p["image"]) for p in pictures[:2])
    assert sheet.width > 2 * cell.width and sheet.height > 3 * cell.height
    assert "X Type: Steps" in text


@pytest.mark.parametrize(
    ("key", "fields", "sentence"),
    [
        ("image_to_image", {}, "There is no picture"),
        ("image_to_image", {"picture": __file__}, "is no PNG, JPEG"),
        ("inpaint", {"picture": True}, "nothing to repaint"),
        ("inpaint", {"picture": True, "mask": True, "strength": 2}, "from 0 to 1, not 2"),
        ("upscale", {"picture": True, "scale": 90}, "from 1 to 8, not 90"),
        ("grid", {"prompt": "x", "x": "steps: 1-200", "y": "cfg: 1, 2"}, "at most 100"),
        ("train_lora", {"images": [], "name": "x", "prompt": "y"}, "no pictures"),
    ],
)
def test_bad_tasks_get_one_sentence(client, server, picture, key, fields, sentence):
    fields = {k: picture if v is True else v for k, v in fields.items()}
    for name in ("picture", "mask"):
        if name in fields:
            fields[name] = handle_file(fields[name])
    if key == "image_to_image" and not fields:
        fields = {"picture": None}
    with pytest.raises(Exception, match=r".") as caught:
        client.predict(**fields, api_name=f"/{key}")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_model_draws_when_it_is_named(client):
    pictures, text = call(client, model="other", width=64, clip_skip=2, cfg_rescale=0.5)
    assert Image.open(pictures[0]["image"]).size == (64, 64)
    kept = infotext.parse(text)
    assert kept["Model"] == "other"
    assert kept["Clip skip"] == "2"


@pytest.mark.parametrize("values", [["a"], ["a", "", None, None, 1], ["a", *[None] * 4, 3.5]])
def test_the_last_values_may_be_left_out(server, values):
    url = f"{server.url}gradio_api/call/generate"
    event = httpx.post(url, json={"data": values}).json()["event_id"]
    answer = httpx.get(f"{url}/{event}", timeout=60).text
    done = answer.split("event: complete\ndata: ", 1)[1]
    assert f"CFG scale: {7 if len(values) < 6 else 3.5}," in done


def test_the_same_options_give_the_same_pixels(client):
    first, second = (
        Image.open(
            call(client, seed=5, sampler="dpmpp_2m", schedule="karras", cfg=4.0)[0][0]["image"]
        )
        for _ in range(2)
    )
    assert first.tobytes() == second.tobytes()


BAD = [
    ({"steps": 9999}, "from 1 to 200, not 9999"),
    ({"steps": 0}, "from 1 to 200, not 0"),
    ({"steps": 2.5}, "whole number"),
    ({"steps": "many"}, "whole number"),
    ({"cfg": -1}, "from 0 to 30"),
    ({"cfg": 1e308}, "from 0 to 30"),
    ({"width": 65}, "multiple of 8"),
    ({"height": 100000}, "from 64 to 2048"),
    ({"seed": -1}, "from 0 to 4294967295"),
    ({"count": 0}, "from 1 to 16"),
    ({"sampler": "eulr_a"}, "there is euler_a"),
    ({"sampler": "lcm", "schedule": "karras"}, "it takes automatic, uniform"),
    ({"prompt": "x" * 1_000_000}, "1,000,000 characters; at most 10,000"),
    ({"negative": "a\0b"}, "NUL"),
    ({"clip_skip": 13}, "from 1 to 12, not 13"),
    ({"cfg_rescale": 2}, "from 0 to 1, not 2"),
    ({"model": "nowhere"}, "there is "),
    ({"model": "../models/other"}, "There is no model '../models/other'"),
    ({"model": "damaged"}, "damaged.safetensors"),
]


@pytest.mark.parametrize(("fields", "sentence"), BAD, ids=[str(list(f)) for f, _ in BAD])
def test_bad_values_get_one_sentence(client, server, fields, sentence):
    with pytest.raises(Exception, match=r".") as caught:
        call(client, **fields)
    message = str(caught.value)
    assert sentence in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('["a", "", null, null, NaN, null, null, null, null, 1]', "not nan"),
        ('["a", "", null, null, 2, Infinity, null, null, null, 1]', "not inf"),
        ('["a\\ud800b", "", null, null, 2, null, null, null, null, 1]', "surrogate"),
        ('["a", "", null, null, {"a": [1]}, null, null, null, null, 1]', "whole number"),
    ],
)
def test_bad_values_that_no_client_would_send(server, body, sentence):
    url = f"{server.url}gradio_api/call/generate"
    asked = httpx.post(
        url, content=f'{{"data": {body}}}', headers={"content-type": "application/json"}
    )
    answer = httpx.get(f"{url}/{asked.json()['event_id']}", timeout=60).text
    assert answer.startswith("event: error")
    assert sentence in json.loads(answer.split("data: ", 1)[1])["error"]


def test_the_server_goes_on(client):
    assert still_draws(client)


def test_no_way_past_the_queue(server):
    fields = ["a", "", None, None, 2, None, None, None, None, 1]
    for path in ("run", "api"):
        answer = httpx.post(f"{server.url}gradio_api/{path}/generate", json={"data": fields})
        assert answer.status_code == 404


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        ("/generate", {"prompt": "", "model": "damaged"}),
        ("/generate", {"prompt": "<lora:damaged:1>"}),
        ("/image_to_image", {"prompt": "", "picture": "text"}),
        ("/inpaint", {"prompt": "", "picture": "picture", "mask": "text"}),
        ("/upscale", {"picture": "text"}),
        ("/verify", {"file": "picture"}),
        ("/verify", {"file": "text"}),
        ("/train_lora", {"images": ["text"], "name": "zog", "prompt": "zog"}),
        ("/train_lora", {"images": ["picture"], "name": "soft light", "prompt": "zog"}),
    ],
)
def test_no_error_names_a_path_of_the_server(client, tmp_path, endpoint, fields):
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    (tmp_path / "text.png").write_text("no picture")
    files = {name: handle_file(tmp_path / f"{name}.png") for name in ("picture", "text")}
    sent = {
        key: [files[v] for v in value] if isinstance(value, list) else files.get(value, value)
        for key, value in fields.items()
    }
    with pytest.raises(AppError) as caught:
        client.predict(**sent, api_name=endpoint)
    sentence = str(caught.value)
    assert sentence.endswith(".") and " " in sentence
    assert not re.search(r"(?<![\w<])/\w+|0x[0-9a-f]{6}", sentence), sentence


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the files of a process")
@pytest.mark.parametrize("fields", [{}, {"count": 2}, {"model": "other"}])
def test_a_full_disk_is_said_and_then_it_draws_again(client, server, fields):
    """A limit on the size of all files that the server writes stands in for the full disk."""
    import resource

    process, kind = server.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(process, kind, (0, resource.RLIM_INFINITY))
    try:
        with pytest.raises(AppError, match="disk is full"):
            call(client, **fields)
    finally:
        resource.prlimit(process, kind, before)
    assert still_draws(client)
