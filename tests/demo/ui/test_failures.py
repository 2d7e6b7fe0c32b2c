"""From an exception to a sentence."""

import ast
import errno
from html import escape
from pathlib import Path

import gradio as gr
import pytest

import demo
from demo.events import Broken
from demo.ui import status
from demo.ui.failures import (
    error_sentence,
    error_toast,
    hide_internal_errors,
    hide_paths,
    raise_client_errors,
)
from pipeline.disk import explain_failure
from pipeline.errors import InputError


def test_internal_errors_go_to_the_log_alone(caplog):
    with pytest.raises(Broken) as caught, hide_internal_errors():
        raise RuntimeError("secret path")
    assert "secret" not in str(caught.value) and "secret path" in caplog.text


@pytest.mark.parametrize("error", [InputError("wrong"), Broken()])
def test_known_errors_pass_and_are_not_logged_again(error, caplog):
    with pytest.raises(type(error)), hide_internal_errors():
        raise error
    assert not caplog.text


def test_sentences_are_the_error_s_own_or_say_that_the_server_failed():
    error = InputError("/tmp/x/cat.png is no PNG.")
    assert error_sentence(error, "en") == "cat.png is no PNG."
    assert error_sentence(error, "en", upload="/tmp/x/cat.png") == "cat.png is no PNG."
    assert "server" in error_sentence(Broken(), "en")
    assert "服务器" in error_sentence(Broken(), "zh")


def test_what_readers_and_clients_get_leaves_no_traceback():
    assert not error_toast("wrong", "en").print_exception
    for error in (InputError("wrong"), Broken()):
        with pytest.raises(gr.Error) as caught, raise_client_errors():
            raise error
        assert not caught.value.print_exception
        assert caught.value.message == error_sentence(error, "en")


HIDDEN = [
    ("/tmp/gradio/0a1b/cat.png is no picture.", "cat.png is no picture."),
    (
        "Cannot write /srv/app/runs/zog/log.csv: No space left.",
        "Cannot write log.csv: No space left.",
    ),
    (
        "Cannot write '/srv/app/a.png': the folder /srv/app is gone.",
        "Cannot write 'a.png': the folder app is gone.",
    ),
    (
        "The name zog is taken: /home/anna/models/zog.safetensors is there;",
        "The name zog is taken: zog.safetensors is there;",
    ),
    ("There is no file ~/models/x.safetensors.", "There is no file x.safetensors."),
    (r"C:\Users\anna\models\x.ckpt is a pickle.", "x.ckpt is a pickle."),
    (r"\\server\share\x.ckpt is a network path", "x.ckpt is a network path"),
    ("...na/models/stable/x.safetensors cannot be loaded", "x.safetensors cannot be loaded"),
    ("ptxas (/opt/x/bin/ptxas) failed, see /var/log/a/b.txt", "ptxas (ptxas) failed, see b.txt"),
    ("at /a/b/c.py:12: error", "at c.py:12: error"),
]
KEPT = [
    "steps must be 1 to 200, not 1/2; width and/or height.",
    "See https://huggingface.co/docs/hub/index and the endpoint /train_lora.",
    "The prompt 'a </s> b / c' is empty: <lora:a/b:1> w/h/d.",
    "There is no model 'stabilityai/sd-turbo'; runs/lora/zog holds no checkpoint.",
    "The prompt is cut off after 'one, two...'; 3 of 4 steps.",
]


@pytest.mark.parametrize(("sentence", "expected"), HIDDEN)
def test_no_path_of_the_server_is_shown(sentence, expected):
    assert hide_paths(sentence) == expected
    error = InputError(sentence)
    assert error_sentence(error, "en") == expected
    assert str(error_toast(sentence, "en").message) == expected
    with pytest.raises(gr.Error) as caught, raise_client_errors():
        raise error
    assert caught.value.message == expected
    for show in (status.error_line, status.error_paragraph, lambda s: status.warning_list([s])):
        assert escape(expected) in show(sentence) and escape(sentence) not in show(sentence)


@pytest.mark.parametrize("sentence", KEPT)
def test_other_slashes_stay(sentence):
    assert hide_paths(sentence) == sentence


def test_folders_of_the_server_may_have_spaces(tmp_path, monkeypatch):
    folder = tmp_path / "my own models"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert hide_paths(f"{folder}/a.safetensors cannot be read.") == "a.safetensors cannot be read."


def test_a_full_disk_is_said_in_the_visitors_language(caplog):
    def write():
        with hide_internal_errors(), open("/dev/null", "wb"):
            raise OSError(errno.ENOSPC, "No space left on device", "/srv/a/b.png")

    with pytest.raises(InputError) as caught:
        write()
    assert "disk is full" in error_sentence(caught.value, "en")
    assert "磁盘已满" in error_sentence(caught.value, "zh")
    assert "/srv/a/b.png" in caplog.text and "Traceback" not in caplog.text
    with pytest.raises(InputError) as caught, explain_failure(Path("/srv/a/b.png")):
        raise OSError(errno.ENOSPC, "No space left on device", "/srv/a/b.png")
    assert "磁盘已满" in error_sentence(caught.value, "zh")


def test_every_exception_that_the_page_shows_goes_through_error_sentence():
    """No other file of the page makes a text of an exception."""
    texts = []
    for path in sorted(Path(demo.__file__).parent.rglob("*.py")):
        for handler in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(handler, ast.ExceptHandler) or path.name == "failures.py":
                continue
            for node in ast.walk(handler):
                shown = node.args if getattr(getattr(node, "func", None), "id", "") == "str" else ()
                shown = [node.value] if isinstance(node, ast.FormattedValue) else shown
                if handler.name and handler.name in [getattr(value, "id", None) for value in shown]:
                    texts.append(f"{path.name}:{node.lineno}")
    assert texts == []
