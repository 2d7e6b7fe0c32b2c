"""What a name may mean, and that a model is loaded whole or refused in a sentence."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError
from pipeline.loading.defaults import DEFAULTS, read_defaults
from pipeline.loading.hub import download
from pipeline.loading.load import load
from pipeline.loading.resolve import find_model
from pipeline.model_files import library, manifest
from pipeline.options import GenerateOptions

ROOT = Path(__file__).parents[3]
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def sentence(call, *arguments, **options) -> str:
    """The InputError's text, held to be one printable line without a chain of other errors."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 700, text
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return text


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture(scope="module")
def models(tiny_model):
    return load(tiny_model, device="cpu", dtype="fp32")


def same(left, right) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k].float(), b[k].float()) for k in a)


# Loading


def test_loads_a_folder(models, tiny_model):
    stored = load_file(tiny_model / UNET)
    assert models.name == "tiny" and len(models.hash) == 10
    assert all(torch.equal(stored[k], v) for k, v in models.unet.state_dict().items())
    for part in (models.unet, models.vae, models.text_encoder):
        assert not part.training and not any(p.requires_grad for p in part.parameters())
        assert part.dtype == torch.float32
    ids = models.tokenizer("a red apple").input_ids
    assert len(ids) == 5 and max(ids) < models.text_encoder.config.vocab_size
    assert models.scheduler_config["prediction_type"] == "epsilon"
    assert (models.attention, models.group_norm, models.vocabulary) == ("sdpa", "torch", None)


def test_half_precision_keeps_the_autoencoder_exact(tiny_model, models):
    half = load(tiny_model, device="cpu", dtype="bf16", attention="math")
    assert half.unet.dtype == half.text_encoder.dtype == torch.bfloat16
    assert half.vae.dtype == torch.float32 and same(half.vae, models.vae)
    assert half.attention == "math" and half.hash == models.hash


def test_loads_shards(tiny_copy, models):
    from transformers import CLIPTextModel

    shutil.rmtree(tiny_copy / "unet")
    (tiny_copy / TEXT).unlink()
    models.unet.save_pretrained(tiny_copy / "unet", max_shard_size="200KB")
    CLIPTextModel.save_pretrained(
        models.text_encoder, tiny_copy / "text_encoder", max_shard_size="60KB"
    )
    shards = sorted((tiny_copy / "unet").glob("*.safetensors"))
    assert len(shards) > 2 and len(list((tiny_copy / "text_encoder").glob("*.safetensors"))) > 1
    again = load(tiny_copy, device="cpu")
    assert same(again.unet, models.unet) and same(again.text_encoder, models.text_encoder)
    shards[1].unlink()
    assert "is missing" in sentence(load, tiny_copy)


