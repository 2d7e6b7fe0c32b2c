"""Under a prompt: its tokens counted, its weights made visible, and what was not understood."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path

import gradio as gr

from pipeline.errors import InputError
from pipeline.options import LIMITS, MAX_PROMPT
from pipeline.prompt.embeddings import Embedding, read_embedding
from pipeline.prompt.encode import count_tokens
from pipeline.prompt.syntax import Span, parse, parse_spans

from ..texts import request_language, say
from ..ui.listeners import UNQUEUED

# What is typed last is seen first.
TO_THE_END = """
watch('value', () => {
  const weights = element.querySelector('.gb-weights');
  if (weights) weights.scrollLeft = weights.scrollWidth;
});
"""


def view(key: str) -> gr.HTML:
    """The line of the text box `key`, empty at first but as high as it will be."""
    return gr.HTML(
        elem_id=f"{key}-line",
        elem_classes="gb-prompt-line",
        apply_default_css=False,
        js_on_load=TO_THE_END,
    )


def wire(page, prompt: gr.Textbox, line: gr.HTML) -> None:
    """The line follows while the prompt is typed, and when the model or the steps change."""

    def look(text: str, name: str, steps: float | None, request: gr.Request):
        tokenizer = page.tokenizers.get(name) or page.model_cache.first.tokenizer
        low = (text or "").lower()
        files = [path for word, path in page.embeddings.items() if word.lower() in low]
        read = {one.name: one for one in map(_embedding, files) if one}
        return html(text or "", tokenizer, request_language(request), read, _steps(steps))

    # without triggers: when the page opens, and when an input changes
    gr.on(
        None,
        look,
        [prompt, page.form["model"], page.form["steps"]],
        line,
        trigger_mode="always_last",
        **UNQUEUED,
    )


def _steps(value: float | None) -> int:
    """What is typed so far as a number of steps; GenerateOptions has the sentence for a bad one."""
    low, high = LIMITS["steps"]
    return int(min(max(value or low, low), high))


@lru_cache(256)
def _embedding(path: Path) -> Embedding | None:
    try:
        return read_embedding(path)
    except InputError:  # the engine says why
        return None


def html(
    text: str,
    tokenizer,
    language: str,
    known: dict[str, Embedding] | None = None,
    steps: int = 20,
) -> str:
    """One row, and under it what was not understood; weights only where there is syntax."""
    if len(text) > MAX_PROMPT:  # GenerateOptions has a sentence for it
        return ""
    parsed, stretches = parse(text, steps), parse_spans(text)
    used, room = count_tokens(tokenizer, parsed, known)
    plain = all(s.kind == "text" and s.weight == 1.0 for s in stretches)
    seen = "" if plain else "".join(map(_stretch, stretches))
    stop = ' tabindex="0"' if seen else ""  # so that a keyboard can scroll it
    hints = "".join(f"<li>{escape(hint)}</li>" for hint in parsed.hints)
    return (
        f'<div class="gb-words"><div class="gb-weights"{stop}>{seen}</div>'
        f'<span class="gb-tokens">{say("tokens", language, used=used, room=room)}</span></div>'
        f'<ul class="gb-hints">{hints}</ul>'
    )


def _stretch(span: Span) -> str:
    """Warm and larger above 1, pale and smaller below; the number stands behind."""
    text = escape(span.text)
    if span.kind != "text":
        return f'<span class="gb-{span.kind}">{text}</span>'
    if span.weight == 1.0:
        return text
    strength = min(abs(span.weight - 1), 1.0)
    way = "up" if span.weight > 1 else "down"
    return (
        f'<mark class="gb-{way}" style="--by:{strength:.2f}">{text}'
        f"<sub>{span.weight:.3g}</sub></mark>"
    )
