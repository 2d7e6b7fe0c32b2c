"""Each stage learns what it should, and exported parts load as a model."""

import json

import pytest
import torch
import torch.nn.functional as F

from pipeline.training import sheet
from pipeline.training.emoji import clip, evaluate, export, tokenizer, unet, vae
from pipeline.training.emoji import scenes as data


def seeded(n=0):
    return torch.Generator().manual_seed(n)


# ---- tokenizer ---------------------------------------------------------------------------------


def test_tokenizer_knows_every_letter_and_keeps_the_prompt(words):
    load = tokenizer.load(words)
    for text in ("a thing aa on a blue background", "蓝 色 背 景", "ÅÉ ñ 🍎 ж", "1 + 2 = 3!"):
        ids = load(text).input_ids
        assert ids[0] == load.bos_token_id and ids[-1] == load.eos_token_id
        inner = ids[1:-1]
        assert load.eos_token_id not in inner and load.bos_token_id not in inner
        assert load.decode(inner).replace(" ", "") == text.lower().replace(" ", "")


def test_han_characters_are_words_of_their_own():
    from pipeline.prompt.text import space_han

    assert space_han("蓝色背景上的red苹果") == "蓝 色 背 景 上 的 red 苹 果"
    assert space_han("a red apple") == "a red apple"


# ---- CLIP --------------------------------------------------------------------------------------


def test_contrastive_loss_is_the_papers():
    image, text = (F.normalize(torch.randn(5, 8, generator=seeded(i)), dim=-1) for i in (1, 2))
    logits = 10 * image @ text.T
    rows = -logits.log_softmax(1).diagonal().mean()
    columns = -logits.log_softmax(0).diagonal().mean()
    ours = clip.contrastive(image, text, torch.tensor(10.0).log())
    assert torch.allclose(ours, (rows + columns) / 2)


def test_clip_batches_hold_hard_negatives(tiny_data, vocabulary):
    pairs = clip.Pairs(tiny_data, vocabulary)
    scenes = pairs.scenes(32, seeded())
    assert len(scenes) == 32
    doubles = [s for s in scenes if s.relation]
    for a, b in zip(doubles[::2], doubles[1::2], strict=True):
        assert a.things == b.things and a.relation == data.OPPOSITE[b.relation]
    pictures, texts = pairs(32, seeded())
    assert pictures.shape == (32, 3, 128, 128) and len(texts) == 32


def test_clip_learns(tmp_path, tiny_data, vocabulary, words):
    torch.manual_seed(0)
    load = tokenizer.load(words)
    trainer = clip.trainer(
        clip.build(load), load, clip.Pairs(tiny_data, vocabulary), tmp_path, batch=16, warmup=5
    )
    batch = clip.Pairs(tiny_data, vocabulary)(16, seeded(1))
    ids = clip.tokens(load, batch[1])

    def step(_, __):
        image = clip.embed_images(trainer.module, batch[0])
        text = clip.embed_texts(trainer.module, ids)
        return {"loss": clip.contrastive(image, text, trainer.module.logit_scale)}

    trainer.step_fn = step
    losses = [trainer._one_step()["loss"] for _ in range(25)]
    assert losses[-1] < 0.7 * losses[0]


def test_cut_padding_does_not_change_the_texts_embedding(words):
    load = tokenizer.load(words)
    model = clip.build(load).eval()
    texts = ["a thing aa", "a thing aa to the left of a thing ab on a red background"]
    with torch.no_grad():
        short = clip.embed_texts(model, clip.tokens(load, texts))
        full = clip.embed_texts(model, clip.tokens(load, texts, full=True))
    assert torch.allclose(short, full, atol=1e-5)


# ---- autoencoder -------------------------------------------------------------------------------


def test_autoencoder_is_f8_with_4_channels_and_small():
    model = vae.build()
    with torch.no_grad():
        assert model.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean.shape == (1, 4, 8, 8)
    assert sum(p.numel() for p in model.parameters()) <= 2_000_000


