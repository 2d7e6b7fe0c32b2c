"""A specific character: a LoRA is trained on a handful of pictures, then used in the prompt."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import gradio as gr

from pipeline.errors import InputError

from ...page import Page
from ...server.runner import Broken, broken, data_url
from ...texts import request_language, say
from ...ui import status as stage
from ...ui.tab import Tab
from . import texts
from . import view as character

TRAIN = {"concurrency_id": "train", "concurrency_limit": 1}  # one training at a time
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
MOST_STEPS, MOST_PICTURES = 2000, 50  # a server has other visitors, too
SHOW_EVERY = 0.5  # seconds between two words on how far it is
PREVIEWS = 4
SIDE = 256  # pixels of a preview
NUMBERS = ("steps", "rank", "prior_count")
TEXTS = ("name", "prompt", "prior_prompt")


def build(page: Page) -> None:
    """Build the tab inside the page and wire it."""
    i18n = page.i18n
    with gr.Column(elem_id="gb-character", min_width=0):
        with gr.Column(elem_classes="gb-card", min_width=0):
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
                    i18n("character_go"), variant="primary", scale=4, elem_id="character-go"
                )
                stop = gr.Button(
                    i18n("stop"), variant="stop", min_width=90, elem_id="character-stop"
                )
        with gr.Column(elem_classes="gb-card", min_width=0):
            view = gr.HTML(
                stage.idle(i18n("character_idle")),
                apply_default_css=False,
                elem_id="character-view",
            )
            status = gr.HTML(
                stage.line("ready", i18n("ready")),
                apply_default_css=False,
                elem_id="character-status",
            )
            with gr.Column(visible=False, min_width=0) as made:
                files = gr.File(
                    label=i18n("character_files"),
                    file_count="multiple",
                    interactive=False,
                    elem_id="character-files",
                )
                use = gr.Button(i18n("character_use"), variant="primary", elem_id="character-use")
    learned = gr.State("")  # what to write into the prompt
    last = gr.State(0)  # the step that was shown last

    def run(request: gr.Request, model, vae, pictures, again, *values):
        language, losses, shown = request_language(request), [], 0.0
        yield {status: stage.line("running", say("starting", language)), last: 0}
        given = {k: (v or "").strip() for k, v in zip(form, values, strict=True)}
        given |= {"images": pictures, "resume": again, "model": model, "vae": vae}
        try:
            for event in train(page.model_cache, given):
                if hasattr(event, "path"):
                    yield {
                        status: character.done(event, language, losses),
                        files: [str(event.path), str(event.other)],
                        made: gr.update(visible=True),
                        learned: f"{given['prompt']} {character.tag(event.name)}",
                    }
                    continue
                if event.mean is not None:
                    losses.append(event.mean)
                updates = {}
                if event.preview is not None:
                    updates[view] = _preview(event.preview, language)
                if updates or time.monotonic() - shown >= SHOW_EVERY:
                    shown = time.monotonic()
                    said = character.running(event, language, losses)
                    yield updates | {status: said, last: event.step}
        except (InputError, Broken) as error:
            sentence = str(error) if isinstance(error, InputError) else say("broken", language)
            yield {status: stage.error(sentence)}
            raise gr.Error(sentence, title=say("error", language), print_exception=False) from None

    def halted(step: int, request: gr.Request):
        return stage.line("stopped", say("character_stopped", request_language(request), step=step))

    box = page.form
    running = go.click(
        run,
        [box["model"], box["vae"], images, resume, *form.values()],
        [status, view, files, made, learned, last],
        api_visibility="private",
        show_progress="hidden",
        **TRAIN,
    )
    stop.click(halted, last, status, cancels=[running], queue=False, **PRIVATE)
    use.click(
        lambda words: (words, gr.Tabs(selected="generate")),
        learned,
        [box["prompt"], page.tabs],
        queue=False,
        **PRIVATE,
    )
    _endpoint(page.model_cache)


def train(model_cache, given: dict) -> Iterator:
    """Events of training/lora/train.py. InputError for what the user can mend, Broken for
    the rest. given: fields of its LoraOptions, "model" and "vae" as the model cache knows them."""
    options = {k: given[k] for k in TEXTS if given.get(k)}
    for name in NUMBERS:
        value = given.get(name)
        if value in (None, ""):
            continue
        try:
            options[name] = int(str(value))
        except ValueError:
            raise InputError(f"{name} must be a whole number, not {str(value)[:60]!r}.") from None
    images = [str(path) for path in given.get("images") or ()]
    for name in ("name", "prompt"):
        if not options.get(name):
            raise InputError(f"There is no {name}: {_WANTED[name]}.")
    if not images:
        raise InputError("There are no pictures: give a handful that show the character.")
    if len(images) > MOST_PICTURES:
        raise InputError(f"{len(images)} pictures are too many; at most {MOST_PICTURES} are taken.")
    if options.get("steps", 1) > MOST_STEPS:
        raise InputError(
            f"{options['steps']} steps are too many for this page, at most {MOST_STEPS}; the"
            " command line takes more."
        )
    if os.environ.get("SPACES_ZERO_GPU"):
        raise InputError(
            "This server has a GPU for seconds at a time only; train on a machine of your own."
        )
    with broken():
        from pipeline.training.lora import train as lora

        models = model_cache.get(given.get("model") or None, given.get("vae") or None)
        asked = lora.LoraOptions(
            images=images, previews=PREVIEWS, resume=bool(given.get("resume")), **options
        )
        events = lora.train(models, asked)
        try:
            yield from events
        finally:
            events.close()


_WANTED = {
    "name": "say what the character's file shall be called, such as zog",
    "prompt": "say how the character is asked for, such as 'zog the striped creature'",
}


def _endpoint(model_cache) -> None:
    """`/train_lora`, for clients and MCP."""

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
    ):
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
        try:
            for event in train(model_cache, given):
                if hasattr(event, "path"):
                    text = f"{prompt} {character.tag(event.name)}"
                    yield [str(event.path), str(event.other)], text
                else:
                    yield [], ""
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except Broken:
            raise gr.Error(say("broken", "en"), print_exception=False) from None

    with gr.Row(visible=False):
        inputs = [
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


def _text(i18n, name: str, placeholder: str | None = None) -> gr.Textbox:
    """Text or a number that may be left out: an empty number field would be sent as 0."""
    return gr.Textbox(
        label=i18n(f"character_{name}"),
        info=i18n(f"character_{name}_hint"),
        placeholder=i18n(placeholder) if placeholder else None,
        max_lines=1,
        elem_id=f"character-{name}",
        min_width=120,
    )


def _preview(picture, language: str) -> str:
    alt = say("character_preview", language)
    source = data_url(picture, SIDE)
    return f'<div class="gb-stage gb-live"><img src="{source}" alt="{alt}"></div>'


TAB = Tab(title=("Character", "角色"), build=build, texts=texts.TEXTS)
