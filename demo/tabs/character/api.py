"""The web API's endpoint that trains a character."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr
from gradio.components import Component

from pipeline.model_cache import ModelCache

from ...ui.failures import raise_client_errors
from .training import TRAIN, train
from .view import lora_tag


def add_endpoint(model_cache: ModelCache) -> None:
    """Add `/train_lora` to the page that is being built; its components are never shown."""

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
    ) -> Iterator[tuple[list[str], str]]:
        """Train a LoRA that teaches a model one character from a handful of pictures.

        Args:
            images: Pictures that show the character, two or more.
            name: What the LoRA is called; then <lora:name:0.8> in a prompt draws the character.
            prompt: How the character is asked for, a word that the model does not know in it.
            steps: Training steps; left out: what suits the model.
            rank: Rank of the matrices; left out: what suits the model.
            prior_prompt: What the character is one of, for prior preservation; may be empty.
            prior_count: Pictures of that class which the model draws first.
            resume: Whether to go on with a run of this name that was stopped.
            model: A name of the page's models; the first one if left out.

        Returns:
            The files, in peft's names and in those of A1111 and ComfyUI, and how to use them.
        """
        given = {
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
            for event in train(model_cache, given):
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