def test_normalising_latents_does_not_change_what_is_decoded():
    torch.manual_seed(0)
    model = vae.build().eval()
    pictures = torch.rand(6, 3, 64, 64, generator=seeded()) * 2 - 1
    with torch.no_grad():
        model.quant_conv.bias[:4] = torch.tensor([3.0, -1.0, 0.5, 2.0])
        model.quant_conv.weight[1] *= 7
        before = model.decode(model.encode(pictures).latent_dist.mode()).sample
        spread = model.encode(pictures).latent_dist.std
        deviation = model.encode(pictures).latent_dist.mode().std((0, 2, 3))
        vae.normalise(model, pictures)
        posterior = model.encode(pictures).latent_dist
        after = model.decode(posterior.mode()).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(posterior.mode().mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(posterior.mode().std((0, 2, 3)), torch.ones(4), atol=1e-3)
    assert torch.allclose(posterior.std * deviation.view(1, 4, 1, 1), spread, rtol=1e-3)
    scale = model.config.scaling_factor
    assert abs(posterior.mode().std().item() * scale - 1) < 1e-3


def test_the_hint_pulls_three_channels_to_the_mean_colour(tmp_path, tiny_data, vocabulary):
    """The hint is in the loss, hard at first, then gently; a frozen encoder has none."""
    torch.manual_seed(0)
    model = vae.build()
    pictures = vae.Pictures(tiny_data, vocabulary)
    seen = pictures(4, seeded(3))
    with torch.no_grad():
        without = vae.loss_terms(model, seen, seeded(4))
        half = vae.loss_terms(model, seen, seeded(4), 0.5)
        mean = model.encode(seen).latent_dist.mode()[:, :3]
    wanted = F.mse_loss(mean, 2 * F.avg_pool2d(seen, 8))
    assert torch.allclose(half["loss"] - without["loss"], wanted / 2, rtol=1e-4)

    def loss(step, **how):
        trainer = vae.trainer(model, pictures, tmp_path, batch=4, **how)
        with torch.no_grad():
            return trainer.step_fn(seeded(5), step)["loss"].item()

    last = loss(vae.HINT_STEPS)
    assert loss(0) > loss(vae.HINT_STEPS // 2) > last == loss(2 * vae.HINT_STEPS)
    assert last > loss(0, decoder_only=True)


def test_decoder_only_leaves_the_latents_alone(tmp_path, tiny_data, vocabulary):
    torch.manual_seed(0)
    model = vae.build()
    pictures = vae.Pictures(tiny_data, vocabulary)
    frozen = {k: v.clone() for k, v in model.state_dict().items()}
    trainer = vae.trainer(model, pictures, tmp_path, batch=4, decoder_only=True)
    trainer._one_step()
    moved = {
        k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, frozen[k])
    }
    assert moved == {"decoder", "post_quant_conv"}


# ---- UNet --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_shifted_timesteps_have_the_distribution_they_promise(shift):
    t = unet.timesteps(200_000, 1000, seeded(6), shift).float()
    assert t.min() >= 0 and t.max() == 999
    for share in (0.25, 0.5, 0.9):  # quantiles of shift * u / (1 + (shift - 1) * u)
        wanted = 1000 * shift * share / (1 + (shift - 1) * share)
        assert abs(t.quantile(share).item() - wanted) < 6


class Oracle(torch.nn.Module):
    """Knows the clean latents and so the exact answer, whatever it is asked for."""

    def __init__(self, clean, alphas, prediction):
        super().__init__()
        self.clean, self.alphas, self.prediction = clean, alphas, prediction

    def forward(self, x, t, encoder_hidden_states, return_dict):
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        noise = (x - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * self.clean
        return (velocity if self.prediction == "v_prediction" else noise,)


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_the_exact_answer_has_no_loss_and_another_has(prediction):
    clean = torch.randn(8, 4, 4, 4, generator=seeded())
    alphas = unet.scheduler(prediction).alphas_cumprod
    other = "epsilon" if prediction == "v_prediction" else "v_prediction"
    for kind, right in ((prediction, True), (other, False)):
        oracle = Oracle(clean, alphas, kind)
        loss = unet.velocity_loss(oracle, clean, None, alphas, seeded(), prediction=prediction)
        assert (loss < 1e-6) == right


def test_unet_is_small_enough_and_reads_the_words():
    torch.manual_seed(0)
    model = unet.build(192).eval()
    assert sum(p.numel() for p in model.parameters()) <= 10_000_000
    x, t = torch.randn(1, 4, 16, 16), torch.tensor([500])
    with torch.no_grad():
        outs = [model(x, t, torch.randn(1, 77, 192, generator=seeded(i))).sample for i in (1, 2)]
    assert outs[0].shape == x.shape and not torch.allclose(*outs)


def test_pool_holds_scaled_latents_of_its_scenes(composer):
    model = vae.build().eval()
    model.register_to_config(scaling_factor=0.5)
    pool = unet.Pool(composer, model, 6, 0.5)
    pool.fill(3)
    with torch.no_grad():
        expected = model.encode(composer.draw(pool.scenes)).latent_dist.mode() * 0.5
    assert torch.allclose(pool.latents.float(), expected, atol=1e-2)
    first = pool.scenes
    pool.fill(3)
    assert pool.scenes == first


# ---- evaluation and export ---------------------------------------------------------------------


@pytest.mark.parametrize("colour", list(data.COLOURS))
def test_border_colour_of_real_scenes(composer, colour):
    scene = data.single_scene(4, colour, seeded(5))
    assert evaluate.border_colour(composer.draw([scene])[0]) == colour


@pytest.mark.parametrize("relation", list(data.RELATIONS))
def test_halves_come_in_the_captions_order(composer, relation):
    scene = data.pair_scene(2, 9, relation, "white", seeded(1))
    first, second = evaluate.halves(composer.draw([scene]), relation)
    for crop, thing in ((first, 2), (second, 9)):
        disc = composer.sprites[data.PAIR][thing][:3, 32, 32] * 2 - 1
        middle = crop[0, :, 60:68, 60:68].mean((1, 2))
        assert (middle - disc).abs().max() < 0.1


def test_asked_scenes_are_fixed_and_cover_the_vocabulary():
    assert evaluate.asked(20, 252) == evaluate.asked(20, 252)
    singles, pairs = evaluate.asked(200, 252)
    assert len({s.things[0] for s in singles}) == 200 and len(pairs) == 100


def test_export_writes_a_model_that_loads_draws_and_can_be_measured(
    tmp_path, tiny_data, few_objects, words
):
    torch.manual_seed(0)
    from pipeline import load

    vocabulary = data.Vocabulary.from_packages(tiny_data)
    folder = tmp_path / "model"
    towers = clip.build(tokenizer.load(words))
    export.export(
        folder,
        unet=unet.build(192),
        vae=vae.build(),
        clip=towers,
        tokenizer_folder=words,
        vocabulary=vocabulary,
    )
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 32 * 2**20
    assert max(p.stat().st_size for p in files) <= 9 * 10**6
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".ckpt")]
    models = load(str(folder), device="cpu", dtype="fp32")
    assert models.defaults["width"] == 128 and len(models.vocabulary) == len(vocabulary)
    texts = ["a thing aa on a red background"]
    ids = clip.tokens(tokenizer.load(words), texts, full=True)
    with torch.no_grad():
        kept = models.text_encoder(input_ids=ids).last_hidden_state
        trained = towers.text_model(input_ids=ids).last_hidden_state
    assert torch.allclose(kept, trained, atol=2e-2)
    table = evaluate.evaluate(folder, tiny_data, count=2, progress=False)
    assert set(table["en"]) >= {"top1", "top5", "background", "two_objects"}
    assert 0 <= table["real"]["top1"] <= 1 and "Chinese" in evaluate.markdown(table)
    json.dumps(table)


