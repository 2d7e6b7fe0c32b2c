"""Two visitors, and one tries everything of the other: the short form of visitors.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import visitors


@pytest.mark.slow
def test_nothing_of_one_visitor_is_seen_changed_or_stopped_by_another():
    argv = [sys.executable, visitors.__file__, "--count", "1", "--identities", "1", "--seed", "3"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "\n0 faults" in done.stdout and "1 rounds" in done.stdout


def test_what_is_called_a_fault():
    """A soak whose server tells everything."""
    soak = visitors.Soak("", Path(), 1)

    class Owner:
        secrets = ("quixle",)

    soak.check("lists", Owner(), "a list with quixle")
    soak.check("lists", Owner(), "an empty list")
    assert soak.tries["lists"] == 2
    assert [fault[:2] for fault in soak.faults] == [("lists", "seen")]
