"""The web API's endpoint that trains a LoRA of a character."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr
from gradio.components import Component

from pipeline.model_cache import ModelCache

from ...server.visitors import Visitors, identify
from ...ui.failures import raise_client_errors
from .training import TRAIN, train
from .view import lora_tag


def add_endpoint(model_cache: ModelCache, visitors: Visitors) -> None:
    """Add the endpoint `/train_lora`, which trains a LoRA of a character, to the page's web API.

    Gradio derives endpoints from components, so hidden ones are added. visitors: the visitors'
    trainings.
    """

    def train_lora(
        images: list[str],
        name: str,
        prompt: str,
        steps: float | None = None,
        rank: float | None = None,
        prior_prompt: str = "",
        prior_count: float | None = None,
        resume: bool = False,
        model: str | None = None,
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> Iterator[tuple[list[str], str]]:
        """Train a LoRA that teaches a model one character from a handful of pictures.

        Args:
            images: Pictures that show the character, two or more.
            name: The name of the LoRA; <lora:name:0.8> in a prompt of the same session, or with the
                same cookie, then draws the character.
            prompt: The words that ask for the character, with a word that the model does not know,
                such as: zog the striped creature.
            steps: Training steps; default: the model's own.
            rank: Rank of the low-rank matrices; default: the model's own.
            prior_prompt: The class of the character, such as: a creature. The model draws pictures
                of it and learns them too, so that the class does not change (prior preservation).
                May be empty.
            prior_count: How many pictures of the class the model draws.
            resume: Whether to continue a stopped training of this name.
            model: The name of a model that this server offers; default: the first one.

        Returns:
            The LoRA as two files, one with peft's names of the matrices and one with those of A1111
            and ComfyUI; and a prompt that draws the character.
        """
        fields = {
            "images": images,
            "name": name,
            "prompt": prompt,
            "steps": None if steps is None else f"{steps:g}",
            "rank": None if rank is None else f"{rank:g}",
            "prior_prompt": prior_prompt,
            "prior_count": None if prior_count is None else f"{prior_count:g}",
            "resume": resume,
            "model": model,
        }
        from pipeline.training.lora.train import Trained

        with raise_client_errors():
            for event in train(model_cache, visitors, identify(request), fields):
                if isinstance(event, Trained):
                    text = f"{prompt} {lora_tag(event.name)}"
                    yield [str(event.path), str(event.other)], text
                else:
                    yield [], ""

    with gr.Row(visible=False):
        inputs: list[Component] = [
            gr.File(label="images", file_count="multiple"),
            gr.Textbox(label="name"),
            gr.Textbox(label="prompt"),
            gr.Number(None, label="steps"),
            gr.Number(None, label="rank"),
            gr.Textbox("", label="prior_prompt"),
            gr.Number(None, label="prior_count"),
            gr.Checkbox(False, label="resume"),
            gr.Textbox(None, label="model"),
        ]
        outputs = [gr.File(label="files", file_count="multiple"), gr.Textbox(label="use")]
        gr.Button().click(train_lora, inputs, outputs, api_name="train_lora", **TRAIN)
