"""The evaluation: background colour, halves, fixed scenes, and batched drawing."""

import pytest
import torch

from pipeline.training.emoji import clip, evaluate, export, scenes, tokenizer, unet, vae
from pipeline.training.emoji.vocabulary import COLOURS, RELATIONS


def seeded(n=0):
    return torch.Generator().manual_seed(n)


@pytest.mark.parametrize("colour", list(COLOURS))
def test_border_colour_of_real_scenes(composer, colour):
    scene = scenes.single_scene(4, colour, seeded(5))
    assert evaluate.border_colour(composer.draw([scene])[0]) == colour


@pytest.mark.parametrize("relation", list(RELATIONS))
def test_halves_come_in_the_captions_order(composer, relation):
    scene = scenes.pair_scene(2, 9, relation, "white", seeded(1))
    first, second = evaluate.crop_halves(composer.draw([scene]), relation)
    for crop, thing in ((first, 2), (second, 9)):
        disc = composer.sprites[scenes.PAIR_SIDE][thing][:3, 32, 32] * 2 - 1
        middle = crop[0, :, 60:68, 60:68].mean((1, 2))
        assert (middle - disc).abs().max() < 0.1


@pytest.mark.quick
def test_evaluation_scenes_are_fixed_and_cover_the_vocabulary():
    assert evaluate.evaluation_scenes(20, 252) == evaluate.evaluation_scenes(20, 252)
    singles, pairs = evaluate.evaluation_scenes(200, 252)
    assert len({s.objects[0] for s in singles}) == 200 and len(pairs) == 100


def test_the_evaluation_draws_what_the_pipeline_draws(tmp_path, vocabulary, words):
    """Many at once and one by one: the same pictures but for the last bits."""
    torch.manual_seed(0)
    from pipeline import load

    parts = {"unet": unet.build(192), "vae": vae.build(), "clip": clip.build(tokenizer.load(words))}
    export.write_model(tmp_path / "m", tokenizer_folder=words, vocabulary=vocabulary, **parts)
    models = load(str(tmp_path / "m"), device="cpu", dtype="fp32")
    prompts = ["a thing aa", "a thing ab on a red background"]
    many = evaluate.draw_batched(models, prompts, [4, 9], progress=False)
    for prompt, seed, picture in zip(prompts, (4, 9), many, strict=True):
        alone = models.generate(prompt=prompt, seed=seed, steps=evaluate.STEPS).images[0]
        pixels = torch.tensor(list(alone.getdata()), dtype=torch.float32).view(128, 128, 3)
        assert ((picture.permute(1, 2, 0) + 1) * 127.5 - pixels).abs().max() < 1.5
