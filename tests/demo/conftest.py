"""For tests of the page: a fake model that draws at once, a real server, and a real browser."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from demo.texts import TEXTS
from pipeline.errors import InputError
from pipeline.events import Result, Step
from pipeline.model_cache import ModelCache
from pipeline.model_files import library
from pipeline.model_files.library import Entry
from pipeline.options import GenerateOptions
from pipeline.samplers import Answer

WORDS = [
    {"emoji": "🍎", "en": "red apple", "zh": "红苹果", "group": "food"},
    {"emoji": "🐱", "en": "cat", "zh": "猫", "group": "animals"},
    {"emoji": "🚀", "en": "rocket", "zh": "火箭", "group": "travel"},
    {"emoji": "⛸", "en": "ice skate", "zh": "溜冰鞋", "group": "activities"},
]


def fake_step(image, count, index, total, seconds, picture):
    """Return an engine's Step whose preview is the PIL image `picture`."""
    latents = torch.zeros(1, 4, 8, 8)
    preview = SimpleNamespace(image=lambda clean, width, height: picture)
    return Step(
        image=image, count=count, index=index, total=total, seconds=seconds, sigma=1.0,
        latents=latents, clean=latents, width=picture.width, height=picture.height, t=0.0,
        answer=Answer(latents), origin=None, origin_step=0, _preview=preview,
    )  # fmt: skip


def fake_result(images, parameters, seeds, options, seconds):
    """Return an engine's Result with one warning, which contains HTML to be escaped."""
    return Result(
        images=images, parameters=parameters, seeds=seeds, options=options, seconds=seconds,
        metadata={"device": "cpu", "dtype": "float32"}, latents=[],
        warnings=("A <b>quiet</b> word.",),
    )  # fmt: skip


class FakeBackends:
    """A stand-in for pipeline's Backends on a machine where our Triton kernels cannot run."""

    def unsupported_reason(self, kind, name):
        """Return why a backend cannot run, or None; the sentence contains HTML to be escaped."""
        return "There is <no> GPU here." if name == "triton" else None

    def candidates(self, kind, name):
        """Return the names of the backends that can run, for `kind` "attention" or "group_norm"."""
        return ("sdpa", "math") if kind == "attention" else ("torch",)


