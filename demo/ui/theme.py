"""The page's colours, fonts and style sheets, light and dark. All fonts are the visitor's own."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from gradio.themes.utils.colors import Color

from .status import CUBE

if TYPE_CHECKING:
    from pipeline.model import Models

GLASS = Color(
    "#f0f7f4", "#dcece6", "#b9d9ce", "#8fc2b2", "#5fa793", "#3a8c77", "#1f7060", "#1a5b4f",
    "#174a41", "#133d36", "#0a2420", name="glass",
)  # fmt: skip
PAPER = Color(
    "#faf8f5", "#f4f1ec", "#e6e1d9", "#d3ccc1", "#a8a094", "#7d756a", "#5d574e", "#3f3b36",
    "#262422", "#1b1a19", "#121212", name="paper",
)  # fmt: skip

SANS = (
    "ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans",
    "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif",
)  # fmt: skip
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

DEMO = Path(__file__).parents[1]
STYLES = (DEMO / "ui/page.css", *sorted(DEMO.glob("tabs/**/*.css")))
CSS = "\n".join(path.read_text(encoding="utf-8") for path in STYLES)
SCRIPTS = "".join(
    f"<script>{Path(__file__).with_name(name).read_text(encoding='utf-8')}</script>"
    for name in ("drops.js", "again.js")
)
HEAD = f'<meta name="color-scheme" content="light dark">{SCRIPTS}'


def theme() -> gr.themes.Base:
    """Return the Gradio theme with the page's colours, sizes and system fonts."""
    return gr.themes.Base(
        primary_hue=GLASS,
        secondary_hue=GLASS,
        neutral_hue=PAPER,
        font=SANS,
        font_mono=MONO,
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
    ).set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="#131615",
        body_text_color="*neutral_800",
        body_text_color_dark="#e9e6e0",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="#96a09b",
        background_fill_primary="white",
        background_fill_primary_dark="#1b1f1e",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="#202524",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#2c3331",
        color_accent_soft="*primary_100",
        color_accent_soft_dark="#21443c",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        block_padding="0px",
        block_label_background_fill="transparent",
        block_title_text_size="*text_sm",
        block_title_text_weight="600",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="#cfd4d0",
        block_info_text_size="*text_xs",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="#96a09b",
        input_background_fill="white",
        input_background_fill_dark="#171b1a",
        input_border_color="*neutral_300",
        input_border_color_dark="#343c3a",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        input_shadow="none",
        input_shadow_focus="0 0 0 3px color-mix(in srgb, var(--primary-500) 18%, transparent)",
        input_placeholder_color="*neutral_400",
        input_placeholder_color_dark="#66706b",
        input_radius="10px",
        input_border_width="1px",
        input_padding="9px 12px",
        button_border_width="1px",
        button_border_width_dark="1px",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        button_large_radius="10px",
        button_small_radius="10px",
        button_medium_radius="10px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="#5fc0a6",
        button_primary_background_fill_hover_dark="#78d0b8",
        button_primary_text_color="white",
        button_primary_text_color_dark="#0c2420",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="#202524",
        button_secondary_background_fill_hover="*neutral_50",
        button_secondary_background_fill_hover_dark="#29302e",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="#343c3a",
        button_cancel_background_fill="transparent",
        button_cancel_background_fill_dark="transparent",
        button_cancel_background_fill_hover="#f6e4de",
        button_cancel_background_fill_hover_dark="#3a2520",
        button_cancel_text_color="#a3402a",
        button_cancel_text_color_dark="#ef9a83",
        button_cancel_text_color_hover="#a3402a",
        button_cancel_text_color_hover_dark="#ef9a83",
        button_cancel_border_color="#d9a596",
        button_cancel_border_color_dark="#6b3f34",
    )


def header(tagline: object, models: Models) -> str:
    """Return the page's header as HTML: name, tagline, and which model runs on which device."""
    facts = [models.name, getattr(models, "hash", None), getattr(models, "device", None)]
    badge = "".join(f"<span>{escape(str(fact))}</span>" for fact in facts if fact)
    return (
        f'<header class="gb-head">{CUBE}<div><h1>Glassbox Diffusion</h1><p>{tagline}</p></div>'
        f'<div class="gb-badge">{badge}</div></header>'
    )