def test_sheet(tmp_path):
    from PIL import Image

    pictures = torch.stack([torch.full((3, 4, 6), v) for v in (-1.0, 0.0, 1.0)])
    sheet.save_sheet(pictures, tmp_path / "s.png", columns=2)
    image = Image.open(tmp_path / "s.png")
    assert image.size == (12, 8)
    assert [image.getpixel(p) for p in ((0, 0), (6, 0), (0, 4))] == [
        (0, 0, 0),
        (128, 128, 128),
        (255, 255, 255),
    ]


def test_the_evaluation_draws_what_the_pipeline_draws(tmp_path, vocabulary, words):
    """Many at once and one by one: the same pictures but for the last bits."""
    torch.manual_seed(0)
    from pipeline import load

    parts = {"unet": unet.build(192), "vae": vae.build(), "clip": clip.build(tokenizer.load(words))}
    export.export(tmp_path / "m", tokenizer_folder=words, vocabulary=vocabulary, **parts)
    models = load(str(tmp_path / "m"), device="cpu", dtype="fp32")
    prompts = ["a thing aa", "a thing ab on a red background"]
    many = evaluate.draw(models, prompts, [4, 9], progress=False)
    for prompt, seed, picture in zip(prompts, (4, 9), many, strict=True):
        alone = models.generate(prompt=prompt, seed=seed, steps=evaluate.STEPS).images[0]
        pixels = torch.tensor(list(alone.getdata()), dtype=torch.float32).view(128, 128, 3)
        assert ((picture.permute(1, 2, 0) + 1) * 127.5 - pixels).abs().max() < 1.5
