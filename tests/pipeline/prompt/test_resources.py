"""What prompts name, LoRAs and textual inversions, is found, used, told and written down."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import InputError
from pipeline.events import Result, Step
from pipeline.loading.load import load
from pipeline.options import GenerateOptions
from pipeline.prompt import resources

ASK = {"seed": 3, "steps": 4, "size": (64, 64), "sampler": "ddim", "cfg": 4.0}


def write_lora(path, models, network="unet", scale=0.5):
    """kohya's names, for the attention and the feed-forward layers of the model."""
    tensors, generator = {}, torch.Generator().manual_seed(5)
    module = getattr(models, network)
    base = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[network]
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear) and ("attn" in name or "mlp" in name):
            out, width = layer.weight.shape
            key = base + name.removeprefix("text_model.").replace(".", "_")
            tensors[f"{key}.lora_down.weight"] = torch.randn(2, width, generator=generator) * scale
            tensors[f"{key}.lora_up.weight"] = torch.randn(out, 2, generator=generator) * scale
            tensors[f"{key}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)


@pytest.fixture(scope="module")
def models(pairs):
    return load(pairs("sd1").file, device="cpu", dtype="fp32")


@pytest.fixture
def folder(tmp_path, monkeypatch, models):
    """./models with two LoRAs for the model, one for SD XL, and two textual inversions."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "models"
    place.mkdir()
    write_lora(place / "Style.safetensors", models)
    write_lora(place / "voice.safetensors", models, "text_encoder")
    wide = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    save_file(
        {
            f"{wide}.lora_down.weight": torch.ones(2, 2048),
            f"{wide}.lora_up.weight": torch.ones(8, 2),
        },
        place / "wide.safetensors",
    )
    vectors = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    save_file({"emb_params": vectors}, place / "myface.safetensors")
    save_file({"emb_params": torch.randn(2, 1024)}, place / "otherface.safetensors")
    return place


def latents(models, prompt, **more):
    return models.generate(**(ASK | {"prompt": prompt} | more)).latents[0]


def test_loras_from_the_prompt(models, folder):
    bare = latents(models, "a red apple")
    changed = latents(models, "a red apple <lora:Style:1>")
    assert (changed - bare).abs().max() > 0.01
    assert torch.equal(latents(models, "a red apple <lora:style:1>"), changed)  # any case
    assert torch.equal(latents(models, "a red apple <lora:Style:0>"), bare)
    half = latents(models, "a red apple <lora:Style:0.5>")
    assert 0 < (half - bare).abs().max() < (changed - bare).abs().max()
    both = latents(models, "a red apple <lora:Style:1><lora:voice:1>")
    assert not torch.equal(both, changed)
    assert torch.equal(latents(models, "a red apple"), bare)  # nothing stays on
    guided = latents(models, "", negative="a red apple <lora:Style:1>")
    assert torch.equal(guided, latents(models, "", negative="a red apple"))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sdpa", "math", "triton"])
def test_loras_with_every_attention_backend(models, folder, backend, request):
    if backend == "triton":
        request.getfixturevalue("triton_runs")
    ask = {"attention": backend, "steps": 1}
    bare = latents(models, "a red apple", **ask)
    lora = latents(models, "a red apple <lora:Style:1> <lora:voice:0.7>", **ask)
    plain = latents(models, "a red apple <lora:Style:1> <lora:voice:0.7>", steps=1)
    assert (lora - plain).abs().max() < 1e-3 < (lora - bare).abs().max()


def test_two_users_with_different_loras_do_not_touch_each_other(models, folder):
    prompts = ["a red apple <lora:Style:1>", "a red apple", "a red apple <lora:voice:1>"]
    alone = [latents(models, p) for p in prompts]
    streams = [models.stream(GenerateOptions(**ASK, prompt=p)) for p in prompts]
    results = [None] * 3
    while not all(results):
        for i, stream in enumerate(streams):
            event = next(stream, None)
            results[i] = event if isinstance(event, Result) else results[i]
    for result, picture in zip(results, alone, strict=True):
        assert torch.equal(result.latents[0], picture)


def test_lora_of_another_architecture_is_refused_whole(models, folder):
    before = latents(models, "a red apple")
    with pytest.raises(InputError) as caught:
        latents(models, "a red apple <lora:Style:1> <lora:wide:1>")
    assert "wide.safetensors is a LoRA for Stable Diffusion XL" in str(caught.value)
    assert torch.equal(latents(models, "a red apple"), before)


def test_unknown_lora_is_a_warning_with_the_names_there_are(models, folder):
    result = models.generate(**ASK, prompt="a red apple <lora:Stile:1>")
    (warning,) = result.warnings
    assert warning == "There is no LoRA 'Stile'; there is Style, wide, voice."
    assert torch.equal(result.latents[0], latents(models, "a red apple"))
    (folder / "Style.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"Style.safetensors is truncated"):
        latents(models, "<lora:Style:1>")


def test_textual_inversions(models, folder):
    plain = latents(models, "a photo of somebody")
    result = models.generate(**ASK, prompt="a photo of myface")
    assert not torch.equal(result.latents[0], plain) and not result.warnings
    (folder / "myface.safetensors").unlink()
    assert not torch.equal(result.latents[0], latents(models, "a photo of myface"))
    (warning,) = models.generate(**ASK, prompt="a photo of otherface").warnings
    assert "otherface" in warning and "1024" in warning and "64" in warning
    (folder / "otherface.safetensors").write_bytes(b"x" * 50)
    assert not models.generate(**ASK, prompt="a photo of otherface").warnings  # no embedding


def test_what_was_used_is_written_down(models, folder):
    text = models.generate(
        **ASK, prompt="myface <lora:Style:0.8>", negative="x", clip_skip=2, cfg_rescale=0.5
    ).parameters[0]
    raw = (folder / "Style.safetensors").read_bytes()
    body = raw[8 + int.from_bytes(raw[:8], "little") :]
    digest = hashlib.sha256(body).hexdigest()[:12]
    assert resources.content_hash(folder / "Style.safetensors") == digest
    assert f'Lora hashes: "Style: {digest}"' in text and 'TI hashes: "myface: ' in text
    assert "CFG rescale: 0.5, Clip skip: 2" in text
    assert text.startswith("myface <lora:Style:0.8>\nNegative prompt: x\nSteps: 4, ")


def test_a_schedule_changes_the_words_at_its_step(models):
    seen = {}
    for prompt in ("a red apple", "a cat", "a [red apple:cat:2]", "a [red apple|cat]"):
        options = GenerateOptions(**ASK, prompt=prompt)
        seen[prompt] = [
            (" ".join(event.words), event.clean)
            for event in models.stream(options, words=True)
            if isinstance(event, Step)
        ]
    apple, cat = "a red apple", "a cat"
    assert [w for w, _ in seen["a [red apple:cat:2]"]] == [apple, apple, cat, cat]
    assert [w for w, _ in seen["a [red apple|cat]"]] == [apple, cat, apple, cat]
    changed, whole = seen["a [red apple:cat:2]"], seen[apple]
    assert all(torch.equal(changed[i][1], whole[i][1]) for i in (0, 1))
    assert not torch.equal(changed[2][1], whole[2][1])


def test_clip_skip_and_weights_matter_and_too_deep_is_a_sentence(models):
    bare = latents(models, "a red apple")
    assert torch.equal(latents(models, "a red apple", clip_skip=1), bare)
    assert not torch.equal(latents(models, "a red apple", clip_skip=2), bare)
    assert not torch.equal(latents(models, "a (red:1.4) apple"), bare)
    with pytest.raises(InputError, match="has 3 layers"):
        latents(models, "a red apple", clip_skip=7)


def test_syntax_errors_are_taken_literally_with_a_hint(models):
    result = models.generate(**ASK, prompt="a (red apple")
    assert result.images and len(result.warnings) == 1 and "(" in result.warnings[0]


def test_guidance_rescale_keeps_the_deviation():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    from pipeline.denoising.denoiser import rescale_cfg

    cond, guided = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8) * 3 + 1
    full = rescale_cfg(guided, cond, 1.0)
    assert torch.allclose(full.std(), cond.std(), rtol=1e-5)
    for share in (0.0, 0.3, 0.7, 1.0):
        theirs = rescale_noise_cfg(guided, cond, guidance_rescale=share)
        assert torch.allclose(rescale_cfg(guided, cond, share), theirs, rtol=1e-6, atol=1e-6)
