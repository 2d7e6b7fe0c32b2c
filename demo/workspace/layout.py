"""The workspace that all task tabs share: prompt, settings, run button, result and history.

It is built once, below the tabs, and not once for each tab: prompt, settings and pictures stay when
another tab is selected. The selected tab only decides, through the rules of `css`, which of the
components are visible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from ..texts import request_language
from ..ui.listeners import UNQUEUED
from ..ui.status import idle_frame, status_line, stopped_line
from ..ui.stop import StopButton
from ..ui.tab import Tab, TaskTab
from . import (
    backend_menu,
    compare,
    fill_form,
    history,
    menus,
    prompt_line,
    run,
    sampler_menu,
    send_to,
    switch_model,
    vocabulary,
)
from .compare import Comparison

if TYPE_CHECKING:
    from ..page import Page

EXAMPLES = (
    "a red apple on a blue background",
    "蓝色背景上的红苹果",
    "a cat to the left of a rocket on a white background",
    "a fox above a mushroom on a green background",
    "粉色背景上的企鹅",
)
# JavaScript that presses the visible button of the selected task.
PRESS = "() => { [...document.querySelectorAll('.gb-go')].find(b => b.offsetParent)?.click(); }"
# From a field to the id of its row, where the whole row is hidden with the field.
ROWS = {"width": "gb-size", "height": "gb-size"}
# CSS selector of the page while the tab with the key {} is selected.
SELECTED = '.gradio-container:has(#tab-{}[style*="flex"])'


@dataclass(frozen=True)
class ResultView:
    """The components that show a task's result, which all task tabs share.

    view: HTML in front of the gallery: the preview while a picture is drawn
    gallery, status, parameters: the pictures, the status line, and the pictures' parameters texts
    strip: the history, past pictures of this browser
    chosen: state, index of the gallery's selected picture
    comparison: the before/after slider that compares the result with the input picture
    records: state, for each picture the key of its recording (all model calls, for the tab Look
        inside) in the server's RecordingStore, or None
    last_seed: state, the seed of the first picture as a string; None before there is one
    """

    view: gr.HTML
    gallery: gr.Gallery
    status: gr.HTML
    parameters: gr.Textbox
    strip: gr.HTML
    chosen: gr.State
    comparison: Comparison
    records: gr.State
    last_seed: gr.State


def css(tabs: Mapping[str, Tab | TaskTab]) -> str:
    """Return the CSS rules that hide each component that does not belong to the selected tab.

    All task tabs share one set of components, the workspace. A component with the CSS class gb-for
    is visible only in the tabs that it names by further classes: "gb-for-inpaint" for the tab with
    the key "inpaint". In a tab that is no TaskTab, the whole workspace is hidden. tabs: a dict from
    tab key to tab.
    """
    rules = []
    for key, tab in tabs.items():
        here = SELECTED.format(key)
        if not isinstance(tab, TaskTab):
            rules.append(f"{here} #gb-work")
            continue
        rules.append(f"{here} .gb-for:not(.gb-for-{key})")
        rules += [f"{here} #{ROWS.get(name, name)}" for name in tab.without]
        if tab.own_size:
            rules.append(f"{here}:has(#own_size input:checked) #gb-size")
    return ",\n".join(rules) + " { display: none !important; }\n"


def build(page: Page, tabs: dict[str, TaskTab]) -> None:
    """Build the workspace, the components that all task tabs share, and attach their listeners.

    They are the prompts, the settings, the buttons and the result. It sets the fields of `page`
    that hold them, from `form` to `fill`. tabs: a dict from task key, such as "inpaint", to the tab
    that runs the task.
    """
    i18n = page.i18n
    form, own = page.form, dict[str, dict[str, Any]]()
    go_buttons: dict[str, gr.Button] = {}
    with gr.Column(elem_id="gb-work", min_width=0):
        with gr.Column(elem_id="gb-grid"):
            with gr.Column(elem_id="gb-ask", min_width=0):
                lines = {name: _prompt_box(i18n, form, name) for name in ("prompt", "negative")}
                for key, task in tabs.items():
                    with gr.Column(elem_classes=[*_only(key), "gb-inputs"], min_width=0):
                        own[key] = task.inputs(page, key)
                with gr.Row(elem_id="gb-buttons"):
                    for key in tabs:
                        go_buttons[key] = gr.Button(
                            i18n(key),
                            variant="primary",
                            elem_id=key,
                            elem_classes=[*_only(key), "gb-go"],
                            scale=4,
                        )
                    stop = gr.Button(i18n("stop"), variant="stop", elem_id="stop", min_width=90)
                gr.Examples(
                    [[text] for text in EXAMPLES],
                    form["prompt"],
                    label=i18n("examples"),
                    elem_id="examples",
                    api_visibility="private",
                )
            with gr.Column(elem_id="gb-see", min_width=0):
                shown, senders = _build_result(page)
                below = gr.Column(elem_id="history", min_width=0)
            with gr.Column(elem_id="gb-how", min_width=0):
                added, seeds = _build_settings(page, tabs)
        visible = bool(page.model_cache.first.vocabulary)
        vocabulary_panel = vocabulary.build_panel(i18n, form["prompt"], visible)
    status = shown["status"]
    load_after = switch_model.wire(page, status, added, vocabulary_panel)
    page.fill = fill_form.make_fill(page, status, load_after)
    with below:
        strip = history.build_panel(page)
    result = ResultView(
        **shown,
        strip=strip,
        records=gr.State(()),
        last_seed=gr.State(),
    )
    page.result = result
    for name, line in lines.items():
        prompt_line.wire(page, form[name], line)
        form[name].submit(None, js=PRESS)  # type: ignore[attr-defined]  # Gradio adds events
    stopping = StopButton(page.runs, "work", stop, status, stopped_line)
    for key in tabs:
        run.wire(page, key, tabs[key], go_buttons[key], own[key], stopping)
    send_to.wire(page, senders)
    compare.wire(result)
    _wire_settings(page, added, seeds, result.last_seed)


def _only(*keys: str) -> list[str]:
    """Return the CSS classes of a component that is visible only in the tabs with these keys.

    The rules of `css` hide it in all others. keys: such as "inpaint".
    """
    return ["gb-for", *(f"gb-for-{key}" for key in keys)]


def _prompt_box(i18n: gr.I18n, form: dict[str, Component], name: str) -> gr.HTML:
    """Build the text box of a prompt, and the line under it that shows tokens and weights.

    Returns the line. name: "prompt" or "negative"; the text box becomes form[name].
    """
    form[name] = gr.Textbox(
        label=i18n(name),
        placeholder=i18n(f"{name}_hint"),
        lines=1,
        max_lines=6 if name == "prompt" else 4,
        elem_id=name,
    )
    return prompt_line.build_line(name)


def _build_result(page: Page) -> tuple[dict[str, Any], dict[str, gr.Button]]:
    """Build the gallery and the components around it, which show a task's result.

    Returns the fields of ResultView by name, without strip, records and last_seed, and a dict from
    task key to the button that sends the gallery's picture to that task.
    """
    i18n = page.i18n
    with gr.Column(elem_id="gb-frame", min_width=0):
        gallery = gr.Gallery(
            label=i18n("pictures"),
            show_label=False,
            container=False,
            format="png",
            object_fit="contain",
            height="100%",
            columns=4,
            buttons=["download", "download_all", "fullscreen"],
            interactive=False,
            elem_id="gallery",
        )
        view = gr.HTML(idle_frame(i18n("idle")), apply_default_css=False, elem_id="stage")
        slider = compare.build_slider(i18n)
    status = gr.HTML(status_line("ready", i18n("ready")), apply_default_css=False, elem_id="status")
    with gr.Row(elem_id="gallery-send", elem_classes="gb-send"):
        page.inside_button = gr.Button(
            i18n("inside_open"), size="sm", variant="primary", elem_id="look", min_width=0
        )
        senders = send_to.build_buttons(page, "gallery")
        comparison = Comparison(compare.build_button(i18n), slider, gr.State(), gr.State(False))
    parameters = gr.Textbox(
        label=i18n("parameters"),
        info=i18n("parameters_hint"),
        lines=4,
        max_lines=6,
        interactive=False,
        buttons=["copy"],
        elem_id="parameters",
    )
    shown = dict(
        gallery=gallery,
        view=view,
        status=status,
        chosen=gr.State(0),
        comparison=comparison,
        parameters=parameters,
    )
    return shown, senders


def _build_settings(
    page: Page, tabs: dict[str, TaskTab]
) -> tuple[dict[str, gr.Dropdown], tuple[gr.Button, gr.Button]]:
    """Build the settings that all task tabs share, such as steps, and add them to page.form.

    Returns the menus {"lora": ..., "embedding": ...} and the two buttons that set the seed:
    (random, that of the last picture). tabs: a dict from task key to tab.
    """
    i18n, models, form = page.i18n, page.model_cache.first, page.form
    defaults = models.defaults
    form["model"] = menus.model_dropdown(page)
    form["vae"] = menus.vae_dropdown(page)
    with gr.Row(elem_id="gb-additions"):
        added = {kind: menus.addition_dropdown(page, kind) for kind in menus.TAGS}
    with gr.Row():
        form["sampler"], form["schedule"] = sampler_menu.build_dropdowns(
            i18n, defaults["sampler"], defaults["schedule"]
        )
    with gr.Row():
        form["steps"] = _number(i18n, "steps", defaults["steps"])
        form["cfg"] = _number(i18n, "cfg", defaults["cfg"], step=0.5)
        form["count"] = _number(i18n, "count", 1)
    page.own_size = gr.Checkbox(
        True,
        label=i18n("own_size"),
        info=i18n("own_size_hint"),
        elem_id="own_size",
        elem_classes=_only(*(key for key, task in tabs.items() if task.own_size)),
    )
    with gr.Row(elem_id="gb-size"):
        form["width"] = _number(i18n, "width", defaults["width"], step=8)
        form["height"] = _number(i18n, "height", defaults["height"], step=8)
    with gr.Row(elem_id="gb-seed"):
        form["seed"] = _typed(i18n, "seed", "seed_hint", scale=2, min_width=120)
        randomize = gr.Button(i18n("randomize"), elem_id="randomize", min_width=70)
        reuse = gr.Button(i18n("reuse"), elem_id="reuse", min_width=90)
    with gr.Row(elem_id="gb-variation"):
        form["variation_seed"] = _typed(
            i18n, "variation_seed", "seed_hint", info=i18n("variation_seed_hint"), min_width=140
        )
        form["variation_strength"] = _number(
            i18n, "variation_strength", 0, step=0.05, info=i18n("variation_strength_hint")
        )
    with gr.Row(elem_id="gb-reading"):
        form["clip_skip"] = _typed(
            i18n, "clip_skip", "clip_skip_own", info=i18n("clip_skip_hint"), min_width=140
        )
        form["cfg_rescale"] = gr.Number(
            0,
            label=i18n("cfg_rescale"),
            info=i18n("cfg_rescale_hint"),
            step=0.05,
            elem_id="cfg_rescale",
            min_width=140,
        )
    with gr.Row(elem_id="gb-backends"):
        for kind in ("attention", "group_norm"):
            form[kind] = backend_menu.build_dropdown(i18n, models, kind)
    return added, (randomize, reuse)


def _wire_settings(
    page: Page,
    added: dict[str, gr.Dropdown],
    seeds: tuple[gr.Button, gr.Button],
    last_seed: gr.State,
) -> None:
    """Attach the listeners of the seed's buttons and of the menus of LoRAs and embeddings.

    They set the fields seed and prompt. When the page opens, the menus of page.translated get
    choices in the visitor's language. added: {"lora": menu, "embedding": menu}. seeds: the buttons
    for a random seed and for the last one, which `last_seed` holds.
    """
    prompt, seed = page.form["prompt"], page.form["seed"]
    randomize, reuse = seeds
    randomize.click(lambda: "", None, seed, **UNQUEUED)
    reuse.click(lambda last: last, last_seed, seed, **UNQUEUED)
    for kind, box in added.items():
        box.input(partial(menus.add_to_prompt, kind), [prompt, box], [prompt, box], **UNQUEUED)

    def translate(request: gr.Request) -> dict[Any, Any]:
        language = request_language(request)
        return {
            box: gr.update(choices=choices(language)) for box, choices in page.translated.items()
        }

    gr.on(None, translate, None, [*page.translated], **UNQUEUED)


def _number(i18n: gr.I18n, key: str, value: float, **more: Any) -> gr.Number:
    """Build a number field without limits for the option `key` of GenerateOptions.

    GenerateOptions raises InputError for wrong values. more: arguments of gr.Number.
    """
    return gr.Number(value, label=i18n(key), elem_id=key, min_width=80, **more)


def _typed(i18n: gr.I18n, key: str, hint: str, **more: Any) -> gr.Textbox:
    """Build a text box for a number that may be left out; gr.Number sends 0 when it is empty.

    key: the option of GenerateOptions, such as "seed". hint: the text key of its placeholder. more:
    arguments of gr.Textbox.
    """
    return gr.Textbox(label=i18n(key), placeholder=i18n(hint), max_lines=1, elem_id=key, **more)
