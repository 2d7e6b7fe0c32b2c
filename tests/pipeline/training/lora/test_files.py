"""LoRA files under peft's and kohya's names, their metadata, and a full disk."""

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pipeline.errors import InputError
from pipeline.lora.reading import read_lora
from pipeline.training.lora import data as lora_data
from pipeline.training.lora import files as lora_files


def test_diffusers_and_peft_give_the_same_output(
    tiny, tiny_model, make_options, run, answer, answer_with_lora
):
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    end = run(tiny, make_options(alpha=5.0, rate=1e-2))[-1]
    bare = answer(tiny)
    ours = answer_with_lora(tiny, tiny.adapters.fit(read_lora(end.path)))
    tiny.adapters.install(())
    for path in (end.path, end.other):
        pipe = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
        if path == end.other:  # diffusers knows kohya's names of attention layers alone
            small = run(tiny, make_options(name="small", alpha=5.0, rate=1e-2, layers="attention"))[
                -1
            ]
            path = small.other
            ours = answer_with_lora(tiny, tiny.adapters.fit(read_lora(path)))
            tiny.adapters.install(())
        pipe.load_lora_weights(path.parent, weight_name=path.name, use_safetensors=True)
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(1, 4, 8, 8, generator=generator)
        context, _ = lora_data.encode_captions(tiny, ["a blue apple"])["a blue apple"]
        with torch.no_grad():
            theirs = pipe.unet(x, 500, encoder_hidden_states=context).sample
        assert (ours - bare).abs().max() > 1e-3
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=0), path


def test_the_header_says_what_a1111_shows(tiny, make_options, run):
    end = run(tiny, make_options(alpha=6.0, steps=2))[-1]
    for path in (end.path, end.other):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        assert metadata["ss_network_dim"] == "3" and float(metadata["ss_network_alpha"]) == 6
        assert (
            metadata["ss_base_model_version"] == "sd_v1"
            and metadata["ss_sd_model_hash"] == tiny.hash
        )
        assert json.loads(metadata["ss_tag_frequency"]) == {"zog": {"a red apple": 3}}
        assert metadata["modelspec.trigger_phrase"] == "a red apple" and metadata["ss_steps"] == "2"


@pytest.mark.quick
def test_kohya_may_be_the_naming_asked_for(tiny, make_options, run, tensors):
    end = run(tiny, make_options(naming="kohya", steps=1))[-1]
    assert all(k.startswith("lora_unet_") for k in tensors(end.path))
    assert end.other.name == "zog-peft.safetensors"
    assert tiny.generate(prompt="a <lora:zog:0.8>", seed=1, steps=1).warnings == ()


def test_a_full_disk_at_the_file_itself(tiny, monkeypatch, make_options, run):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    save = lora_files.save
    monkeypatch.setattr(lora_files, "save", full)
    with pytest.raises(InputError, match=r"Cannot write .*: No space left on device\."):
        run(tiny, make_options(steps=2))
    assert not list(Path().glob("models/**/*.*")) and not list(Path("runs/lora/zog").glob(".*"))
    monkeypatch.setattr(lora_files, "save", save)
    assert run(tiny, make_options(steps=2, resume=True))[-1].path.exists()
