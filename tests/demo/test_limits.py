"""The limits of a server: who counts as a stranger, and what the flags set."""

import argparse

import pytest

from demo.limits import LIMITS, Limits, add_flags, is_public, read_flags


def flags(*words, environment=()):
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--share", action="store_true")
    add_flags(parser)
    return read_flags(parser.parse_args(words), dict(environment))


@pytest.mark.parametrize(
    "host", [None, "", "localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"]
)
def test_this_machine_alone_is_private(host):
    assert not is_public(host, environment={})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "10.0.0.1", "my-box", "a.org"])
def test_any_other_host_is_public(host):
    assert is_public(host, environment={})


def test_a_link_or_a_space_is_public():
    assert is_public(None, share=True, environment={})
    assert is_public(None, environment={"GRADIO_SHARE": "true"})
    assert is_public(None, environment={"SPACE_ID": "someone/demo"})
    assert flags(environment={"GRADIO_SERVER_NAME": "0.0.0.0"}).max_waiting > 0


def test_defaults_of_a_private_server():
    assert flags() == Limits()
    assert flags().allow_training


def test_strangers_get_limits_and_train_only_where_the_owner_says_so():
    public = flags("--host", "0.0.0.0")
    assert not public.allow_training
    assert all(getattr(public, name) == limit.public for name, limit in LIMITS.items())
    assert flags("--share", "--allow-training").allow_training


def test_a_flag_goes_before_the_default():
    limits = flags("--share", "--max-waiting", "9", "--max-seconds", "0", "--shared-training")
    assert (limits.max_waiting, limits.max_seconds, limits.shared_training) == (9, 0, True)


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "", "9" * 10, "１"])
def test_a_limit_is_a_whole_number(text, capsys):
    with pytest.raises(SystemExit) as stop:
        flags(f"--max-waiting={text}")
    assert stop.value.code == 2
    assert "whole number" in capsys.readouterr().err