class FakeModels:
    """A stand-in for pipeline's Models that draws plain colours.

    seconds_a_step: how long each step takes. fails: raised in place of drawing. active: streams
    that are open now; most_active: the most at once; steps_done: steps of all streams.
    """

    backends = FakeBackends()
    name, hash, device, vocabulary = "fake", "0123456789", "cpu", WORDS
    vae_name = None
    family, what, path = "sd1", "a stand-in", Path("fake")
    defaults = dict(  # noqa: RUF012 - a stand-in, never changed
        sampler="dpmpp_2m", schedule="automatic", steps=8, cfg=5.0, width=128, height=128
    )

    def __init__(self, seconds_a_step: float = 0.0, fails: Exception | None = None):
        self.seconds_a_step, self.fails = seconds_a_step, fails
        self.active = self.most_active = self.steps_done = 0

    def resolve(self, options):
        """Return the options with the fake's defaults and a random seed for each None."""
        given = options.model_dump()
        filled = {k: v for k, v in self.defaults.items() if given[k] is None}
        if given["seed"] is None:
            filled["seed"] = random.randrange(2**32)
        return GenerateOptions(**(given | filled))

    def stream(self, options, words=False):
        """Yield Steps and a Result of plain colours; InputError above a width of 1024 pixels."""
        options = self.resolve(options)
        if options.width > 1024:
            raise InputError("The fake draws at most 1024 pixels.")
        if self.fails:
            raise self.fails
        began = time.monotonic()
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            for image in range(options.count):
                for index in range(1, options.steps + 1):
                    time.sleep(self.seconds_a_step)
                    self.steps_done += 1
                    shade = (40 + 180 * index // options.steps, 120, 90 + 40 * image)
                    picture = Image.new("RGB", (options.width, options.height), shade)
                    seconds = time.monotonic() - began
                    yield fake_step(image, options.count, index, options.steps, seconds, picture)
            images, texts, seeds = [], [], []
            for image in range(options.count):
                seed = options.seed + image
                text = f"{options.prompt}\nSteps: {options.steps}, Sampler: x, Seed: {seed}"
                picture = Image.new("RGB", (options.width, options.height), (30, 110, 90))
                picture.info["parameters"] = text
                images.append(picture)
                texts.append(text)
                seeds.append(seed)
            yield fake_result(images, texts, seeds, options, time.monotonic() - began)
        finally:
            self.active -= 1


@pytest.fixture(scope="session")
def fake_models():
    """Return the class FakeModels."""
    return FakeModels


@pytest.fixture
def fake_model_cache(monkeypatch):
    """fake_model_cache(models, more) returns a ModelCache of fakes.

    models: the FakeModels that is loaded at first. more: others to choose from; they are in the
    library too.
    """

    def fill(models, more=()):
        files = {m.name: Entry(m.name, Path(m.name), "checkpoint", "SD 2.x", m.what) for m in more}
        monkeypatch.setattr(
            library, "find_entries", lambda kind, folder=None: files if kind == "checkpoint" else {}
        )
        monkeypatch.setattr(library, "scan", lambda folder=None: list(files.values()))
        model_cache = ModelCache(models)
        model_cache._held |= {(m.name, None): m for m in more}
        return model_cache

    return fill


ROOT = Path(__file__).parents[2]


class Server:
    """`python app.py` in a process of its own, on a free port.

    model: the model's folder. place: the working folder. flags: more arguments of app.py.
    """

    def __init__(self, model: Path, place: Path, *flags: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._log = place / "log.txt"
        self.read = 0  # characters of the log that are from before the current test
        app = [sys.executable, str(ROOT / "app.py")]
        with self._log.open("w") as out:
            self.process = subprocess.Popen(
                [*app, "--model", str(model), "--port", str(self.port), *flags],
                cwd=place,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def log(self) -> str:
        """Return what the server printed since the current test began."""
        return self._log.read_text(encoding="utf-8")[self.read :]

    def wait(self) -> Server:
        """Wait until the server has printed its address; return the server."""
        while self.url not in self.log():
            assert self.process.poll() is None, f"the server ended:\n{self.log()}"
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        """End the process, by force after 20 seconds."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def server_of():
    """Return the class Server: server_of(model, place, *flags) starts one more server."""
    return Server


OTHER = {"sampler": "dpmpp_2m", "schedule": "karras", "steps": 3, "cfg": 2.5, "width": 128}


def fill_models(folder: Path, tiny_model: Path) -> None:
    """Fill the server's ./models: another model, a damaged file, a LoRA, a textual inversion."""
    import torch
    from safetensors.torch import save_file

    shutil.copytree(tiny_model, folder / "other")
    (folder / "other" / "generation.json").write_text(json.dumps(OTHER))
    (folder / "damaged.safetensors").write_bytes(b"no header")
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    pair = {"lora_down.weight": torch.zeros(2, 32), "lora_up.weight": torch.zeros(16, 2)}
    save_file({f"{layer}.{k}": v for k, v in pair.items()}, folder / "soft light.safetensors")
    save_file({"emb_params": torch.zeros(5, 32)}, folder / "zonk.safetensors")


@pytest.fixture(scope="session")
def server(tiny_model, tmp_path_factory):
    """Yield one server of the tiny model for all tests; fill_models fills its ./models."""
    place = tmp_path_factory.mktemp("server")
    fill_models(place / "models", tiny_model)
    running = Server(tiny_model, place)
    try:
        yield running.wait()
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def no_traceback(request):
    """Fail a test that uses the shared server if the server printed a traceback meanwhile."""
    if "server" not in request.fixturenames:
        yield
        return
    running = request.getfixturevalue("server")
    running.read += len(running.log())
    yield
    assert "Traceback" not in running.log()


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # milliseconds before a wait of the browser fails
LOCALES = {"en": "en-US", "zh": "zh-CN"}

# JavaScript that collects every preview and every status line of the page in `window.seen`.
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


@pytest.fixture(scope="session")
def browser():
    """Yield a headless Chromium; skip without playwright or Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, server):
    """visit(language, **options) opens the page as a new visitor; it returns playwright's page.

    language: "en" or "zh". options: of the browser's context. `page.foreign` lists the requests
    that went to other hosts, `page.breaks_policy` what the Content-Security-Policy stopped.
    """
    contexts, broken = [], []

    def home(url):
        return url.startswith((server.url, "data:", "blob:"))

    def open_page(language="en", **more):
        context = browser.new_context(locale=LOCALES[language], accept_downloads=True, **more)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.foreign = []
        page.on("request", lambda r: home(r.url) or page.foreign.append(r.url))
        page.breaks_policy = broken
        page.on("console", lambda m: "Content Security" in m.text and broken.append(m.text))
        page.goto(server.url)
        page.wait_for_selector("#generate")
        word = TEXTS["generate"][language == "zh"]
        page.wait_for_selector(f"#generate:has-text('{word}')")
        page.evaluate(WATCH)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not broken
