"""The web API: `/generate`, for gradio_client, curl and MCP.

Its fields are plain text and numbers, so that GenerateOptions alone judges them. They say what the
picture is; what computes it, the server decides. Clients send them by position: new ones go last.
"""

from __future__ import annotations

import tempfile

import gradio as gr

from pipeline.errors import InputError

from .texts import say
from .work import Broken, Finished, Painter

GPU = {"concurrency_id": "gpu", "concurrency_limit": 1}  # every listener that uses the device


class Blocks(gr.Blocks):
    """A page whose web API takes fewer values than it has fields, as clients of curl send them."""

    def validate_inputs(self, block_fn, inputs: list) -> None:
        if block_fn.api_name == "generate":
            inputs += [field.value for field in block_fn.inputs[len(inputs) :]]
        super().validate_inputs(block_fn, inputs)


def endpoint(paint: Painter) -> None:
    """Add `/generate` to the page being built; its components are never shown."""

    def generate(
        prompt: str,
        negative: str = "",
        sampler: str | None = None,
        schedule: str | None = None,
        steps: float | None = None,
        cfg: float | None = None,
        seed: float | None = None,
        width: float | None = None,
        height: float | None = None,
        count: float = 1,
        clip_skip: float | None = None,
        cfg_rescale: float | None = None,
        model: str | None = None,
        vae: str | None = None,
    ):
        """Draw pictures from a prompt in English or Chinese.

        Args:
            prompt: What the picture shows; may be empty.
            negative: What it shall not show.
            sampler: A sampler's name, such as euler_a; the model's own if left out.
            schedule: A noise schedule that the sampler takes; the model's own if left out.
            steps: Sampler steps, 1 to 200; the model's own if left out.
            cfg: Guidance scale, 0 to 30; the model's own if left out.
            seed: 0 to 4294967295; a random one if left out.
            width: Pixels, a multiple of 8; the model's own if left out.
            height: Pixels, a multiple of 8; the model's own if left out.
            count: Pictures, 1 to 16; picture i uses seed + i.
            clip_skip: Which text encoder layer from the end, 1 to 12; the model's own if left out.
            cfg_rescale: How far guidance is brought back to its unguided contrast, 0 to 1.
            model: A name of the page's models; the first one if left out.
            vae: A name of the page's autoencoders; the model's own if left out.

        Returns:
            The pictures as PNG files that hold their parameters, and the parameters as text.
        """
        fields = {
            "prompt": prompt,
            "negative": negative,
            "sampler": sampler or None,
            "schedule": schedule or None,
            "steps": steps,
            "cfg": cfg,
            "seed": seed,
            "width": width,
            "height": height,
            "count": count,
            "clip_skip": clip_skip,
            "cfg_rescale": cfg_rescale,
            "model": model or None,
            "vae": vae or None,
        }
        try:
            with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
                for event in paint(fields, folder):
                    # Yielding at every step lets a cancelled or lost client stop the work.
                    if isinstance(event, Finished):
                        yield event.files, event.parameters
                    else:
                        yield [], ""
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except Broken:
            raise gr.Error(say("broken", "en"), print_exception=False) from None

    with gr.Row(visible=False):
        inputs = [
            gr.Textbox(label="prompt"),
            gr.Textbox("", label="negative"),
            gr.Textbox(None, label="sampler"),
            gr.Textbox(None, label="schedule"),
            gr.Number(None, label="steps"),
            gr.Number(None, label="cfg"),
            gr.Number(None, label="seed"),
            gr.Number(None, label="width"),
            gr.Number(None, label="height"),
            gr.Number(1, label="count"),
            gr.Number(None, label="clip_skip"),
            gr.Number(None, label="cfg_rescale"),
            gr.Textbox(None, label="model"),
            gr.Textbox(None, label="vae"),
        ]
        outputs = [gr.Gallery(label="pictures", format="png"), gr.Textbox(label="parameters")]
        gr.Button().click(generate, inputs, outputs, api_name="generate", **GPU)
