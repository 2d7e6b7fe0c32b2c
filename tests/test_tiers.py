"""`pytest` alone runs the quick part of the suite: some test of every file, so of every module."""

import re
import subprocess
import sys
from pathlib import Path


def test_every_file_has_a_quick_test(pytestconfig):
    assert not pytestconfig.never_quick


def test_a_named_file_runs_whole_in_workers_too():
    """A marker's tests are left out of the quick part; who names a file gets them all the same."""
    path = Path(__file__).with_name("kernels") / "test_recorder.py"
    source = path.read_text()
    tests = source.count("\ndef test_")
    assert tests > source.count("mark.quick") == 1
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "1", path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) == tests
