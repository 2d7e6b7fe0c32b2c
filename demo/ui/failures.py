"""From an exception to a sentence for the reader: the same way for the page and the web API."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr

from pipeline.errors import InputError

from ..events import Broken
from ..texts import say

FAILURES = (InputError, Broken)
log = logging.getLogger("glassbox")


@contextmanager
def hide_internal_errors() -> Iterator[None]:
    """Let InputError and Broken pass; log every other exception, and raise Broken instead."""
    try:
        yield
    except FAILURES:
        raise
    except Exception:
        log.exception("a request failed")
        raise Broken from None


def error_sentence(
    error: InputError | Broken, language: str, upload: str | Path | None = None
) -> str:
    """Return what the reader is told: an InputError's own sentence, or that the server failed.

    upload: a file whose path on the server is replaced by its name.
    """
    if isinstance(error, Broken):
        return say("broken", language)
    sentence = str(error)
    return sentence.replace(str(upload), Path(upload).name) if upload else sentence


def error_toast(sentence: str, language: str) -> gr.Error:
    """Return the exception that makes Gradio show a sentence in a corner of the page."""
    return gr.Error(sentence, title=say("error", language), print_exception=False)


@contextmanager
def raise_client_errors(upload: str | Path | None = None) -> Iterator[None]:
    """Turn InputError and Broken into the one-sentence error that clients of the web API get."""
    try:
        yield
    except FAILURES as error:
        sentence = error_sentence(error, "en", upload)
        raise gr.Error(sentence, print_exception=False) from None
