"""`pytest` alone runs the quick part of the suite: some test of every file, so of every module."""

import re
import subprocess
import sys


def test_every_file_has_a_quick_test(pytestconfig):
    assert not pytestconfig.never_quick


def test_a_named_file_runs_whole_in_workers_too():
    """A marker's tests are left out of the quick part; who names a file gets them all the same."""
    path = "tests/kernels/test_recorder.py"
    counts = []
    for arguments in (["-n", "1", path], ["-n", "0", path], ["-n", "0", "-m", "quick", path]):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        counts.append(int(re.search(r"(\d+) passed", done.stdout)[1]))
    assert counts[0] == counts[1] > counts[2] > 0
