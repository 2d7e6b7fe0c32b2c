"""`python app.py` as a person starts it."""

import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
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


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Windows knows no SIGTERM")
def test_sigterm_leaves_no_file_of_a_visitor(server_of, tiny_model, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    running = server_of(tiny_model, tmp_path).wait()
    try:
        api = f"{running.url}gradio_api/"
        picture = (ROOT / "docs" / "page.png").read_bytes()
        (path,) = httpx.post(f"{api}upload", files={"files": ("a.png", picture)}, timeout=60).json()
        assert Path(path).is_relative_to(temporary)
        fields = ["red", "", None, None, 150, None, None, None, None, 16]
        event = httpx.post(f"{api}call/generate", json={"data": fields}, timeout=60).json()
        with httpx.stream("GET", f"{api}call/generate/{event['event_id']}", timeout=60) as answer:
            assert next(answer.iter_lines()) == "event: generating"
            assert list(temporary.rglob("glassbox-*"))
            running.process.send_signal(signal.SIGTERM)
            for _ in range(100):  # a request that runs does not keep the server from ending
                if running.process.poll() is not None:
                    break
                time.sleep(0.2)
        assert running.process.wait(60) == 0
        assert "Traceback" not in running.log()
    finally:
        running.process.kill()
    assert not [p for p in temporary.rglob("*") if p.is_file()]
    assert not {p.name for p in temporary.iterdir() if p.name.startswith(("glassbox", "gradio"))}


@pytest.mark.slow
def test_an_idle_connection_serves_the_next_request(server):
    """A client that reuses its connection after some seconds does not lose a request."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=30)
    for pause in (0, 6):
        time.sleep(pause)
        connection.request("GET", "/gradio_api/info")
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    connection.close()
