"""The tab Kernels: which backends of attention and GroupNorm this server can run, and benchmarks.

The benchmarks are the committed results of `python -m kernels.bench`, of this and other machines.
"""

from __future__ import annotations

import io
import re
import threading
from functools import lru_cache
from html import escape
from typing import Any

import gradio as gr

from kernels.bench import report, results
from kernels.registry import KERNELS

from ...page import Page
from ...texts import request_language, say
from ...ui.listeners import UNQUEUED
from ...ui.tab import Tab
from ...workspace import backend_menu
from . import texts

DRAWING = threading.Lock()  # matplotlib's settings belong to the process, not to a thread
INK = "#123456"  # of matplotlib's plots; replaced by the page's own text colour
MODES = [(kernel.name, mode) for kernel in KERNELS.values() for mode in kernel.modes]


def build(page: Page) -> None:
    """Build the tab Kernels: which backends this server can run, and benchmarks of the kernels.

    Adds its components to the page that is being built, and attaches their listeners.
    """
    i18n = page.i18n
    measured = machines()
    with gr.Column(elem_id="gb-here", elem_classes="gb-card", min_width=0):
        _heading(i18n("kernels_here"), i18n("kernels_here_hint"))
        here = gr.HTML(apply_default_css=False, elem_id="backends", min_height=300)

        def can_run(request: gr.Request) -> str:
            return backend_menu.render_table(page.model_cache.first, request_language(request))

        gr.on(None, can_run, None, here, **UNQUEUED)
    with gr.Column(elem_id="gb-measured", elem_classes="gb-card", min_width=0):
        _heading(i18n("kernels_measured"), i18n("kernels_measured_hint"))
        if not measured:
            return
        with gr.Row():
            machine = gr.Dropdown(
                [(_machine(rows), name) for name, rows in measured.items()],
                value=next(iter(measured)),
                label=i18n("measured_on"),
                elem_id="machine",
                min_width=220,
            )
            operation = gr.Dropdown(
                [(_operation(*mode), "/".join(mode)) for mode in MODES],
                value="/".join(MODES[0]),
                label=i18n("operation"),
                elem_id="operation",
                min_width=220,
            )
        view = gr.HTML(apply_default_css=False, elem_id="bench")

    def show(name: str, chosen: str, request: gr.Request) -> str:
        return render_results(name, *chosen.split("/"), request_language(request))

    # Without triggers, Gradio calls `show` when the page opens and when a choice changes.
    gr.on(None, show, [machine, operation], view, **UNQUEUED)


