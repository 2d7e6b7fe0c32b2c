"""A few damaged files of each kind: the short form of files.py."""

import os
import random
import subprocess
import sys

import pytest

from pipeline.introspection.recording_file import open_tree
from tests.soak import files


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_damaged_files_end_in_a_sentence():
    argv = [sys.executable, files.__file__, "--count", "300", "--seed", "7"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert all(f"| {part} |" in done.stdout for part in files.PARTS)


@pytest.mark.quick
def test_a_fault_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "open_one", lambda part, path, dice: 1 / 0)
    faults = [f"headers {number}: ZeroDivisionError: division by zero" for number in (0, 1)]
    assert files.run("headers", 0, 2) == (0, faults)
    monkeypatch.setattr(files, "open_one", lambda *given: os._exit(9))
    assert files.run("headers", 5, 1) == (0, ["headers 5: exit status 9"])


def test_a_tree_is_used_once_it_is_opened(tmp_path):
    path, (tree, _) = tmp_path / "tree.safetensors", files.tree_seeds()
    path.write_bytes(tree)
    assert len(open_tree(path)) == 3
    assert files.use_tree(path, random.Random(1))
    changed = {files.mutate_tree(tree, random.Random(seed)) for seed in range(20)}
    assert len(changed) > 15
