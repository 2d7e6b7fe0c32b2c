"""Every bad folder and file ends in one sentence, before a loader sees it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.model_files import diffusers_folder
from pipeline.model_files.file_reader import FileReader

ROOT = Path(__file__).parents[3]
UNET = "unet/diffusion_pytorch_model.safetensors"


class Bomb:
    """Unpickling this writes a file: the tests look whether it is there."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def sentence(check, *arguments) -> str:
    """The InputError's text, held to be one printable line without a chain of other errors."""
    with pytest.raises(InputError) as caught:
        check(*arguments)
    text = str(caught.value)
    assert text.isprintable() and text.rstrip().endswith((".", ")")) and len(text) < 500, text
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return text


def read(folder: Path) -> None:
    """Read the model folder as `manifest.open` does."""
    with FileReader() as files:
        diffusers_folder.read_folder(folder, files)


def change(path: Path, **fields) -> None:
    """Set fields of a JSON file; a value of ... removes its key."""
    data = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not ...}))


def pickled(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.bin")


def renamed_pickle(folder: Path) -> None:
    (folder / UNET).write_bytes(pickle.dumps(Bomb(folder / "exploded")))


def renamed_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / UNET, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(folder / "exploded")))


def truncated(folder: Path) -> None:
    os.truncate(folder / UNET, (folder / UNET).stat().st_size - 100)


def headless(folder: Path) -> None:
    os.truncate(folder / UNET, 200)


def sharded(names: dict, metadata: object = ...) -> Callable:
    def damage(folder: Path) -> None:
        (folder / UNET).unlink()
        index = {"metadata": {} if metadata is ... else metadata, "weight_map": names}
        path = folder / (UNET + ".index.json")
        path.write_text(json.dumps(index))

    return damage


def linked(folder: Path) -> None:
    outside = folder.parent / "secret.json"
    (folder / "unet/config.json").rename(outside)
    (folder / "unet/config.json").symlink_to(outside)


def linked_folder(folder: Path) -> None:
    (folder / "vae").rename(folder.parent / "vae")
    (folder / "vae").symlink_to(folder.parent / "vae")


def pipe(folder: Path) -> None:
    (folder / "text_encoder/config.json").unlink()
    os.mkfifo(folder / "text_encoder/config.json")


