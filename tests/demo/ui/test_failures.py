"""From an exception to a sentence."""

import gradio as gr
import pytest

from demo.events import Broken
from demo.ui.failures import (
    error_sentence,
    error_toast,
    hide_internal_errors,
    raise_client_errors,
)
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
    assert error_sentence(error, "en") == "/tmp/x/cat.png is no PNG."
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