def machines() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each results file by its name, those of GPUs first."""
    measured = results.load_results()
    return dict(sorted(measured.items(), key=lambda item: item[1][0].get("gpu") is None))


@lru_cache(64)
def render_results(name: str, kernel: str, mode: str, language: str) -> str:
    """Return the benchmark results of a machine as HTML: bar charts of one kernel, and a roofline.

    The roofline plot shows all kernels. name: the name of a results file in kernels/bench/results,
    without ".json". kernel: a key of KERNELS. mode: one of its modes, such as "forward".
    """
    rows = results.load_results()[name]
    here = [r for r in rows if (r["kernel"], r["mode"]) == (kernel, mode)]
    return bars(here, language) + roofline(rows, mode)


def _heading(title: object, hint: object) -> None:
    """Add a heading and a hint to the tab.

    They are two components, because Gradio translates one text in each.
    """
    gr.HTML(f'<h2 class="gb-title">{title}</h2>', apply_default_css=False)
    gr.HTML(f'<p class="gb-note gb-not">{hint}</p>', apply_default_css=False)


def _machine(rows: list[dict[str, Any]]) -> str:
    if rows[0].get("gpu"):
        return rows[0]["gpu"]
    name = re.sub(r"\((R|TM)\)| (CPU|Processor)\b", "", rows[0]["cpu"])
    return f"{name} · {rows[0]['threads']} threads"


def _operation(kernel: str, mode: str) -> str:
    label = KERNELS[kernel].label
    return f"{label[0].upper()}{label[1:]} · {mode}"


def bars(rows: list[dict[str, Any]], language: str) -> str:
    """Return the benchmark results of one kernel as HTML: a bar chart for each shape of its input.

    It has a bar for each provider, an implementation such as "ours" or "xformers", as long as it is
    fast against the fastest one at that shape, with its rate, its share of the device's ceiling,
    and its speed relative to the fastest one that is not ours. Providers without a time at any
    shape are listed below the charts, with the reason. rows: dicts of one kernel in one mode, such
    as "forward", see kernels.bench.measure.Row.
    """
    timed = [r for r in rows if r["p50"]]
    if not timed:
        return f'<p class="gb-note">{say("bench_none", language)}</p>'
    shapes: dict[str, list[dict[str, Any]]] = {}
    for r in timed:
        shapes.setdefault(r["shape"], []).append(r)
    ceiling = timed[0]["ceilings"][timed[0]["metric"]]
    blocks = []
    for shape, here in shapes.items():
        best = min((r["p50"] for r in here if not r["provider"].startswith("ours")), default=None)
        top = max(r["rate"] for r in here)
        lines = "".join(_bar(r, top, best) for r in here)
        blocks.append(
            f'<table class="gb-bench"><caption>{escape(shape)}</caption>'
            f"<tbody>{lines}</tbody></table>"
        )
    first = timed[0]
    versions = ", ".join(f"{k} {v}" for k, v in first["versions"].items() if v)
    legend = say(
        "bench_legend", language, metric=first["metric"], ceiling=f"{ceiling:.3g}",
        dtype=first["dtype"], versions=versions,
    )  # fmt: skip
    ways = sorted({r["timed"] for r in timed if r.get("timed")})
    space = "" if language == "zh" else " "
    legend = space.join([*(say(f"bench_{way}", language) for way in ways), legend])
    ratios = report.ratios(rows, first["kernel"], first["mode"])
    compared = ""
    if ratios:
        times = [ratio.times for ratio in ratios]
        sentence = say(
            "bench_ours", language, mean=f"{report.geometric_mean(times):.2f}", count=len(times),
            least=f"{min(times):.2f}", most=f"{max(times):.2f}",
        )  # fmt: skip
        compared = f'<p class="gb-compared">{escape(sentence)}</p>'
    absent = {r["provider"]: r["note"] for r in rows if not r["p50"]}
    for r in timed:
        absent.pop(r["provider"], None)
    missing = "".join(
        f"<li><b>{escape(name)}</b> {escape(note.removeprefix('not here: '))}</li>"
        for name, note in absent.items()
    )
    if missing:
        head = say("bench_absent", language)
        missing = f'<div class="gb-absent"><p>{head}</p><ul>{missing}</ul></div>'
    legend = f'<p class="gb-note">{escape(legend)}</p>'
    return f'{compared}{legend}<div class="gb-benches">{"".join(blocks)}</div>{missing}'


def _bar(row: dict[str, Any], top: float, best: float | None) -> str:
    ours = " gb-ours" if row["provider"].startswith("ours") else ""
    ratio = f"{best / row['p50']:.2f}×" if best else ""
    return (
        f'<tr class="gb-row{ours}"><th scope="row">{escape(row["provider"])}</th>'
        f'<td class="gb-track"><i style="width:{row["rate"] / top:.1%}"></i></td>'
        f'<td>{row["rate"]:.3g}</td><td class="gb-share">{row["share"]:.0%}</td>'
        f"<td>{ratio}</td></tr>"
    )


def roofline(rows: list[dict[str, Any]], mode: str) -> str:
    """Return the roofline plot of all kernels in one mode as inline SVG; "" without results.

    Its text has the colour of the page's text. rows: the benchmark results of one machine. mode:
    such as "forward".
    """
    import matplotlib

    from kernels.bench import plot

    timed = [r for r in rows if r["mode"] == mode and r["p50"]]
    if not timed:
        return ""
    style: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    )
    with (
        DRAWING,
        matplotlib.rc_context(style | {"svg.fonttype": "none", "svg.hashsalt": "glassbox"}),
    ):
        out = io.StringIO()
        plot.roofline(timed, ink=INK).savefig(out, format="svg", transparent=True)
    drawing = out.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    label = f'class="gb-roofline" role="img" aria-label="Roofline, {mode}"'
    return f"<figure {label}>{drawing}</figure>"


TAB = Tab(title=("Kernels", "内核"), build=build, texts=texts.TEXTS)
