"""A model that draws at once, and a real server with the tiny model."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.options import GenerateOptions

WORDS = [
    {"emoji": "🍎", "en": "red apple", "zh": "红苹果", "group": "food"},
    {"emoji": "🐱", "en": "cat", "zh": "猫", "group": "animals"},
    {"emoji": "🚀", "en": "rocket", "zh": "火箭", "group": "travel"},
    {"emoji": "⛸", "en": "ice skate", "zh": "溜冰鞋", "group": "activities"},
]


@dataclass
class FakeStep:
    image: int
    count: int
    index: int
    total: int
    seconds: float
    preview: Image.Image


@dataclass
class FakeResult:
    images: list
    parameters: list
    seeds: list
    options: GenerateOptions
    seconds: float
    metadata: dict = field(default_factory=lambda: {"device": "cpu", "dtype": "float32"})


class FakeBackends:
    """The interface of pipeline's Backends: our kernels can't run here."""

    def why_not(self, kind, name):
        return "There is <no> GPU here." if name == "triton" else None

    def able(self, kind, name):
        return ("sdpa", "math") if kind == "attention" else ("torch",)


class FakeModels:
    """The interface of pipeline's Models. Counts what was opened and closed."""

    backends = FakeBackends()
    name, hash, device, vocabulary = "fake", "0123456789", "cpu", WORDS
    defaults = dict(  # noqa: RUF012 - a stand-in, never changed
        sampler="dpmpp_2m", schedule="automatic", steps=8, cfg=5.0, width=128, height=128
    )

    def __init__(self, seconds_a_step: float = 0.0, fails: Exception | None = None):
        self.seconds_a_step, self.fails = seconds_a_step, fails
        self.active = self.most_active = self.steps_done = 0

    def resolve(self, options):
        given = options.model_dump()
        filled = {k: v for k, v in self.defaults.items() if given[k] is None}
        if given["seed"] is None:
            filled["seed"] = random.randrange(2**32)
        return GenerateOptions(**(given | filled))

    def stream(self, options):
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
                    yield FakeStep(image, options.count, index, options.steps, seconds, picture)
            images, texts, seeds = [], [], []
            for image in range(options.count):
                seed = options.seed + image
                text = f"{options.prompt}\nSteps: {options.steps}, Sampler: x, Seed: {seed}"
                picture = Image.new("RGB", (options.width, options.height), (30, 110, 90))
                picture.info["parameters"] = text
                images.append(picture)
                texts.append(text)
                seeds.append(seed)
            yield FakeResult(images, texts, seeds, options, time.monotonic() - began)
        finally:
            self.active -= 1


@pytest.fixture
def fake_models():
    return FakeModels


ROOT = Path(__file__).parents[2]


class Server:
    """`python app.py` in a process of its own."""

    def __init__(self, model: Path, log: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "app.py", "--model", str(model), "--port", str(self.port)],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait(self) -> Server:
        """Until it has printed its address."""
        while self.url not in self.log():
            assert self.process.poll() is None, f"the server ended:\n{self.log()}"
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def server(tiny_model, tmp_path_factory):
    """One server for all tests of the page; serves the tiny model."""
    running = Server(tiny_model, tmp_path_factory.mktemp("server") / "log.txt")
    try:
        yield running.wait()
    finally:
        running.stop()
