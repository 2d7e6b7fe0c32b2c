"""All texts of the page in English and Chinese, by key.

Labels, hints and buttons are gr.I18n texts, which the browser translates into its own language.
Sentences with numbers in them are made on the server by `say`, in the language that the browser's
request names.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .limits import LIMITS
from .vocabulary import COLOURS, VOCABULARY
from .workspace import WORKSPACE

if TYPE_CHECKING:
    import gradio as gr

__all__ = ["COLOURS", "LANGUAGES", "TEXTS", "add", "note", "notes", "request_language", "say"]

TEXTS: dict[str, tuple[str, str]] = {**WORKSPACE, **VOCABULARY, **LIMITS}  # key: (English, Chinese)

LANGUAGES = ("en", "zh")


def add(rows: dict[str, tuple[str, str]]) -> None:
    """Add the texts of a tab, {key: (English, Chinese)}, to those of the page.

    Raises AssertionError for a key that the page has already.
    """
    twice = rows.keys() & TEXTS.keys()
    assert not twice, twice
    TEXTS.update(rows)


@lru_cache
def notes() -> dict[str, tuple[str, str]]:
    """Return what each sampler, schedule and backend is good for, a sentence in both languages.

    It is {key: (English, Chinese)}; a key is, for example, "sampler.euler", "schedule.karras" or
    "attention.triton".
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
    """Return what a sampler, schedule or backend is good for, a sentence in one language.

    key: such as "sampler.euler". language: "en" or "zh".
    """
    return notes()[key][LANGUAGES.index(language)]


def translations() -> gr.I18n:
    """Return all texts of the page as a gr.I18n, for `gr.Blocks.launch(i18n=...)`.

    Called with a text's key, the gr.I18n returns a label that the browser shows in its own
    language.
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
    """Return the page's text `key` in a language ("en" or "zh"), with `values` filled in.

    They replace the text's {fields} by str.format.
    """
    return TEXTS[key][LANGUAGES.index(language)].format(**values)
