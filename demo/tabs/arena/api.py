"""The web API's endpoint for races of samplers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr
from gradio.components import Component

from pipeline.introspection import arena

from ...server.runner import MODEL_FIELDS
from ...ui.failures import hide_internal_errors, raise_client_errors
from ...ui.listeners import GPU
from .races import Races

SAMPLERS = ("Euler a", "DDIM", "DPM++ 2M", "UniPC")  # that race unless others are chosen
YIELD_EVERY = 0.1  # seconds between two empty answers, which let a lost client stop the race


def add_endpoint(races: Races) -> None:
    """Add `/race` to the page that is being built; its components are never shown."""

    def race(
        prompt: str,
        lanes: str = ", ".join(SAMPLERS),
        negative: str = "",
        steps: float | None = None,
        cfg: float | None = None,
        seed: float | None = None,
        width: float | None = None,
        height: float | None = None,
        model: str | None = None,
        vae: str | None = None,
    ) -> Iterator[tuple[list[str], Any]]:
        """Let samplers race from one noise, each against a reference of 200 steps.

        Args:
            prompt: What the pictures show; may be empty.
            lanes: Two to six samplers, each with a schedule or without: Euler a, DPM++ 2M Karras.
            negative: What they shall not show.
            steps: Steps of each sampler; left out: what suits the model.
            cfg: Guidance scale; left out: what suits the model.
            seed: The seed that all have in common; left out: a random one.
            width: Pixels; left out: what suits the model.
            height: Pixels; left out: what suits the model.
            model: A name of the page's models; the first one if left out.
            vae: A name of the page's autoencoders; the model's own if left out.

        Returns:
            The pictures as PNG files that hold their parameters; and for each lane its noise
            levels, and after each model call its distance to the reference.
        """
        fields = dict(prompt=prompt, negative=negative, steps=steps, cfg=cfg, seed=seed)
        fields |= dict(width=width, height=height, model=model, vae=vae)
        with raise_client_errors():
            with hide_internal_errors():
                entries = arena.parse_entries(filter(None, map(str.strip, lanes.split(","))))
                names, models, options = races.resolve(fields)
            with closing(races.stream(names, models, options, entries, "en")) as views:
                yielded = 0.0
                for view in views:
                    if view.finished:
                        yield [lane.file for lane in view.lanes], view.to_json()
                    elif time.monotonic() - yielded >= YIELD_EVERY:
                        yielded = time.monotonic()
                        yield [], {}

    with gr.Row(visible=False):
        inputs: list[Component] = [
            gr.Textbox(label="prompt"),
            gr.Textbox(", ".join(SAMPLERS), label="lanes"),
        ]
        inputs += [gr.Textbox("", label="negative")]
        inputs += [gr.Number(None, label=n) for n in ("steps", "cfg", "seed", "width", "height")]
        inputs += [gr.Textbox(None, label=n) for n in MODEL_FIELDS]
        outputs = [gr.Gallery(label="pictures", format="png"), gr.JSON(label="lanes")]
        gr.Button().click(race, inputs, outputs, api_name="race", **GPU)
