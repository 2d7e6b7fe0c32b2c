"""What clients send for a component: taken, or refused with a sentence that names the field."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import httpx
import pytest

from demo.server import fetch
from demo.server.values import read_values
from pipeline.errors import InputError


def run_alone(coroutine):
    """Run a coroutine in a thread of its own: a browser's loop may be running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def read(component, value, public=True, fetches=True):
    """What `read_values` makes of one value."""
    with gr.Blocks() as blocks:
        component.render()
        how = {"api_name": "ask"} if public else {"api_visibility": "private"}
        gr.Button().click(lambda x: x, component, **how)
    values = [value]
    run_alone(read_values(next(iter(blocks.fns.values())), values, fetches))
    return values[0]


@pytest.fixture
def make():
    return {
        "number": lambda: gr.Number(label="Steps"),
        "slider": lambda: gr.Slider(0, 9, label="Steps"),
        "text": lambda: gr.Textbox(label="Prompt"),
        "tick": lambda: gr.Checkbox(label="Fast"),
        "menu": lambda: gr.Dropdown(["a"], value=None, label="Model"),
        "chosen": lambda: gr.Dropdown(["a"], value="a", label="Model"),
        "radio": lambda: gr.Radio(["a"], label="Model"),
        "file": lambda: gr.File(label="Tree"),
        "files": lambda: gr.File(label="Trees", file_count="multiple"),
        "picture": lambda: gr.Image(label="Picture"),
        "examples": lambda: gr.Dataset(components=["textbox"], samples=[["a"]], label="Examples"),
        "gallery": lambda: gr.Gallery(label="Result"),
    }


@pytest.mark.parametrize(
    ("kind", "value", "taken"),
    [
        ("number", 3, 3),
        ("number", "20", 20),
        ("number", " 2.5 ", 2.5),
        ("number", None, None),
        ("slider", 2, 2),
        ("text", "x", "x"),
        ("tick", True, True),
        ("menu", "a", "a"),
        ("menu", None, None),
        ("chosen", "a", "a"),
        ("picture", None, None),
        ("examples", 0, 0),
    ],
)
def test_what_a_page_sends_is_taken(make, kind, value, taken):
    assert read(make[kind](), value) == taken


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("number", "nan", "`Steps` must be a number."),
        ("number", float("inf"), "`Steps` must be a number."),
        ("number", [1], "`Steps` must be a number."),
        ("number", True, "`Steps` must be a number."),
        ("number", 10**400, "`Steps` must be a number."),
        ("slider", None, "`Steps` must be a number."),
        ("slider", "infinity", "`Steps` must be a number."),
        ("text", ["x"], "`Prompt` must be text."),
        ("text", "\ud800", "whole Unicode characters"),
        ("tick", "yes", "`Fast` must be true or false."),
        ("menu", {"a": 1}, "`Model` must be one of its choices."),
        ("menu", ["\udfff"], "whole Unicode characters"),
        ("radio", [["a"]], "`Model` must be one of its choices."),
        ("file", "/etc/passwd", "`Tree` must be an uploaded file."),
        ("file", {"path": "/no/such"}, "was uploaded to this server before"),
        ("file", {"path": "a\0b"}, "was uploaded to this server before"),
        ("file", {"path": 7}, "was uploaded to this server before"),
        ("files", [{"path": "/no"}] * 101, "`Trees` has 101 files; at most 100."),
        ("chosen", None, "`Model` must be one of its choices."),
        ("examples", None, "`Examples` must be the number of an example."),
        ("examples", 1, "`Examples` must be the number of an example."),
        ("picture", [], "`Picture` must be an uploaded file."),
        ("gallery", [{"image": {"path": "/no/such"}}], "was uploaded to this server before"),
    ],
)
def test_what_no_page_sends_is_refused_by_name(make, kind, value, words):
    with pytest.raises(InputError) as caught:
        read(make[kind](), value)
    assert words in str(caught.value)


def test_a_text_that_the_page_left_out_is_empty():
    assert read(gr.Textbox(), None, public=False) == ""
    assert read(gr.Textbox(), None, public=True) is None
    assert read(gr.Textbox("a, b", label="Names"), None, public=True) == "a, b"


