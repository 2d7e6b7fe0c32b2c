"""Turn exceptions into sentences for the user, in the same way for page and web API."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr

from pipeline.errors import InputError

from ..events import Broken, Refused
from ..texts import say

FAILURES = (InputError, Broken)  # what remains of all exceptions after hide_internal_errors
log = logging.getLogger("glassbox")


@contextmanager
def hide_internal_errors() -> Iterator[None]:
    """Log each unexpected exception and raise Broken in its place, so users see no details of it.

    InputError, which the user can correct, and Broken are passed on.
    """
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
    """Return the sentence that tells the user of an error; for Broken only that the server failed.

    language: "en" or "zh", of the sentence for Broken and Refused; other InputErrors are English.
    upload: an uploaded file; where its server path is in the sentence, its name is put instead.
    """
    if isinstance(error, Broken):
        return say("broken", language)
    if isinstance(error, Refused):
        return error.sentence(language)
    sentence = str(error)
    return sentence.replace(str(upload), Path(upload).name) if upload else sentence


def error_toast(sentence: str, language: str) -> gr.Error:
    """Return the exception that, raised in a listener, makes Gradio show `sentence` as a toast."""
    return gr.Error(sentence, title=say("error", language), print_exception=False)


@contextmanager
def raise_client_errors(upload: str | Path | None = None) -> Iterator[None]:
    """Turn the failures of a request into a gr.Error, so that clients of the web API see why.

    InputError (the visitor's mistake) gives its own sentence, Broken (an unexpected exception) one
    that says that the server failed. upload: an uploaded file; the sentence names it without its
    path on the server.
    """
    try:
        yield
    except FAILURES as error:
        sentence = error_sentence(error, "en", upload)
        raise gr.Error(sentence, print_exception=False) from None
