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
from ...server.visitors import identify
from ...ui.failures import hide_internal_errors, raise_client_errors
from ...ui.listeners import GPU
from .races import Races

SAMPLERS = ("Euler a", "DDIM", "DPM++ 2M", "UniPC")  # the default competitors
# Seconds between two empty answers: only while answering does Gradio notice that a client has left.
YIELD_EVERY = 0.1


def add_endpoint(races: Races) -> None:
    """Add the endpoint `/race`, which races samplers, to the web API of the page being built.

    In a race, several samplers draw the same picture from the same noise. Gradio derives endpoints
    from components, so hidden ones are added. races: runs the races.
    """

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
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[tuple[list[str], Any]]:
        """Draw one picture with several samplers from the same noise, and compare the samplers.

        Each is compared with a reference of 200 steps that starts from the same noise.

        Args:
            prompt: What the picture shows; may be empty.
            lanes: Two to six samplers, separated by commas, each with or without a noise schedule,
                such as: Euler a, DPM++ 2M Karras.
            negative: What the picture must not show.
            steps: Steps of each sampler; default: the model's own.
            cfg: Guidance scale; default: the model's own.
            seed: The seed of all pictures; default: a random one.
            width: Width in pixels; default: the model's own.
            height: Height in pixels; default: the model's own.
            model: The name of a model that this server offers; default: the first one.
            vae: The name of an autoencoder that this server offers; default: the model's own.

        Returns:
            The pictures as PNG files that hold their parameters; and for each sampler the noise
            level of each step, and the distance to the reference after each model call.
        """
        fields = dict(prompt=prompt, negative=negative, steps=steps, cfg=cfg, seed=seed)
        fields |= dict(width=width, height=height, model=model, vae=vae)
        with raise_client_errors():
            with hide_internal_errors():
                entries = arena.parse_entries(filter(None, map(str.strip, lanes.split(","))))
                names, models, options = races.resolve(fields, identify(request))
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
