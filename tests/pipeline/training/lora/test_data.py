"""The data that a LoRA is trained on: pictures, captions, mirrored copies and batches."""

import pytest
import torch
from PIL import Image

from pipeline.errors import InputError
from pipeline.training.lora import data as lora_data


@pytest.mark.quick
def test_a_batch_with_classes_takes_half_of_each():
    latents = torch.arange(7.0).view(7, 1, 1, 1)
    dataset = lora_data.LoraDataset(latents, latents.view(7, 1, 1), None, 64, classes=4)
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat([dataset.batch(3, generator, "cpu")[0] for _ in range(40)])
    rows = rows.view(40, 6)
    assert set(rows[:, :3].flatten().tolist()) == {0, 1, 2}
    assert set(rows[:, 3:].flatten().tolist()) == {3, 4, 5, 6}


def test_a_share_of_the_captions_is_empty():
    contexts = torch.ones(5, 2, 3)
    empty = torch.zeros(1, 2, 3), torch.zeros(1, 6)
    dataset = lora_data.LoraDataset(
        torch.ones(5, 1, 1, 1), contexts, torch.ones(5, 6), 64, empty=empty
    )
    generator = torch.Generator().manual_seed(0)
    _, batch, more = dataset.batch(1000, generator, "cpu", 0.3)
    empty_rows = (batch == 0).all(2).all(1)
    assert 0.25 < empty_rows.float().mean() < 0.35 and batch[~empty_rows].min() == 1
    assert torch.equal(more["added_cond_kwargs"]["text_embeds"].sum(1) == 0, empty_rows)
    assert contexts.min() == 1


def test_captions_mirrors_and_long_prompts(tiny, tmp_path, dots):
    for i, picture in enumerate(dots(2)):
        picture.save(tmp_path / f"{i}.png")
    (tmp_path / "1.txt").write_text("a  blue\napple " + "red " * 90)
    own, _ = lora_data.read_examples(lora_data.pictures_in(tmp_path), "a red apple", 64)
    assert own[0].caption == "a red apple" and own[1].caption.startswith("a blue apple red red")
    dataset = lora_data.encode_dataset(tiny, own, own[:1], 64, flip=True)
    assert dataset.latents.shape == (6, 4, 8, 8) and dataset.classes == 2
    assert dataset.contexts.shape == (6, 154, 32)  # the short one is filled up
    assert torch.equal(dataset.contexts[0], dataset.contexts[4])
    assert torch.equal(dataset.latents[0], dataset.latents[4])
    assert not torch.allclose(dataset.latents[0], dataset.latents[2])  # mirrored


def test_the_background_is_named_for_a_model_that_knows_it():
    plain = [lora_data.Example(Image.new("RGB", (64, 64), c), "zog") for c in ("blue", "black")]
    noisy = lora_data.Example(Image.effect_noise((64, 64), 200).convert("RGB"), "zog")
    own = lora_data.Example(plain[0].picture, "zog asleep")
    named = [e.caption for e in lora_data.add_backgrounds([*plain, noisy, own], "zog")]
    assert named == ["zog on a blue background", "zog on a black background", "zog", "zog asleep"]
    assert lora_data.add_backgrounds(plain, "zog, red background") == plain


def test_broken_pictures_are_left_out_and_named(tiny, tmp_path, dots, make_options, run):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "notes.md").write_text("no picture")
    with pytest.raises(InputError, match="holds no picture"):
        lora_data.pictures_in(folder)
    with pytest.raises(InputError, match="There is no folder"):
        lora_data.pictures_in(folder / "none")
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    with pytest.raises(InputError, match=r"There is no picture to learn from: .*bad\.png"):
        run(tiny, make_options(images=lora_data.pictures_in(folder)))
    dots()[0].save(folder / "good.png")
    end = run(tiny, make_options(images=lora_data.pictures_in(folder), steps=1))[-1]
    assert "bad.png" in end.notes[0] and end.notes[0].endswith("It is left out.")
    assert end.notes[1].startswith("One picture teaches that picture")
