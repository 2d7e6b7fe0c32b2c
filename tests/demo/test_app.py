"""`python app.py` as a person starts it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "gradio", "diffusers", "transformers", "numpy")


def app(*words):
    return subprocess.run(
        [sys.executable, "app.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys, runpy; sys.argv = ['app.py', '--help']\n"
        "try: runpy.run_path('app.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        f"print('heavy:', [m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "--model" in done.stdout
    assert "heavy: []" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "/no/such/folder"), "/no/such/folder"),
        (("--port", "99999"), "from 1 to 65535"),
    ],
)
def test_bad_words_get_one_sentence(words, sentence):
    done = app(*words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_taken_port_gets_one_sentence(server):
    done = app("--port", str(server.port))
    assert done.returncode == 2
    assert f"port {server.port}: address already in use" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
