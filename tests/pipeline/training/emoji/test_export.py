"""The exported folder is a model that loads, draws and can be measured."""

import json

import pytest
import torch

from pipeline.training.emoji import clip, evaluate, export, tokenizer, unet, vae
from pipeline.training.emoji.vocabulary import Vocabulary


@pytest.mark.quick
def test_export_writes_a_model_that_loads_draws_and_can_be_measured(
    tmp_path, tiny_data, few_objects, words
):
    torch.manual_seed(0)
    from pipeline import load

    vocabulary = Vocabulary.from_packages(tiny_data)
    folder = tmp_path / "model"
    towers = clip.build(tokenizer.load(words))
    export.write_model(
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
    ids = clip.tokenize(tokenizer.load(words), texts, full=True)
    with torch.no_grad():
        kept = models.text_encoder(input_ids=ids).last_hidden_state
        trained = towers.text_model(input_ids=ids).last_hidden_state
    assert torch.allclose(kept, trained, atol=2e-2)
    table = evaluate.evaluate(folder, tiny_data, count=2, progress=False)
    assert set(table["en"]) >= {"top1", "top5", "background", "two_objects"}
    assert 0 <= table["real"]["top1"] <= 1 and "Chinese" in evaluate.to_markdown(table)
    json.dumps(table)
