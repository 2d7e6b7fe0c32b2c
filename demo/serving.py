"""Build the page with its tabs and the web API, and serve both."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio import utils as gradio_utils
from gradio.routes import App
from starlette.middleware import Middleware

from pipeline.images.gate import GATE
from pipeline.model_cache import ModelCache

from . import texts
from .limits import Limits, is_public
from .page import Page
from .server import api, temp_folder
from .server.guard import RouteGuard, hosts_of
from .server.queueing import Listeners, VisitorQueue, WatchListeners
from .server.runner import Runner
from .server.upkeep import Upkeep
from .server.visitors import VisitorCookie, Visitors
from .server.zerogpu import Work
from .tabs import PANEL_TABS, TABS, TASK_TABS
from .ui import theme
from .workspace import layout

QUEUE_SIZE = 24  # requests that may wait in each line; a further one is told that it is full
# Seconds that a connection may be idle. Clients and proxies reuse theirs for up to a minute; closed
# by the server at the moment of a request, it would lose that request.
KEEP_ALIVE = 75
LARGEST_FILE = "64mb"  # limit of one uploaded file; a large PNG picture has 30 MB
# JavaScript that scrolls the row of tabs, on a narrow screen, until the selected tab is visible.
INTO_VIEW = """() => {
  const tab = document.querySelector('#tabs [role=tab][aria-selected=true]');
  tab?.scrollIntoView({block: 'nearest', inline: 'center'});
}"""


def build(
    model_cache: ModelCache,
    wrap_gpu_work: Callable[[Work], Work] = lambda work: work,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> api.Blocks:
    """Build the page and the web API that draw with the models of `model_cache`.

    wrap_gpu_work: decorates each generator function that uses the device, for servers on which each
    call must request a GPU; for ZeroGPU it is demo.server.zerogpu.wrap_gpu_work.
    limits: what visitors may use of the server.
    """
    GATE.budget = limits.decoding_mb * 10**6
    temp_folder.current()  # Gradio's components take their folder from it
    i18n = texts.translations()
    runner = Runner(model_cache, wrap_gpu_work, Visitors(limits), limits)
    with api.Blocks(title="Glassbox Diffusion", analytics_enabled=False) as blocks:
        head = gr.HTML(
            theme.header(i18n("tagline"), model_cache.first),
            apply_default_css=False,
            elem_id="gb-head",
        )
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            panels = {key: gr.Tab(i18n(f"tab_{key}"), id=key, elem_id=f"tab-{key}") for key in TABS}
        tabs.change(None, js=INTO_VIEW)
        page = Page(model_cache, runner, i18n, head, tabs, panels, limits)
        layout.build(page, TASK_TABS)
        for key, tab in PANEL_TABS.items():
            with panels[key]:
                tab.build(page)
        api.endpoints(runner)
    blocks.queue(api_open=False)
    blocks._queue = VisitorQueue(blocks, limits, QUEUE_SIZE, page.runs.refusals)
    blocks.i18n, blocks.upkeep = i18n, Upkeep(blocks, runner, limits)
    return blocks


def serve(page: api.Blocks, **where: Any) -> tuple[App, str, str | None]:
    """Start the page's server in a background thread; return (FastAPI app, local URL, public URL).

    where: further arguments of `gr.Blocks.launch`, such as server_name, server_port and share.
    The public URL is None without share=True. Raises OSError if the server cannot listen on that
    address and port.
    """
    limits, listeners = page.upkeep.limits, Listeners()
    guard = Middleware(
        RouteGuard,
        blocks=page,
        hosts=hosts_of(where.get("server_name"), limits.hosts, _is_public(where)),
        upload_mb=limits.temp_disk_mb,
    )
    middleware = [guard, Middleware(WatchListeners, listeners=listeners)]
    if isinstance(page._queue, VisitorQueue):
        page._queue.watch(listeners)
    if not limits.shared_training:
        middleware.append(Middleware(VisitorCookie))
    app, local, shared = page.launch(
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
        enable_monitoring=False,
        app_kwargs={"lifespan": page.upkeep.lifespan, "middleware": middleware},
        **where,
    )
    page.server.config.timeout_keep_alive = KEEP_ALIVE  # of the connections from now on
    return app, local, shared


def _is_public(where: dict[str, Any]) -> bool:
    """Return whether a server that is launched with `where` is reached by other machines.

    Gradio gives a server in a hosted notebook a public link without being asked.
    """
    host = where.get("server_name") or os.environ.get("GRADIO_SERVER_NAME")
    notebook = gradio_utils.colab_check() or gradio_utils.is_hosted_notebook()
    return notebook or is_public(host, bool(where.get("share")))
