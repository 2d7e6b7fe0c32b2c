"""CLIP: its loss, its batches, and that it learns."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.training.emoji import clip, tokenizer
from pipeline.training.emoji.vocabulary import OPPOSITE


def seeded(n=0):
    return torch.Generator().manual_seed(n)


@pytest.mark.quick
def test_contrastive_loss_is_the_papers():
    image, text = (F.normalize(torch.randn(5, 8, generator=seeded(i)), dim=-1) for i in (1, 2))
    logits = 10 * image @ text.T
    rows = -logits.log_softmax(1).diagonal().mean()
    columns = -logits.log_softmax(0).diagonal().mean()
    ours = clip.contrastive_loss(image, text, torch.tensor(10.0).log())
    assert torch.allclose(ours, (rows + columns) / 2)


def test_clip_batches_hold_hard_negatives(tiny_data, vocabulary):
    pairs = clip.PairSource(tiny_data, vocabulary)
    scenes = pairs.scenes(32, seeded())
    assert len(scenes) == 32
    doubles = [s for s in scenes if s.relation]
    for a, b in zip(doubles[::2], doubles[1::2], strict=True):
        assert a.objects == b.objects and a.relation == OPPOSITE[b.relation]
    pictures, texts = pairs(32, seeded())
    assert pictures.shape == (32, 3, 128, 128) and len(texts) == 32


def test_clip_learns(tmp_path, tiny_data, vocabulary, words):
    torch.manual_seed(0)
    encoder = tokenizer.load(words)
    trainer = clip.make_trainer(
        clip.build(encoder),
        encoder,
        clip.PairSource(tiny_data, vocabulary),
        tmp_path,
        batch=16,
        warmup=5,
    )
    batch = clip.PairSource(tiny_data, vocabulary)(16, seeded(1))
    ids = clip.tokenize(encoder, batch[1])

    def step(_, __):
        image = clip.embed_images(trainer.module, batch[0])
        text = clip.embed_texts(trainer.module, ids)
        return {"loss": clip.contrastive_loss(image, text, trainer.module.logit_scale)}

    trainer.step_fn = step
    losses = [trainer.run_step()["loss"] for _ in range(25)]
    assert losses[-1] < 0.7 * losses[0]


def test_cut_padding_does_not_change_the_texts_embedding(words):
    encoder = tokenizer.load(words)
    model = clip.build(encoder).eval()
    texts = ["a thing aa", "a thing aa to the left of a thing ab on a red background"]
    with torch.no_grad():
        short = clip.embed_texts(model, clip.tokenize(encoder, texts))
        full = clip.embed_texts(model, clip.tokenize(encoder, texts, full=True))
    assert torch.allclose(short, full, atol=1e-5)
