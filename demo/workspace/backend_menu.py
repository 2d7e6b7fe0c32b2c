"""Two menus and a table of the backends for attention and GroupNorm on this server."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipeline.backends import KINDS, trust

from ..texts import note, say
from ..ui.failures import hide_paths
from ..ui.listeners import UNQUEUED

if TYPE_CHECKING:
    from pipeline.model import Models


def build_dropdown(i18n: gr.I18n, models: Models, kind: str) -> gr.Dropdown:
    """Build the menu from which a visitor chooses the backend of attention or of GroupNorm.

    ✕ marks a backend that cannot run here; when it is chosen, the text under the menu says why.
    kind: "attention" or "group_norm".
    """
    box = gr.Dropdown(
        _choices(models, kind),
        value="auto",
        label=i18n(kind),
        info=i18n("backend_auto"),
        elem_id=kind,
        min_width=140,
    )

    def explain(chosen: str) -> dict[str, Any]:
        reason = models.backends.unsupported_reason(kind, chosen) if chosen != "auto" else None
        key = "backend_auto" if chosen == "auto" else f"{kind}.{chosen}"
        return gr.update(info=hide_paths(reason) if reason else i18n(key))

    box.input(explain, box, box, **UNQUEUED)
    return box


def _choices(models: Models, kind: str) -> list[tuple[str, str]]:
    """Return the (label, value) pairs of a menu of backends, "auto" first.

    The label of "auto" names the backend that it takes now; ✕ marks one that cannot run here. kind:
    "attention" or "group_norm".
    """
    first = models.backends.candidates(kind, "auto")[0]
    return [(f"auto: {first}", "auto")] + [
        (f"{name} ✕" if models.backends.unsupported_reason(kind, name) else name, name)
        for name in KINDS[kind].table
    ]


def render_table(models: Models, language: str) -> str:
    """Return two HTML tables of the backends, attention and GroupNorm: which run here, or why not.

    language: "en" or "zh".
    """
    parts = []
    state = trust.state(models.backends.device, models.backends.dtype)
    line = f'<p class="gb-note">{say(f"kernels_{state}", language)}</p>' if state else ""
    for kind in KINDS:
        first = models.backends.candidates(kind, "auto")[0]
        rows = []
        for name in KINDS[kind].table:
            reason = models.backends.unsupported_reason(kind, name)
            about = hide_paths(reason) if reason else note(f"{kind}.{name}", language)
            mark = f'<b class="gb-auto">{say("auto_takes", language)}</b>' if name == first else ""
            state, word = ("no", "cannot_run") if reason else ("yes", "can_run")
            rows.append(
                f'<tr class="gb-{state}"><th scope="row">{escape(name)}{mark}</th>'
                f"<td><b>{say(word, language)}</b>"
                f"<span>{escape(about)}</span></td></tr>"
            )
        caption = f"<caption>{say(kind, language)}</caption>"
        parts.append(f'<table class="gb-backends">{caption}{"".join(rows)}</table>')
    return f'{line}<div class="gb-pair">{"".join(parts)}</div>'
