"""One hostile request of each endpoint and route: the short form of routes.py."""

import subprocess
import sys

import pytest

from tests.soak import routes


@pytest.mark.slow
def test_hostile_requests_are_answered_with_a_sentence():
    argv = [sys.executable, routes.__file__, "--count", "1", "--seed", "15"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "tracebacks 0" in done.stdout


def test_what_counts_as_unhandled():
    attack = object.__new__(routes.Attack)
    attack.files = ["/tmp/gradio/abc/a.txt"]
    assert attack._sentence("`Steps` must be a number.") is None
    assert attack._sentence("There is no choice '/tmp/gradio/abc/a.txt'.") is None
    for wrong in (None, "", " ", 3, "Something went wrong on the server.", "a\nb", "Traceback x"):
        assert attack._sentence(wrong)
    assert attack._sentence("/tmp/other/secret is missing.")