# Files that are named by an address

PICTURE = b"\x89PNG" + b"x" * 96


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A web of a few addresses, and Gradio's folder of uploads."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    asked = []

    def answer(request):
        asked.append(str(request.url))
        if request.url.path == "/moved":
            return httpx.Response(302, headers={"location": "/cat.png"})
        if request.url.path == "/loop":
            return httpx.Response(302, headers={"location": "/loop"})
        if request.url.path == "/cat.png":
            return httpx.Response(200, content=stream())
        return httpx.Response(404)

    async def stream():
        yield PICTURE

    async def transport(url):
        return httpx.MockTransport(answer)

    monkeypatch.setattr(fetch, "_transport", transport)
    return asked, tmp_path


@pytest.mark.parametrize("path", ["cat.png", "moved"])
def test_a_file_of_the_web_is_fetched(web, path):
    value = {"path": f"http://example.com/{path}", "meta": {"_type": "gradio.FileData"}}
    found = read(gr.Image(label="Picture"), value)
    with open(found["path"], "rb") as file:
        assert file.read() == PICTURE
    assert found["path"].startswith(str(web[1]))


@pytest.mark.parametrize("path", ["dog.png", "loop", "a" * 3000])
def test_what_cannot_be_fetched_leaves_nothing(web, path):
    with pytest.raises(InputError) as caught:
        read(gr.File(), {"path": f"http://example.com/{path}"})
    assert "address" in str(caught.value) and str(web[1]) not in str(caught.value)
    assert not [p for p in web[1].rglob("*")]
    assert len(web[0]) <= 1 + fetch.MAX_REDIRECTS


def test_a_file_that_is_too_large_is_not_kept(web, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_BYTES", 99)
    with pytest.raises(InputError):
        read(gr.File(), {"path": "http://example.com/cat.png"})
    assert not [p for p in web[1].rglob("*")]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/a", "http://[::1]/a", "http://169.254.1.1/a", "http:///a", "http://"],
)
def test_addresses_inside_the_network_are_refused(url, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with pytest.raises(InputError, match="cannot be fetched"):
        read(gr.File(), {"path": url})
    assert not [p for p in tmp_path.rglob("*")]


def test_the_page_and_a_server_without_mcp_fetch_nothing(web):
    for public, fetches in ((False, True), (True, False)):
        with pytest.raises(InputError, match="not an address in the web"):
            read(gr.Image(), {"path": "http://example.com/cat.png"}, public, fetches)
    assert not web[0]


# Every endpoint of a real server


JSON = {"content-type": "application/json"}


def answer_of(server, name, values):
    url = f"{server.url}gradio_api/call/{name}"
    asked = httpx.post(url, content=json.dumps({"data": values}), headers=JSON)
    if asked.status_code != 200:
        return asked.json()["error"]
    text = httpx.get(f"{url}/{asked.json()['event_id']}", timeout=60).text
    assert text.startswith("event: error"), text[:300]
    return json.loads(text.split("data: ", 1)[1])["error"]


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("race", ["a"] * 3, "takes 10 values, not 3"),
        ("train_lora", [], "takes 9 values, not 0"),
        ("race", ["a", "", "", "nan", 64, 64, 1, 5, "", ""], "must be a number"),
        ("train_lora", ["x", "a", "b", 8, 10, "", 1, False, ""], "must be an uploaded file"),
        ("verify", [{"path": "http://127.0.0.1:1/a.png", "meta": {"_type": "gradio.FileData"}}],
         "not an address in the web"),
        ("upscale", [{"path": "http://10.0.0.1/a.png", "meta": {"_type": "gradio.FileData"}}],
         "not an address in the web"),
        ("colorize", [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], "read"),
        ("image_to_image", [{"path": __file__}], "no PNG"),
        ("generate", ["a", "", None, None, "nan"], "whole number"),
        ("hires", ["a", "", "inf"], "number"),
        ("grid", [["a"], {"b": 1}, 3], ""),
    ],
)  # fmt: skip
def test_every_endpoint_answers_with_a_sentence(server, name, values, words):
    sentence = answer_of(server, name, values)
    assert sentence and words in sentence and "\n" not in sentence
    assert not sentence.startswith("Something went wrong")
