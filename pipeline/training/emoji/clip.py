"""CLIP from zero: a text tower and an image tower that agree on which caption tells which picture.

Symmetric contrastive loss, learned temperature (Radford et al., arXiv 2103.00020). A batch holds
hard negatives: the same two objects swapped, the same object on another background, so that
the text tower must learn relations and colours, not only names. The text tower is then frozen; the
UNet reads its last hidden states. The image tower judges what the UNet draws.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from ...prompt.text import space_han
from ..hardware import bf16_is_fast
from ..loop import Trainer
from .scenes import (
    COLOURS,
    OPPOSITE,
    PAIR,
    RELATIONS,
    SIZE,
    Composer,
    Scene,
    Vocabulary,
    caption,
    pair_scene,
    single_scene,
)

WIDTH = 128  # of the space that the two towers share


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Both towers and their projections, 3.8 M parameters."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        projection_dim=WIDTH,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        projection_dim=WIDTH,
        hidden_size=160,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=5,
        image_size=SIZE,
        patch_size=16,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH
    )
    return CLIPModel(config)


def tokens(tokenizer: CLIPTokenizer, texts: list[str], *, full: bool = False) -> torch.Tensor:
    """Token ids (B, T): T = 77 where `full`, else the longest of the batch.

    The tower is causal and pools at the end token, so what is cut away has no influence.
    """
    out = tokenizer(
        [space_han(t) for t in texts],
        padding="max_length" if full else "longest",
        max_length=77,
        truncation=True,
        return_tensors="pt",
    )
    return out.input_ids


class Pairs:
    """Batches of pictures and captions with hard negatives side by side."""

    def __init__(self, data: Path, vocabulary: Vocabulary):
        self.vocabulary, self.composer = vocabulary, Composer(data, vocabulary)

    def scenes(self, batch: int, generator: torch.Generator) -> list[Scene]:
        """`batch` scenes, a multiple of 4: half single objects, half pairs, in twos that differ
        in one thing (background or order)."""
        quarter, out = batch // 4, []
        colours, relations = list(COLOURS), list(RELATIONS)

        def below(n: int) -> int:
            return int(torch.randint(n, (), generator=generator))

        singles = torch.randperm(len(self.vocabulary), generator=generator)[:quarter].tolist()
        for thing in singles:
            first, second = torch.randperm(len(colours), generator=generator)[:2].tolist()
            out.append(single_scene(thing, colours[first], generator))
            # half of the seconds show another object, so that most negatives are other objects
            other = below(len(self.vocabulary)) if below(2) else thing
            out.append(single_scene(other, colours[second], generator))
        for _ in range(quarter):
            a, b = torch.randperm(len(self.vocabulary), generator=generator)[:2].tolist()
            colour, relation = colours[below(len(colours))], relations[below(4)]
            out.append(pair_scene(a, b, relation, colour, generator))
            out.append(pair_scene(a, b, OPPOSITE[relation], colour, generator))
        return out

    def __call__(self, batch: int, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
        scenes = self.scenes(batch, generator)
        pictures = roughen(self.composer.draw(scenes), scenes, self.composer, generator)
        texts = [
            caption(s, self.vocabulary, ("en", "zh")[i % 2], generator)
            for i, s in zip(
                torch.randint(2, (len(scenes),), generator=generator).tolist(), scenes, strict=True
            )
        ]
        return pictures, texts


def enlarge(pictures: torch.Tensor) -> torch.Tensor:
    """Any (B, 3, h, w) at the towers' size."""
    return F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", align_corners=False)


def roughen(
    pictures: torch.Tensor, scenes: list[Scene], composer: Composer, generator: torch.Generator
) -> torch.Tensor:
    """Make a judge robust: half of the pictures lose detail, a third of the singles are enlarged
    from the size an object has in a pair, all get a little noise."""
    out = pictures.clone()
    for i, scene in enumerate(scenes):
        lot = torch.rand(2, generator=generator).tolist()
        if len(scene.things) == 1 and lot[0] < 0.33:
            sprite = composer.sprites[PAIR][scene.things[0]]
            ground = out[i, :, :1, :1].expand(3, PAIR, PAIR) * 0.5 + 0.5
            small = (ground * (1 - sprite[3:]) + sprite[:3]) * 2 - 1
            out[i] = enlarge(small[None])[0]
        if lot[1] < 0.5:
            side = int(SIZE / (1.5 + 3 * lot[1]))
            small = F.interpolate(out[i : i + 1], (side, side), mode="bilinear", antialias=True)
            out[i] = enlarge(small)[0]
    return out + 0.03 * torch.randn(out.shape, generator=generator)


def contrastive(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Symmetric cross entropy of matching pairs; image and text (B, E) of unit length."""
    logits = scale.clamp(max=4.6052).exp() * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def embed_images(model: CLIPModel, pictures: torch.Tensor) -> torch.Tensor:
    """(B, 3, 128, 128) in -1..1 to unit vectors (B, E)."""
    pooled = model.vision_model(pictures).pooler_output
    return F.normalize(model.visual_projection(pooled), dim=-1)


def embed_texts(model: CLIPModel, ids: torch.Tensor) -> torch.Tensor:
    pooled = model.text_model(input_ids=ids).pooler_output
    return F.normalize(model.text_projection(pooled), dim=-1)


def trainer(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    pairs: Pairs,
    folder: Path,
    *,
    batch: int = 128,
    rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    **loop,
) -> Trainer:
    model.to(device).train()
    # On a CPU, bf16 with attention written out sees 228 pictures/s; fp32 with the fused one 120.
    model.set_attn_implementation("eager" if device == "cpu" else "sdpa")
    scale = [model.logit_scale]
    rest = [p for n, p in model.named_parameters() if n != "logit_scale"]
    groups = [{"params": rest}, {"params": scale, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.05)

    kind = torch.device(device).type

    def step(generator: torch.Generator, _: int) -> dict[str, torch.Tensor]:
        pictures, texts = pairs(batch, generator)
        ids = tokens(tokenizer, texts).to(device)
        with torch.autocast(kind, torch.bfloat16, enabled=bf16_is_fast(device)):
            image = embed_images(model, pictures.to(device))
            text = embed_texts(model, ids)
        image, text = image.float(), text.float()
        right = (image @ text.T).argmax(1).cpu() == torch.arange(batch)
        return {
            "loss": contrastive(image, text, model.logit_scale),
            "right": right.float().mean(),
        }

    config = {"batch": batch, "seed": seed}
    return Trainer(folder, model, optimizer, step, config=config, batch=batch, **loop)