def remove(name: str) -> Callable:
    def damage(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def text(name: str, content: str | bytes) -> Callable:
    def damage(folder: Path) -> None:
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(raw)

    return damage


def index(**fields) -> Callable:
    return lambda folder: change(folder / "model_index.json", **fields)


def config(name: str, **fields) -> Callable:
    file = "scheduler_config.json" if name == "scheduler" else "config.json"
    return lambda folder: change(folder / name / file, **fields)


DAMAGES = [  # what is done to a good folder, and words of the sentence it must get
    (remove("."), "There is no model folder"),
    (remove("model_index.json"), "no model_index.json"),
    (remove("unet"), "unet/config.json is missing"),
    (remove("unet/config.json"), "unet/config.json is missing"),
    (remove(UNET), f"{UNET} is missing"),
    (remove("vae/diffusion_pytorch_model.safetensors"), "vae/diffusion_pytorch_model"),
    (remove("text_encoder/model.safetensors"), "text_encoder/model.safetensors is missing"),
    (remove("tokenizer"), "tokenizer_config.json is missing"),
    (remove("tokenizer/vocab.json"), "tokenizer/vocab.json is missing"),
    (remove("tokenizer/merges.txt"), "tokenizer/merges.txt is missing"),
    (remove("scheduler/scheduler_config.json"), "scheduler_config.json is missing"),
    (text("model_index.json", "[]"), "must hold an object"),
    (text("model_index.json", '{"_class_name": "Stable'), "is damaged"),
    (text("unet/config.json", ""), "is damaged"),
    (text("unet/config.json", b"\xff\xfe"), "not UTF-8"),
    (text("unet/config.json", "[" * 100_000), "nested too deeply"),
    (text("unet/config.json", '{"a": NaN}'), "no number"),
    (text("unet/config.json", '{"a": ' + "9" * 5000 + "}"), "is damaged"),
    (text("unet/config.json", '{"a": 1, "a": 2}'), "twice"),
    (text("unet/config.json", "[1]"), "must hold an object"),
    (text("vae/config.json", " " * 16_000_001), "too large"),
    (text("tokenizer/vocab.json", '{"a": "b"}'), "must map words to numbers"),
    (text("tokenizer/merges.txt", "#version\nq zz\n"), "does not go with vocab.json"),
    (text("tokenizer/merges.txt", b"\xff\xff"), "is not text"),
    (text("tokenizer/special_tokens_map.json", "{"), "is damaged"),
    (truncated, "is truncated"),
    (headless, "is truncated"),
    (text(UNET, b""), "is truncated"),
    (text(UNET, "version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    (text(UNET, "<!DOCTYPE html>..........."), "a web page"),
    (text(UNET, b"\0" * 100), "no safetensors file"),
    (pickled, "is a pickle, and pickled weights are not loaded"),
    (renamed_pickle, "is a pickle"),
    (renamed_zip, "is a zip archive of pickles"),
    (sharded({"a": "../../secret.safetensors"}), "no .safetensors file beside it"),
    (sharded({"a": "/etc/passwd"}), "no .safetensors file beside it"),
    (sharded({"a": "C:\\x.safetensors"}), "no .safetensors file beside it"),
    (sharded({"a": "shard.bin"}), "no .safetensors file beside it"),
    (sharded({"a": 7}), "no .safetensors file beside it"),
    (sharded({"a": "gone-00001-of-00002.safetensors"}), "is missing"),
    (sharded({}), "needs a weight_map"),
    (sharded({"a": "b.safetensors"}, None), "needs a weight_map and metadata"),
    (linked, "leads out of the model folder"),
    (linked_folder, "leads out of the model folder"),
    (pipe, "neither a file nor a folder"),
    (lambda f: (f / "unet/x.json").symlink_to(f / "unet/x.json"), "cannot be read"),
    (lambda f: (f / "vae/gone.json").symlink_to(f / "nowhere"), "cannot be read"),
    (lambda f: (f / (UNET + ".index.json")).write_text("{}"), "remove the stale one"),
    (index(_class_name="StableDiffusionXLPipeline"), "names no text_encoder_2"),
    (index(_class_name="StableDiffusion3Pipeline"), "another architecture"),
    (index(_class_name="FluxPipeline"), "FluxPipeline, which is another architecture"),
    (index(_class_name=["x", "\x1b[31m"]), "another architecture"),
    (index(_class_name=...), "another architecture"),
    (index(unet=...), "names no unet"),
    (index(vae=[None, None]), "names no vae"),
    (index(text_encoder=["transformers", "T5EncoderModel"]), "T5EncoderModel; only CLIPTextModel"),
    (index(vae=["diffusers", "AutoencoderTiny"]), "only AutoencoderKL"),
    (index(unet=["unet.my_code", "Evil"]), "only UNet2DConditionModel"),
    (config("unet", _class_name="UNet3DConditionModel"), "UNet3DConditionModel; only"),
    (config("text_encoder", architectures=["BertModel"]), "BertModel; only"),
    (config("unet", quantization_config={}), "in a format that is not loaded"),
    (config("text_encoder", transformers_weights="../x.safetensors"), "not loaded"),
    (config("unet", layers_per_block=10**6), "more than 128"),
    (config("unet", block_out_channels=[8] * 1000), "1,000 entries"),
    (config("text_encoder", hidden_size=10**12), "more than 1,000,000"),
    (config("unet", addition_embed_type="text_time"), "another architecture"),
    (config("unet", num_class_embeds=10), "asks for classes"),
    (config("unet", in_channels=8), "in_channels 8"),
    (config("unet", cross_attention_dim=[1, 2]), "takes a context of size"),
    (config("vae", latent_channels=16), "16 latent channels"),
    (config("scheduler", beta_schedule="cubic"), "it can be linear"),
    (config("scheduler", prediction_type="sample"), "it can be epsilon, v_prediction"),
    (config("scheduler", prediction_type=["epsilon"]), "it can be epsilon"),
    (config("scheduler", num_train_timesteps=10**9), "num_train_timesteps"),
    (config("scheduler", beta_end="0.1"), "lies between 0 and 1"),
    (config("scheduler", trained_betas=[0.1]), "must be 1000 numbers"),
]


def test_good_folder_passes(tiny_model):
    read(tiny_model)


@pytest.mark.parametrize("damage, words", DAMAGES, ids=[d[1][:40] for d in DAMAGES])
def test_damaged_folder_gets_a_sentence(tiny_copy, damage, words):
    damage(tiny_copy)
    assert words in sentence(read, tiny_copy)
    assert not (tiny_copy / "exploded").exists()


def test_code_in_the_folder_is_ignored(tiny_copy):
    (tiny_copy / "unet/modeling.py").write_text("raise SystemExit")
    change(tiny_copy / "unet/config.json", auto_map={"AutoModel": "modeling.Evil"})
    read(tiny_copy)


def test_hub_cache_may_link_to_its_blobs(tiny_copy, tmp_path):
    cache = tmp_path / "hub"
    model = cache / "models--someone--tiny"
    (cache / "blobs/ab").mkdir(parents=True)
    (model / "blobs").mkdir(parents=True)
    snapshot = Path(shutil.copytree(tiny_copy, model / "snapshots/0123"))
    for name, blob in (
        ("unet/config.json", model / "blobs/1"),
        ("vae/diffusion_pytorch_model.safetensors", cache / "blobs/ab/2"),
    ):
        (snapshot / name).rename(blob)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    read(snapshot)
    (snapshot / "scheduler/x.json").symlink_to("/etc/hostname")
    assert "leads out" in sentence(read, snapshot)


def test_imports_nothing_heavy():
    code = "import sys, pipeline.model_files.library as _; "
    code += "print({'torch', 'safetensors'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "set()"
