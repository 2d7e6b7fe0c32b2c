"""The browser page: knows the engine's events, nothing of UNets.

page = build(ModelCache(load("emoji")))
serve(page, server_port=7860)
"""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from . import texts
from .page import Page
from .server import api, runner
from .tabs import PANEL_TABS, TABS, TASK_TABS
from .ui import theme
from .workspace import layout

QUEUE_SIZE = 24  # requests that may wait; the next one is told that the server is busy
LARGEST_FILE = "64mb"  # that may be dropped: large PNGs have 30
# On a narrow screen the tabs are a row that scrolls.
INTO_VIEW = """() => {
  const tab = document.querySelector('#tabs [role=tab][aria-selected=true]');
  tab?.scrollIntoView({block: 'nearest', inline: 'center'});
}"""
KEEP_FILES = (600, 3600)  # seconds: how often pictures are looked through, how old they may grow


def build(model_cache, on_gpu: Callable = lambda function: function) -> gr.Blocks:
    """The page of `model_cache`. `on_gpu` wraps the work where a GPU is lent by the call."""
    i18n = texts.translations()
    paint = runner.painter(model_cache, on_gpu)
    with api.Blocks(
        title="Glassbox Diffusion", analytics_enabled=False, delete_cache=KEEP_FILES
    ) as blocks:
        head = gr.HTML(
            theme.header(i18n("tagline"), model_cache.first),
            apply_default_css=False,
            elem_id="gb-head",
        )
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            panels = {key: gr.Tab(i18n(f"tab_{key}"), id=key, elem_id=f"tab-{key}") for key in TABS}
        tabs.change(None, js=INTO_VIEW)
        page = Page(model_cache, paint, i18n, head, tabs, panels)
        layout.build(page, TASK_TABS)
        for key, tab in PANEL_TABS.items():
            with panels[key]:
                tab.build(page)
        api.endpoints(paint)
    blocks.queue(max_size=QUEUE_SIZE, api_open=False)
    blocks.i18n = i18n
    return blocks


def serve(page: gr.Blocks, **where) -> tuple:
    """Start the server and return; `where` goes to `launch` (server_name, share, ...)."""
    return page.launch(
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        theme=theme.theme(),
        css=theme.CSS + layout.css(TABS),
        head=theme.HEAD,
        i18n=page.i18n,
        footer_links=["api", "gradio"],
        run_history=False,
        ssr_mode=False,
        max_file_size=LARGEST_FILE,
        **where,
    )
