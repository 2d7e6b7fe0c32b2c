"""The tab Character: train a LoRA on a few pictures of one character, and use it in a prompt."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr
from PIL import Image

from ...page import Page
from ...server.runs import Run
from ...texts import say
from ...ui.images import data_url
from ...ui.listeners import UNQUEUED
from ...ui.status import idle_frame, preview_frame, status_line
from ...ui.stop import Final, StopButton, Update, Updates
from ...ui.tab import Tab
from . import texts
from .api import add_endpoint
from .training import TEXTS, TRAIN, refusal, train
from .view import done_line, lora_tag, progress_line, stopped_line

SHOW_EVERY = 0.5  # seconds between two updates of the status line
PREVIEW_SIDE = 256  # pixels


def build(page: Page) -> None:
    """Build the tab Character, which trains a LoRA on a few pictures of one character.

    Adds its components to the page that is being built, and attaches their listeners.
    """
    i18n, refused = page.i18n, refusal(page.runner.visitors)
    with gr.Column(elem_id="gb-character", min_width=0):
        with gr.Column(elem_classes="gb-card", min_width=0):
            if refused:
                gr.HTML(
                    f'<p class="gb-note gb-not">{i18n(refused)}</p>',
                    apply_default_css=False,
                    elem_id="character-off",
                )
            images = gr.File(
                label=i18n("character_images"),
                file_count="multiple",
                height=170,
                elem_id="character-images",
                elem_classes="gb-drop",
            )
            form = {name: _text(i18n, name) for name in TEXTS[:2]}
            with gr.Row():
                for name in ("steps", "rank"):
                    form[name] = _text(i18n, name, "character_own")
            form["prior_prompt"] = _text(i18n, "prior_prompt")
            form["prior_count"] = _text(i18n, "prior_count", "character_own")
            resume = gr.Checkbox(
                False,
                label=i18n("character_resume"),
                info=i18n("character_resume_hint"),
                elem_id="character-resume",
            )
            with gr.Row():
                go = gr.Button(
                    i18n("character_go"),
                    variant="primary",
                    scale=4,
                    elem_id="character-go",
                    interactive=not refused,
                )
                stop = gr.Button(
                    i18n("stop"), variant="stop", min_width=90, elem_id="character-stop"
                )
        with gr.Column(elem_classes="gb-card", min_width=0):
            view = gr.HTML(
                idle_frame(i18n("character_idle")),
                apply_default_css=False,
                elem_id="character-view",
            )
            status = gr.HTML(
                status_line("ready", i18n("ready")),
                apply_default_css=False,
                elem_id="character-status",
            )
            with gr.Column(visible=False, min_width=0) as result:
                files = gr.File(
                    label=i18n("character_files"),
                    file_count="multiple",
                    interactive=False,
                    elem_id="character-files",
                )
                use = gr.Button(i18n("character_use"), variant="primary", elem_id="character-use")
    lora_prompt = gr.State("")  # a prompt that draws the trained character
    shared = page.form

    def train_lora(
        run: Run,
        language: str,
        model: str,
        vae: str,
        pictures: list[str],
        continue_run: bool,
        *values: str,
    ) -> Updates:
        """Train a LoRA; yield updates of status, loss and previews, and at the end the files.

        model, vae: their names in the model cache. pictures: paths of the uploaded files.
        continue_run: whether to continue a stopped training of the same name. values: what the
        visitor typed into the text boxes of `form`, in that order.
        """
        from pipeline.training.lora.train import Trained

        losses, last_update = list[float](), 0.0
        yield {status: status_line("running", say("starting", language))}
        fields: dict[str, Any] = {
            name: (value or "").strip() for name, value in zip(form, values, strict=True)
        }
        fields |= {"images": pictures, "resume": continue_run, "model": model, "vae": vae}
        for event in train(page.model_cache, page.runner.visitors, run.visitor, fields):
            if isinstance(event, Trained):
                yield Final(
                    {
                        status: done_line(event, language, losses),
                        files: [str(event.path), str(event.other)],
                        result: gr.update(visible=True),
                        lora_prompt: f"{fields['prompt']} {lora_tag(event.name)}",
                    }
                )
                return
            run.progress = event
            if event.mean is not None:
                losses.append(event.mean)
            updates: Update = {}
            if event.preview is not None:
                updates[view] = _preview(event.preview, language)
            if not updates and time.monotonic() - last_update < SHOW_EVERY:
                yield None
                continue
            last_update = time.monotonic()
            yield updates | {status: progress_line(event, language, losses)}

    StopButton(page.runs, "character", stop, status, stopped_line).add(
        go.click,
        train_lora,
        [shared["model"], shared["vae"], images, resume, *form.values()],
        [view, files, result, lora_prompt],
        **TRAIN,
    )
    use.click(
        lambda words: (words, gr.Tabs(selected="generate")),
        lora_prompt,
        [shared["prompt"], page.tabs],
        **UNQUEUED,
    )
    add_endpoint(page.model_cache, page.runner.visitors)


def _text(i18n: gr.I18n, name: str, placeholder: str | None = None) -> gr.Textbox:
    """Add the text box of the training option `name`, such as "rank", and return it.

    Numbers have a text box too, because Gradio sends an empty number field as 0. placeholder: the
    text key of the hint in the empty box; None for no hint.
    """
    return gr.Textbox(
        label=i18n(f"character_{name}"),
        info=i18n(f"character_{name}_hint"),
        placeholder=i18n(placeholder) if placeholder else None,
        max_lines=1,
        elem_id=f"character-{name}",
        min_width=120,
    )


def _preview(picture: Image.Image, language: str) -> str:
    return preview_frame(data_url(picture, PREVIEW_SIDE), say("character_preview", language))


TAB = Tab(title=("Character", "角色"), build=build, texts=texts.TEXTS)
