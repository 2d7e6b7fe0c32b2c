"""All texts of the page in English and Chinese, by key.

Labels, hints and buttons are gr.I18n texts, which the browser translates into its own language.
Sentences with numbers in them are made on the server by `say`, in the language that the browser's
request names.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .vocabulary import COLOURS, VOCABULARY
from .workspace import WORKSPACE

if TYPE_CHECKING:
    import gradio as gr

__all__ = ["COLOURS", "LANGUAGES", "TEXTS", "add", "note", "notes", "request_language", "say"]

TEXTS: dict[str, tuple[str, str]] = {**WORKSPACE, **VOCABULARY}  # key: (English, Chinese)

LANGUAGES = ("en", "zh")


def add(rows: dict[str, tuple[str, str]]) -> None:
    """Add a tab's texts, {key: (English, Chinese)}, to TEXTS; AssertionError for a key it has."""
    twice = rows.keys() & TEXTS.keys()
    assert not twice, twice
    TEXTS.update(rows)


@lru_cache
def notes() -> dict[str, tuple[str, str]]:
    """Return {key: (English, Chinese)}: a sentence on each sampler, schedule and backend.

    A key is, for example, "sampler.euler", "schedule.karras" or "attention.triton".
    """
    from pipeline.backends import KINDS
    from pipeline.samplers import SAMPLERS, SCHEDULES

    tables: dict[str, Any] = {"sampler": SAMPLERS, "schedule": SCHEDULES}
    tables |= {kind: backends.table for kind, backends in KINDS.items()}
    return {
        f"{kind}.{key}": (entry.note, entry.note_zh)
        for kind, table in tables.items()
        for key, entry in table.items()
    }


def note(key: str, language: str) -> str:
    """Return the sentence `key` ("sampler.euler") of `notes` in a language ("en" or "zh")."""
    return notes()[key][LANGUAGES.index(language)]


def translations() -> gr.I18n:
    """Return all texts as the gr.I18n that `gr.Blocks.launch(i18n=...)` takes.

    Called with a key, it returns a text for a component that the browser translates.
    """
    import gradio as gr

    rows = TEXTS | notes()
    tables = {
        language: {key: row[i] for key, row in rows.items()} for i, language in enumerate(LANGUAGES)
    }
    return gr.I18n(**tables)


def request_language(request: gr.Request | None) -> str:
    """Return "zh" if the request's first accepted language is Chinese, else "en"."""
    wanted = (request.headers.get("accept-language") or "") if request else ""
    return "zh" if wanted.strip().lower().startswith("zh") else "en"


def say(key: str, language: str, **values: object) -> str:
    """Return the text `key` in a language ("en" or "zh"), with `values` filled in by str.format."""
    return TEXTS[key][LANGUAGES.index(language)].format(**values)
