"""The hash of the kernels' code follows what a GPU runs, not what explains it."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")
from kernels import code_hash
from kernels.code_hash import code_files, code_lines

pytestmark = pytest.mark.quick

CODE = '''"""A module."""

import os  # what for


def scale(x, n=2):
    """Return x n, "quoted", ö."""
    y = x * n  # a comment, with a string "# no"

    text = "# not a comment"
    return y, text


class Empty:
    """Only a docstring,
    of two lines."""
'''


def test_explanations_do_not_count():
    plain = code_lines(CODE)
    assert plain == [
        "import os",
        "def scale(x, n=2):",
        "    y = x * n",
        '    text = "# not a comment"',
        "    return y, text",
        "class Empty:",
    ]
    for changed in (
        CODE.replace("A module.", "Another\n\nmodule, 中文."),
        CODE.replace("  # what for", "").replace("# a comment", "#"),
        CODE.replace("ö", "ä, at\n    length"),
        CODE.replace("\n\n", "\n\n\n"),
    ):
        assert changed != CODE and code_lines(changed) == plain


@pytest.mark.parametrize(
    "old, new", [("n=2", "n=3"), ("x * n", "n * x"), ("# not a", "# no"), ("scale", "shift")]
)
def test_code_counts(old, new):
    assert code_lines(CODE.replace(old, new)) != code_lines(CODE)


def test_the_files_of_every_kernel_are_hashed(monkeypatch, tmp_path):
    names = {"/".join(path.parts[-2:]) for path in code_files()}
    assert names >= {"kernels/word_attention.py", "attention/backward.py", "group_norm/tiling.py"}
    assert not any(name.endswith(("cases.py", "reference.py", "check.py")) for name in names)
    first = code_hash.code_hash()
    assert len(first) == 16 and int(first, 16)
    file = tmp_path / "kernels" / "kernel.py"
    file.parent.mkdir()
    file.write_text(CODE)
    monkeypatch.setattr(code_hash, "__file__", str(file.parent / "code_hash.py"))
    monkeypatch.setattr(code_hash, "code_files", lambda: [file])
    hashes = []
    for text in (CODE, CODE + "# more\n", CODE.replace("n=2", "n=3")):
        file.write_text(text)
        code_hash.code_hash.cache_clear()
        hashes.append(code_hash.code_hash())
    code_hash.code_hash.cache_clear()
    assert hashes[0] == hashes[1] != hashes[2]
    monkeypatch.undo()
    assert code_hash.code_hash() == first


def test_another_process_gives_the_same():
    command = [sys.executable, "-c", "from kernels.code_hash import code_hash as c; print(c())"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_hash.code_hash()
