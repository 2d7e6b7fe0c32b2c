"""The line under a prompt: how many tokens it has, its words' weights, hints on its syntax."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from pipeline.errors import InputError
from pipeline.options import LIMITS, MAX_PROMPT
from pipeline.prompt.embeddings import Embedding, read_embedding
from pipeline.prompt.encode import count_tokens
from pipeline.prompt.syntax import Span, parse, parse_spans

from ..texts import request_language, say
from ..ui.listeners import UNQUEUED

if TYPE_CHECKING:
    from ..page import Page

# JavaScript that scrolls the weights to their end, where text is typed.
SCROLL_TO_END = """
watch('value', () => {
  const weights = element.querySelector('.gb-weights');
  if (weights) weights.scrollLeft = weights.scrollWidth;
});
"""


def build_line(key: str) -> gr.HTML:
    """Build the line under a prompt's text box, for its number of tokens, word weights and hints.

    key: of the text box, "prompt" or "negative". The line is empty until `wire` connects it.
    """
    return gr.HTML(
        elem_id=f"{key}-line",
        elem_classes="gb-prompt-line",
        apply_default_css=False,
        js_on_load=SCROLL_TO_END,
    )


def wire(page: Page, prompt: Component, line: gr.HTML) -> None:
    """Keep the line under a prompt up to date: number of tokens, word weights, syntax hints.

    It follows the text box `prompt`, the chosen model and the number of steps. line: from
    `build_line`.
    """

    def update(text: str, name: str, steps: float | None, request: gr.Request) -> str:
        tokenizer = page.tokenizers.get(name) or page.model_cache.first.tokenizer
        lower = (text or "").lower()
        files = [path for name, path in page.embeddings.items() if name.lower() in lower]
        embeddings = {one.name: one for one in map(_embedding, files) if one}
        language = request_language(request)
        return render_line(text or "", tokenizer, language, embeddings, _steps(steps))

    # without triggers: when the page opens, and when an input changes
    gr.on(
        None,
        update,
        [prompt, page.form["model"], page.form["steps"]],
        line,
        trigger_mode="always_last",
        **UNQUEUED,
    )


def _steps(value: float | None) -> int:
    """Return the number of steps in the form, clamped to the limits of GenerateOptions.

    The visitor may still be typing it. None gives the lower limit.
    """
    low, high = LIMITS["steps"]
    assert low is not None and high is not None
    return int(min(max(value or low, low), high))


@lru_cache(256)
def _embedding(path: Path) -> Embedding | None:
    """Read a textual inversion file, whose vectors count as tokens; None if it cannot be read."""
    try:
        return read_embedding(path)
    except InputError:  # the engine reports it when the prompt is used
        return None


def render_line(
    text: str,
    tokenizer: Any,
    language: str,
    embeddings: dict[str, Embedding] | None = None,
    steps: int = 20,
) -> str:
    """Return the line under a prompt as HTML: words with weights, number of tokens, syntax hints.

    The words are left out for a prompt without any syntax; for one longer than MAX_PROMPT the line
    is empty. tokenizer: CLIP's. language: "en" or "zh".
    embeddings: textual inversions in the prompt, by name; each counts as many tokens as vectors.
    steps: of the request, to which the steps in prompt schedules such as [cat:dog:0.5] refer.
    """
    if len(text) > MAX_PROMPT:  # refused by GenerateOptions
        return ""
    parsed, spans = parse(text, steps), parse_spans(text)
    used, room = count_tokens(tokenizer, parsed, embeddings)
    plain = all(s.kind == "text" and s.weight == 1.0 for s in spans)
    weights = "" if plain else "".join(map(_render_span, spans))
    focusable = ' tabindex="0"' if weights else ""  # so that a keyboard can scroll it
    hints = "".join(f"<li>{escape(hint)}</li>" for hint in parsed.hints)
    return (
        f'<div class="gb-words"><div class="gb-weights"{focusable}>{weights}</div>'
        f'<span class="gb-tokens">{say("tokens", language, used=used, room=room)}</span></div>'
        f'<ul class="gb-hints">{hints}</ul>'
    )


def _render_span(span: Span) -> str:
    """Return a span (a piece of the prompt with one weight) as HTML, to show the word weights.

    A weight other than 1 follows the text in small digits, and the text is coloured more strongly
    the farther the weight is from 1.
    """
    text = escape(span.text)
    if span.kind != "text":
        return f'<span class="gb-{span.kind}">{text}</span>'
    if span.weight is None or span.weight == 1.0:
        return text
    strength = min(abs(span.weight - 1), 1.0)
    direction = "up" if span.weight > 1 else "down"
    return (
        f'<mark class="gb-{direction}" style="--by:{strength:.2f}">{text}'
        f"<sub>{span.weight:.3g}</sub></mark>"
    )