def test_loads_a_variant_in_fp32(tiny_copy, models):
    for name in (UNET, "vae/diffusion_pytorch_model.safetensors", TEXT):
        path = tiny_copy / name
        half = {k: v.half() for k, v in load_file(path).items()}
        save_file(half, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        path.unlink()
    again = load(tiny_copy, device="cpu", dtype="fp32")
    assert again.unet.dtype == torch.float32
    close = (again.unet.conv_in.weight - models.unet.conv_in.weight).abs().max()
    assert 0 < close < 1e-3


def test_reads_the_names_of_older_files(tiny_copy, models):
    """SD 1.5 on the hub names its tensors so."""
    path = tiny_copy / "vae/diffusion_pytorch_model.safetensors"
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for key in [k for k in tensors if "attentions" in k]:
        old = key
        for name, older in new.items():
            old = old.replace(f".{name}.", f".{older}.")
        tensors[old] = tensors.pop(key)
    save_file(tensors, path, metadata={"format": "pt"})
    text = {
        f"text_model.{k.removeprefix('text_model.')}": v
        for k, v in load_file(tiny_copy / TEXT).items()
    }
    save_file(text, tiny_copy / TEXT, metadata={"format": "pt"})
    again = load(tiny_copy, device="cpu")
    assert same(again.vae, models.vae) and same(again.text_encoder, models.text_encoder)


def test_prints_nothing(tiny_model):
    code = f"from pipeline import load; print(load({str(tiny_model)!r}, device='cpu').name)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("tiny\n", "")


def without(name: str, *lost: str):
    def damage(folder: Path) -> None:
        tensors = load_file(folder / name)
        for key in [k for k in tensors if any(part in k for part in lost)]:
            del tensors[key]
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return damage


def reshaped(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    tensors["conv_in.bias"] = torch.zeros(17)
    save_file(tensors, folder / UNET)


def not_a_number(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    tensors["conv_out.bias"][:] = float("nan")
    save_file(tensors, folder / UNET)


def config(name: str, **fields):
    return lambda folder: change(folder / name, **fields)


BROKEN = [
    (without(UNET, "conv_in.bias"), "incomplete: conv_in.bias is missing"),
    (without(UNET, "mid_block"), "more are missing"),
    (without(TEXT, "final_layer_norm.weight"), "final_layer_norm.weight is missing"),
    (without("vae/diffusion_pytorch_model.safetensors", "to_q"), "more are missing"),
    (reshaped, "tensor conv_in.bias has the shape (17,), its config.json asks for (16,)"),
    (config("unet/config.json", block_out_channels=[16, 64]), "its config.json asks for"),
    (config("unet/config.json", block_out_channels="many"), "block_out_channels is many"),
    (config("unet/config.json", sample_size="8"), "sample_size is 8"),
    (config("vae/config.json", block_out_channels=7), "block_out_channels is 7"),
    (config("vae/config.json", scaling_factor=None), "scaling_factor is None"),
    (config("vae/config.json", shift_factor="x"), "does not run"),
    (config("unet/config.json", time_embedding_act_fn="bogus"), "cannot be loaded"),
    (config("tokenizer/tokenizer_config.json", model_max_length="x"), "cannot be loaded"),
    (not_a_number, "its output is not finite"),
    (config("unet/config.json", down_block_types=["Evil", "X"]), "cannot be loaded"),
    (config("unet/config.json", norm_num_groups=0), "cannot be loaded"),
    (config("text_encoder/config.json", vocab_size=999_999), "asks for (999999, 32)"),
    (config("text_encoder/config.json", num_hidden_layers=100), "more are missing"),
    (config("text_encoder/config.json", num_attention_heads=7), "cannot be loaded"),
    (config("tokenizer/vocab.json", new=10**6), "does not go with the text encoder"),
    (lambda f: (f / "tokenizer/tokenizer.json").write_text("{}"), "cannot be loaded"),
    (lambda f: (f / "vocabulary.json").write_text("{}"), "must be a list"),
    (lambda f: (f / "vocabulary.json").write_text('[{"en": 1}]'), "must have emoji, en and zh"),
    (lambda f: (f / "generation.json").write_text("[]"), "must hold an object"),
    (lambda f: (f / "generation.json").write_text('{"prompt": "x"}'), "must hold an object"),
    (lambda f: (f / "generation.json").write_text('{"steps": 0}'), "whole number from 1"),
    (lambda f: (f / "generation.json").write_text('{"sampler": "bogus"}'), "no sampler"),
    (lambda f: (f / "generation.json").symlink_to("/etc/hostname"), "leads out"),
]


@pytest.mark.parametrize("damage, words", BROKEN, ids=[b[1] for b in BROKEN])
def test_broken_model_gets_a_sentence(tiny_copy, damage, words):
    damage(tiny_copy)
    assert words in sentence(load, tiny_copy, device="cpu")


# Names


@pytest.fixture
def model_folder(tmp_path, monkeypatch):
    """An empty pipeline/models and an empty working directory."""
    monkeypatch.setattr(library, "EMBEDDED", tmp_path / "embedded")
    (tmp_path / "embedded").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "embedded"


def test_available_lists_and_says_why_not(model_folder, tiny_model):
    shutil.copytree(tiny_model, model_folder / "one")
    shutil.copytree(tiny_model, Path("models/two"))
    (model_folder / "bad").mkdir()
    rows = library.scan()
    assert [(e.name, "model_index.json" in (e.reason or "")) for e in rows] == [
        ("bad", True),
        ("one", False),
        ("two", False),
    ]
    assert {e.kind for e in rows} == {"checkpoint"} and rows[1].family == "SD 1.x"
    assert find_model("one") == model_folder / "one"
    assert find_model("two") == Path("models/two")
    text = sentence(find_model, "ono")
    assert "there is one, " in text and "two" in text and "bad" in text


NAMES = [
    ("emoij", "none is here"),
    ("", "is a name"),
    (None, "is a name"),
    (7, "is a name"),
    (b"emoji", "is a name"),
    ("a\0b", "not printable"),
    ("a\x1b[31m", "not printable"),
    ("\ud800", "not printable"),
    ("x" * 100_000, "too long"),
    ("\\\\host\\share", "network path"),
    ("//host/share", "network path"),
    ("..", "no model_index.json"),
    ("../nowhere", "no model folder"),
    ("./nowhere", "no model folder"),
    ("/nowhere/at/all", "no model folder"),
    ("a/b/c", "no model folder"),
    ("model.ckpt", "There is no file"),
    ("nowhere.safetensors", "There is no file"),
]


@pytest.mark.parametrize("name, words", NAMES, ids=[str(i) for i in range(len(NAMES))])
def test_bad_name_gets_a_sentence(model_folder, name, words):
    assert words in sentence(load, name)


def test_single_files_get_a_sentence(model_folder, tiny_model):
    shutil.copy(tiny_model / UNET, "model.safetensors")
    Path("model.ckpt").write_bytes(b"\x80\x02")
    Path("fake.safetensors").write_bytes(b"\x80\x02" + bytes(40))
    Path("model.txt").write_text("x")
    text = sentence(load, "model.safetensors")
    assert "is the UNet of a diffusers folder" in text and "SD 1.x, SD 2.x or SD XL" in text
    assert "can run any code" in sentence(load, "model.ckpt")
    assert "is a pickle" in sentence(load, "fake.safetensors")
    assert "is a file of another kind" in sentence(load, "model.txt")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"device": "cuda"}, "There is no cuda device"),
        ({"device": "mps"}, "There is no mps device"),
        ({"device": "gpu"}, "There is no device 'gpu'; there is"),
        ({"device": "cuda:x"}, "There is no device"),
        ({"device": None}, "There is no device None"),
        ({"dtype": "fp16"}, "use dtype fp32 or bf16"),
        ({"dtype": "fp64"}, "There is no dtype 'fp64'; there is fp"),
        ({"dtype": 3}, "There is no dtype 3"),
        ({"attention": "flash"}, "There is no attention backend"),
        ({"group_norm": "fast"}, "There is no GroupNorm backend"),
    ],
)
def test_bad_option_gets_a_sentence(tiny_model, monkeypatch, options, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert words in sentence(load, tiny_model, **options)


# Defaults


@pytest.mark.parametrize(
    "words, prediction, side",
    [(768, "epsilon", 512), (1024, "v_prediction", 768), (1024, "epsilon", 512)],
)
def test_defaults_of_an_architecture(tiny_copy, words, prediction, side):
    change(tiny_copy / "unet/config.json", cross_attention_dim=words)
    change(tiny_copy / "scheduler/scheduler_config.json", prediction_type=prediction)
    change(tiny_copy / "text_encoder/config.json", hidden_size=words)
    defaults = read_defaults(manifest.open(tiny_copy), prediction)
    assert list(defaults) == list(DEFAULTS)
    assert list(defaults.values()) == ["euler_a", "automatic", 20, 7.0, side, side]


def test_own_defaults_and_vocabulary(tiny_copy):
    own = {"sampler": "DPM++ 2M", "schedule": "karras", "steps": 12, "cfg": 5}
    (tiny_copy / "generation.json").write_text(json.dumps(own))
    rows = [{"emoji": "🍎", "en": "red apple", "zh": "红苹果", "group": "food"}]
    (tiny_copy / "vocabulary.json").write_text(json.dumps(rows))
    models = load(tiny_copy, device="cpu")
    assert models.vocabulary == rows
    assert list(models.defaults.values()) == ["dpmpp_2m", "karras", 12, 5.0, 64, 64]
    filled = models.resolve(GenerateOptions(prompt="x", height=128, count=16))
    assert (filled.sampler, filled.schedule, filled.steps, filled.cfg) == (
        "dpmpp_2m",
        "karras",
        12,
        5,
    )
    assert (filled.width, filled.height, filled.count) == (64, 128, 16)
    assert 0 <= filled.seed <= 2**32 - 16
    assert models.resolve(GenerateOptions(seed=7)).seed == 7
    # Euler a takes no Karras sigmas in every build of the table; what is kept must go together.
    other = models.resolve(GenerateOptions(sampler="ddim"))
    assert (other.sampler, other.schedule) == ("ddim", "automatic")


# The hub


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


def test_loads_from_the_hub(hub, models):
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


def test_hub_model_of_another_kind_is_not_downloaded(hub):
    folder, fetched, _ = hub
    change(folder / "model_index.json", _class_name="FluxPipeline")
    assert "another architecture" in sentence(load, "someone/tiny", device="cpu")
    assert fetched == ["model_index.json"]
    (folder / "model_index.json").unlink()
    assert "no model_index.json" in sentence(load, "someone/tiny", device="cpu")


def test_unknown_hub_model_gets_a_sentence(hub):
    text = sentence(load, "nobody/nothing", device="cpu")
    assert text == "There is no folder nobody/nothing, and no model of that name on the hub."
    assert "no model of that name" in sentence(load, "a/b..c", device="cpu")
