"""Models of the hub, by a server that stands in for it."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch

from pipeline.loading.hub import download
from pipeline.loading.load import load

UNET = "unet/diffusion_pytorch_model.safetensors"


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def same(left, right) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k].float(), b[k].float()) for k in a)


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves one model, someone/tiny, as the hub does; counts what is fetched."""

    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, *arguments, folder: Path, fetched: list[str]):
        self.folder, self.fetched = folder, fetched
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        files = [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
        names = [p.relative_to(self.folder).as_posix() for p in files]
        if path in ("/api/models/someone/tiny", "/api/models/someone/tiny/revision/main"):
            siblings = [{"rfilename": n} for n in names]
            self.answer(
                json.dumps({"id": "someone/tiny", "sha": self.commit, "siblings": siblings})
            )
        elif path == f"/api/models/someone/tiny/tree/{self.commit}":
            rows = [
                {
                    "type": "file",
                    "path": n,
                    "size": p.stat().st_size,
                    "oid": f"{hash(n) % 2**64:040x}",
                }
                for n, p in zip(names, files, strict=True)
            ]
            self.answer(json.dumps(rows))
        elif path.startswith(f"/someone/tiny/resolve/{self.commit}/"):
            name = path.split(self.commit + "/")[1]
            if self.command == "GET":
                self.fetched.append(name)
            self.answer((self.folder / name).read_bytes(), f"{hash(name) % 2**64:040x}")
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

    def answer(self, body: str | bytes, etag: str = "x"):
        body = body if isinstance(body, bytes) else body.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(tiny_copy, tmp_path, monkeypatch):
    """A local stand-in for the hub: (folder it serves, names fetched, server)."""
    from huggingface_hub import constants

    fetched: list[str] = []
    handler = functools.partial(Hub, folder=tiny_copy, fetched=fetched)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield tiny_copy, fetched, server
    server.shutdown()
    server.server_close()


def test_loads_from_the_hub(hub, models, sentence):
    folder, fetched, server = hub
    for extra in ("big.ckpt", "unet/model.bin", "unet/code.py", "v1-5.safetensors", "README.md"):
        (folder / extra).write_bytes(b"no")
    shutil.copy(folder / UNET, folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    shutil.copy(folder / UNET, folder / "unet/diffusion_pytorch_model.non_ema.safetensors")
    again = load("someone/tiny", device="cpu")
    assert again.name == "someone/tiny" and again.hash == models.hash
    assert same(again.unet, models.unet)
    assert not [n for n in fetched if not n.endswith((".json", ".txt", ".safetensors"))]
    assert [n for n in fetched if n.endswith(".safetensors")].count(UNET) == 1
    assert sum(n.endswith(".safetensors") for n in fetched) == 3

    server.shutdown()
    server.server_close()
    assert download("someone/tiny") == again.path  # offline, from the cache
    text = sentence(download, "someone/else")
    assert "cannot be fetched" in text


def test_hub_model_of_another_kind_is_not_downloaded(hub, sentence):
    folder, fetched, _ = hub
    change(folder / "model_index.json", _class_name="FluxPipeline")
    assert "another architecture" in sentence(load, "someone/tiny", device="cpu")
    assert fetched == ["model_index.json"]
    (folder / "model_index.json").unlink()
    assert "no model_index.json" in sentence(load, "someone/tiny", device="cpu")


def test_unknown_hub_model_gets_a_sentence(hub, sentence):
    text = sentence(load, "nobody/nothing", device="cpu")
    assert text == "There is no folder nobody/nothing, and no model of that name on the hub."
    assert "no model of that name" in sentence(load, "a/b..c", device="cpu")
