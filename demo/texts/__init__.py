"""The page's words in English and Chinese, one row a key.

Labels, hints and buttons go through gr.I18n, which follows the browser's language. Sentences that
carry numbers are made on the server by `say`, in the language that the browser asks for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .vocabulary import COLOURS, VOCABULARY
from .workspace import WORKSPACE

__all__ = ["COLOURS", "LANGUAGES", "TEXTS", "add", "note", "notes", "request_language", "say"]

TEXTS: dict[str, tuple[str, str]] = {**WORKSPACE, **VOCABULARY}  # key: (English, Chinese)

LANGUAGES = ("en", "zh")


def add(rows: dict[str, tuple[str, str]]) -> None:
    """Add one tab's texts, {key: (English, Chinese)}; a key that is there already is an error."""
    twice = rows.keys() & TEXTS.keys()
    assert not twice, twice
    TEXTS.update(rows)


@lru_cache
def notes() -> dict[str, tuple[str, str]]:
    """Rows like those of TEXTS: one for the note of each sampler, schedule and backend."""
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
    """One of `notes`, in the language."""
    return notes()[key][LANGUAGES.index(language)]


def translations():
    """The gr.I18n of the page, for `launch(i18n=)`; call it with a key for a component's text."""
    import gradio as gr

    rows = TEXTS | notes()
    tables = {
        language: {key: row[i] for key, row in rows.items()} for i, language in enumerate(LANGUAGES)
    }
    return gr.I18n(**tables)


def request_language(request) -> str:
    """The language that the browser asks for first, "en" where it is none of ours."""
    wanted = (request.headers.get("accept-language") or "") if request else ""
    return "zh" if wanted.strip().lower().startswith("zh") else "en"


def say(key: str, language: str, **values) -> str:
    """The text of `key` with its numbers filled in."""
    return TEXTS[key][LANGUAGES.index(language)].format(**values)
