"""What a name may mean, and that a model is loaded whole or refused in a sentence."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.loading.load import load
from pipeline.model_files import library, manifest

ROOT = Path(__file__).parents[3]
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


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


def test_loads_shards(tiny_copy, models, sentence):
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


@pytest.mark.slow
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
def test_broken_model_gets_a_sentence(tiny_copy, damage, words, sentence):
    damage(tiny_copy)
    assert words in sentence(load, tiny_copy, device="cpu")


# Reading: once for each small file, twice for weights

COUNT = """
import collections, json, sys
import safetensors

place, name = sys.argv[1:]
opened, tensors = collections.Counter(), collections.Counter()
safe_open = safetensors.safe_open

def counted(path, *arguments, **options):  # it opens in Rust, which no audit hook sees
    tensors[str(path)] += 1
    return safe_open(path, *arguments, **options)

def hook(event, arguments):
    if event == "open" and not isinstance(arguments[0], int):
        path = arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0])
        if path.startswith(place):
            opened[path] += 1

safetensors.safe_open = counted
sys.addaudithook(hook)
from pipeline import load

models = load(name, device="cpu", dtype="fp32")
once = dict(opened), dict(tensors)
opened.clear()
tensors.clear()
again = load(name, device="cpu", dtype="fp32")
assert again.digests == models.digests
from pipeline.model_files import library, manifest, file_reader

print(json.dumps([*once, dict(opened), dict(tensors), models.hash]))
"""


def count_reads(place: Path, name: str) -> tuple[dict[str, int], dict[str, int], str]:
    """({file: times opened}, {weights file: times its tensors are read}, hash) of one load."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(place), name],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    opened, tensors, opened_again, tensors_again, digest = json.loads(done.stdout)
    assert (opened_again, tensors_again) == (opened, tensors)
    return opened, tensors, digest


def sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


@pytest.mark.slow
def test_a_load_of_the_embedded_model_reads_each_file_once():
    place = library.EMBEDDED / "emoji"
    opened, tensors, digest = count_reads(place, "emoji")
    networks = ("unet", "vae", "text_encoder")
    weights = {str(p) for n in networks for p in place.glob(f"{n}/*.safetensors")}
    assert len(weights) == 5 and set(opened.values()) == {1}
    assert tensors == dict.fromkeys(weights, 1) and weights <= opened.keys()
    small = {Path(p).relative_to(place).as_posix() for p in opened.keys() - weights}
    assert {"model_index.json", "unet/config.json", "tokenizer/vocab.json"} <= small
    assert {"generation.json", "vocabulary.json", "scheduler/scheduler_config.json"} <= small
    assert digest == sha256(sorted(place.glob("unet/*.safetensors")))


@pytest.mark.slow
def test_a_load_of_a_single_file_reads_it_twice(pairs):
    """Once for header and hash together, once for the tensors of all its networks."""
    file = pairs("xl").file
    opened, tensors, digest = count_reads(file.parent, str(file))
    assert opened == tensors == {str(file): 1}
    assert digest == sha256([file])


@pytest.mark.slow
def test_a_load_of_sharded_weights_reads_each_shard_twice(tiny_copy, models):
    shutil.rmtree(tiny_copy / "unet")
    models.unet.save_pretrained(tiny_copy / "unet", max_shard_size="200KB")
    shards = sorted((tiny_copy / "unet").glob("*.safetensors"))
    opened, tensors, digest = count_reads(tiny_copy, str(tiny_copy))
    assert len(shards) > 2 and set(opened.values()) == set(tensors.values()) == {1}
    assert {str(s) for s in shards} <= opened.keys() & tensors.keys()
    assert digest == sha256(shards)


def test_a_second_load_hashes_nothing(tiny_model, models, monkeypatch):
    monkeypatch.setattr(hashlib, "sha256", lambda *_: pytest.fail("hashed again"))
    assert load(tiny_model, device="cpu").digests == models.digests


# A file that is replaced between opening and loading


def swap_contents(path: Path) -> None:
    """Another header of the same length, in the same file, at the same time."""
    state, raw = path.stat(), path.read_bytes()
    path.write_bytes(raw.replace(b"conv_in.bias", b"conv_in.bian"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def replace_with_copy(path: Path) -> None:
    state, new = path.stat(), path.with_suffix(".new")
    shutil.copy2(path, new)
    os.utime(new, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.replace(new, path)


@pytest.mark.parametrize(
    "replace",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: os.utime(path),
        lambda path: path.unlink(),
        swap_contents,
        replace_with_copy,
    ],
    ids=["size", "time", "gone", "header", "inode"],
)
def test_a_file_replaced_after_it_was_opened_is_refused(tiny_copy, monkeypatch, sentence, replace):
    opened = manifest.open

    def replaced(path):
        found = opened(path)
        replace(tiny_copy / UNET)
        return found

    monkeypatch.setattr(manifest, "open", replaced)
    text = sentence(load, tiny_copy, device="cpu")
    assert text.endswith(
        "diffusion_pytorch_model.safetensors was changed while it was loaded; try again."
    )


def test_a_changed_file_is_hashed_anew(tiny_copy):
    before = load(tiny_copy, device="cpu")
    tensors = load_file(tiny_copy / UNET)
    tensors["conv_out.bias"] += 1
    save_file(tensors, tiny_copy / UNET, metadata={"format": "pt"})
    after = load(tiny_copy, device="cpu")
    assert after.hash == sha256([tiny_copy / UNET]) != before.hash
    assert after.digests["vae"] == before.digests["vae"]
