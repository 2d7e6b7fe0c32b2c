"""Turn exceptions into sentences for the user, in the same way for page and web API."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gradio as gr

from pipeline.disk import is_full
from pipeline.errors import InputError

from ..events import Broken, Refused
from ..texts import say

FAILURES = (InputError, Broken)  # what remains of all exceptions after hide_internal_errors
log = logging.getLogger("glassbox")
ROOT = Path(__file__).parents[2]
# An absolute path of two names or more, or the end of one that `pipeline.errors.short` has cut.
# A slash inside a word is none (and/or, 1/2, https://), nor is one after < (</s>).
_PATH = re.compile(
    r"""(?<![\w/\\<>.)~-])(?:~?/|[A-Za-z]:[\\/]|\\\\)(?:[^\s/\\'"`<>|:;,?*]+[\\/])+"""
    r"""|(?<!\S)\.{3}[^\s'"`<>|:;,?*]*[\\/]"""
)


@contextmanager
def hide_internal_errors() -> Iterator[None]:
    """Log each unexpected exception and raise Broken in its place, so users see no details of it.

    InputError, which the user can correct, and Broken are passed on. A full disk, which is neither
    the user's mistake nor one of the program, becomes an InputError.
    """
    try:
        yield
    except FAILURES as error:
        if is_full(error):
            log.error("%s", error)
        raise
    except Exception as error:
        if is_full(error):
            log.error("%s", error)
            raise InputError(say("disk_full", "en")) from error
        log.exception("a request failed")
        raise Broken from None


def hide_paths(sentence: str) -> str:
    """Return a sentence for the user with the last name alone of each path on the server.

    Such as "cat.png is no picture." for "/tmp/gradio/0a1b/cat.png is no picture." Relative paths
    stay, unless `pipeline.errors.short` has cut their beginning.
    """
    for folder in _server_folders():
        sentence = re.sub(rf"(?<![\w/]){re.escape(folder)}[\\/]+", "/_/", sentence)
    return _PATH.sub("", sentence)


def _server_folders() -> list[str]:
    """Return folders of this server whose paths may hold spaces, the longest path first."""
    home = os.path.expanduser("~")
    given: list[str | Path] = [ROOT, tempfile.gettempdir(), sys.prefix, home]
    given += [os.environ[name] for name in ("GRADIO_TEMP_DIR", "HF_HOME") if os.environ.get(name)]
    with suppress(OSError):  # the working folder is gone
        given.append(Path.cwd())
    folders = {os.path.abspath(f) for f in given} | {os.path.realpath(f) for f in given}
    return sorted((f for f in folders if f != os.path.sep), key=len, reverse=True)


def error_sentence(
    error: InputError | Broken, language: str, upload: str | Path | None = None
) -> str:
    """Return the sentence that tells the user of an error; for Broken only that the server failed.

    It holds no path of the server. language: "en" or "zh", of the sentence for Broken, for Refused
    and for a full disk; other InputErrors are English. upload: an uploaded file; where its path is
    in the sentence, its name is put instead.
    """
    if isinstance(error, Broken):
        return say("broken", language)
    if isinstance(error, Refused):
        return error.sentence(language)
    if is_full(error):
        return say("disk_full", language)
    sentence = str(error)
    return hide_paths(sentence.replace(str(upload), Path(upload).name) if upload else sentence)


def error_toast(sentence: str, language: str) -> gr.Error:
    """Return the exception that, raised in a listener, makes Gradio show `sentence` as a toast."""
    return gr.Error(hide_paths(sentence), title=say("error", language), print_exception=False)


def client_error(sentence: str) -> gr.Error:
    """Return the exception that, raised in an endpoint, gives its client `sentence`.

    It holds no path of the server; half characters (lone surrogates) are shown as "?".
    """
    shown = hide_paths(sentence).encode(errors="replace").decode()
    return gr.Error(shown, print_exception=False)


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
        raise client_error(error_sentence(error, "en", upload)) from None
