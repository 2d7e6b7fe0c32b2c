"""What all tests share: a tiny Stable Diffusion model in diffusers' folder format, and markers."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path

import pytest

# Triton reads this when a kernel is defined: without a GPU the kernels' tests run interpreted.
if not os.path.exists("/dev/nvidiactl") and not os.path.exists("/dev/kfd"):
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Several tests run at once, so each gets one thread, and so do the servers and trainings it starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")


TIERS = {
    "kernel": "runs Triton kernels, interpreted where there is no GPU",
    "training": "trains something",
    "browser": "opens the page in Chromium",
    "slow": "takes more than two seconds",
}


def pytest_addoption(parser):
    """Add the option --all."""
    parser.addoption(
        "--all", action="store_true", help="run every test, not only the quick part of the suite"
    )


def pytest_configure(config):
    """Register the markers, and run all tests if the command line selects some."""
    for name, meaning in TIERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}; left out of the quick part")
    config.addinivalue_line("markers", "quick: belongs to the quick part, whatever else it is")
    # Files, folders, markers or -k on the command line select from all tests, not only from the
    # quick part. Workers of xdist are told what the command line was.
    if hasattr(config, "workerinput"):
        config.option.all = config.workerinput["all"]
    elif (
        config.args_source is not config.ArgsSource.TESTPATHS
        or config.option.markexpr
        or config.option.keyword
    ):
        config.option.all = True
    _speed_up_interpreter()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Tell a worker of xdist whether to run all tests."""
    node.workerinput["all"] = node.config.option.all


def _tier(item) -> bool:
    """Add the markers of TIERS to a test; return whether it belongs to the quick part."""
    path = item.nodeid
    if path.startswith("tests/kernels/"):
        item.add_marker("kernel")
    if path.startswith("tests/pipeline/training/"):
        item.add_marker("training")
    if "browser" in item.fixturenames:
        item.add_marker("browser")
    own = {marker.name for marker in item.iter_markers()}
    return "quick" in own or not own & TIERS.keys()


def _speed_up_interpreter():
    """Cache which functions of triton.language the interpreter replaces.

    At every call of a kernel it searches the whole module for them, which is a third of its time.
    The result is always the same.
    """
    try:
        from triton.runtime import interpreter
    except ImportError:
        return
    if not hasattr(interpreter, "_LangPatchScope"):  # older ones load the language anew
        return
    builtin, found = interpreter.tl.core.is_builtin, {}

    def patch_builtin(package, builder, scope):
        if package not in found:
            members = inspect.getmembers(package)
            found[package] = [(name, member) for name, member in members if builtin(member)]
        for name, member in found[package]:
            if getattr(package, name) is member:  # not replaced yet
                interpreter._patch_attr(package, name, member, builder, scope)

    interpreter._patch_builtin = patch_builtin


# The longest tests start first, so that no worker still runs one of them while the others idle.
LONGEST = (
    "tests/pipeline/training/",
    "tests/kernels/",
    "tests/demo/test_browser.py",
    "tests/demo/tabs/test_tasks.py",
    "tests/pipeline/backends/test_backends.py",
    "tests/pipeline/test_emoji.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leave out all but the quick tests unless --all is given; put the longest tests first."""
    quick = [item for item in items if _tier(item)]
    config.never_quick = {item.path for item in items} - {item.path for item in quick}
    if not config.option.all:
        config.hook.pytest_deselected(items=[item for item in items if item not in set(quick)])
        items[:] = quick

    def rank(item) -> int:
        found = (i for i, place in enumerate(LONGEST) if item.nodeid.startswith(place))
        return next(found, len(LONGEST))

    items.sort(key=rank)  # keeps the order within


SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 0,
}
WORDS = ["a</w>", "red</w>", "apple</w>", "on</w>", "blue</w>"]


def write_tiny_model(folder: Path) -> Path:
    """Write an untrained Stable Diffusion model with random weights to `folder`; return `folder`.

    The seed is fixed. Pictures are 64x64 pixels, latents (1, 4, 8, 8). The format is diffusers'.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder.mkdir(parents=True)
    size = _write_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=2,  # the number of heads, 8 and 16 wide
            cross_attention_dim=32,
        )
        vae = AutoencoderKL(
            sample_size=64,
            block_out_channels=(8, 8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            latent_channels=4,
            scaling_factor=0.5,
        )
        with torch.no_grad():
            vae.decoder.conv_out.weight.mul_(4)  # pictures with some contrast
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=size,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=77,
                projection_dim=32,
                bos_token_id=size - 2,
                eos_token_id=size - 1,
                pad_token_id=size - 1,
            )
        )
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text_encoder.save_pretrained(folder / "text_encoder")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _write_tokenizer(folder: Path) -> int:
    """Write a CLIP tokenizer to `folder`; return the size of its vocabulary.

    It is a byte-level BPE whose merges make one token of each of WORDS.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges = []
    for word in WORDS:
        parts = [*word.removesuffix("</w>")[:-1], word.removesuffix("</w>")[-1] + "</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.append("".join(pair))
            parts[:2] = ["".join(pair)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    numbered = {word: i for i, word in enumerate(vocabulary)}
    assert len(numbered) == len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(numbered), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Return the folder of write_tiny_model's model, which tests must not change."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def triton_runs():
    """Skip the test if our Triton kernels cannot run here, not even interpreted, and say why."""
    import torch

    from pipeline.backends import KINDS, unsupported_reason

    device = torch.device("cpu")  # on which the tests that use this fixture run
    for kind in KINDS:
        reason = unsupported_reason(kind, "triton", device, torch.float32)
        if reason:
            pytest.skip(reason)


@pytest.fixture
def tiny_copy(tiny_model, tmp_path) -> Path:
    """Return the folder of a copy of the tiny model, which a test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
