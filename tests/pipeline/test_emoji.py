"""The embedded model as it ships: its size, its words, its pictures."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from pipeline import load
from pipeline.model_files.library import EMBEDDED

FOLDER = EMBEDDED / "emoji"


@pytest.fixture(scope="module")
def models():
    return load("emoji", device="cpu", dtype="fp32")


def weights(part: str) -> int:
    """Values in the safetensors files of a part."""
    from safetensors import safe_open

    count = 0
    for path in (FOLDER / part).rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            shapes = [file.get_slice(k).get_shape() for k in file.keys()]  # noqa: SIM118
            count += sum(int(np.prod(s)) for s in shapes)
            kinds = {file.get_slice(k).get_dtype() for k in file.keys()}  # noqa: SIM118
            assert kinds <= {"F16", "F32", "I64"}
    return count


def test_it_is_as_small_as_promised():
    files = [p for p in FOLDER.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 32 * 10**6
    assert max(p.stat().st_size for p in files) <= 9 * 10**6
    assert {p.suffix for p in files} <= {".safetensors", ".json", ".txt", ".md"}
    assert weights("unet") <= 10_000_000 and weights("vae") <= 2_000_000
    assert weights("text_encoder") + weights("clip") <= 4_000_000


def test_vocabulary_is_listed_in_both_languages(models):
    rows = json.loads((FOLDER / "vocabulary.json").read_text(encoding="utf-8"))
    assert len(rows) >= 250 and all({"emoji", "en", "zh"} <= set(r) for r in rows)
    groups = Counter(r["group"] for r in rows)
    assert max(groups.values()) - min(groups.values()) <= 5 and len(groups) == 6
    assert len({r["en"] for r in rows}) == len({r["zh"] for r in rows}) == len(rows)
    assert models.vocabulary[0]["emoji"] == rows[0]["emoji"]


def test_the_card_tells_how_good_it_is():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    table = json.loads((FOLDER / "evaluation.json").read_text(encoding="utf-8"))
    assert f"{100 * table['en']['top5']:.1f}%" in card and "MIT" in card and "Unicode" in card


def test_autoencoder_keeps_the_colours(models):
    from pipeline.latents import vae

    for colour in ((0.9, 0.2, 0.2), (0.2, 0.4, 0.9), (0.4, 0.7, 0.4)):
        picture = torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 128, 128).contiguous()
        picture[..., 40:90, 40:90] = 0.95
        kept = vae.decode(models.vae, vae.encode(models.vae, picture))
        assert (kept - picture).abs().mean() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompts", "channel"),
    [
        (("a red apple on a blue background", "蓝色背景上的红苹果"), 2),
        (("a penguin on a red background", "红色背景上的企鹅"), 0),
    ],
)
def test_the_background_has_the_colour_that_was_asked_for(models, prompts, channel):
    """Both languages, two seeds each: in most corners the named channel is the strongest."""
    right = []
    for prompt in prompts:
        for seed in (1, 2):
            picture = np.asarray(models.generate(prompt=prompt, seed=seed).images[0])
            corners = picture[[2, 2, -3, -3], [2, -3, 2, -3]]
            right += list(corners.argmax(1) == channel)
    assert sum(right) >= 0.75 * len(right)


def test_words_change_the_picture(models):
    same = {"seed": 5, "steps": 8}
    apple, rocket = (
        models.generate(prompt=f"a {name} on a white background", **same).latents[0]
        for name in ("red apple", "rocket")
    )
    assert (apple - rocket).abs().mean() > 0.05


@pytest.mark.parametrize("sampler", ["euler_a", "dpmpp_2m", "ddim"])
def test_diffusers_own_pipeline_draws_the_same(models, sampler):
    from diffusers import StableDiffusionPipeline

    from pipeline.latents import noise
    from pipeline.samplers import SAMPLERS, SCHEDULES
    from pipeline.samplers.diffusers_adapter import build

    options = models.resolve(models_options(sampler))
    pipe = StableDiffusionPipeline.from_pretrained(
        FOLDER, use_safetensors=True, dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    line = SAMPLERS[options.sampler]
    schedule = options.schedule if options.schedule != "automatic" else line.automatic
    pipe.scheduler = build(line, SCHEDULES[schedule], models.scheduler_config, options.steps)
    generator = noise.generator_for(options.seed)
    latents = noise.first_noise(generator, 4, 16, 16)
    theirs = pipe(
        options.prompt,
        num_inference_steps=options.steps,
        guidance_scale=options.cfg,
        latents=latents,
        generator=generator,
        output_type="latent",
        width=128,
        height=128,
    ).images
    ours = models.generate(options).latents[0]
    assert (ours - theirs).abs().max() < 1e-4


def models_options(sampler):
    from pipeline import GenerateOptions

    return GenerateOptions(prompt="a red apple on a blue background", sampler=sampler, seed=3)


@pytest.mark.slow
def test_bench_compares_with_diffusers_on_the_same_folder(capsys):
    from pipeline.cli import bench

    figures = bench.measure("emoji", steps=2, repeats=1, device="cpu", dtype="fp32")
    assert figures["difference"] < 1e-4 and figures["ratio"] > 0
    out = capsys.readouterr().out
    assert "diffusers takes" in out and "cold start" in out
