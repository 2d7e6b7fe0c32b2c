"""Training of CLIP from zero: a text tower and an image tower with a common embedding space.

The loss is the symmetric contrastive loss with a learned temperature (Radford et al., arXiv
2103.00020). A batch has hard negatives (the same two objects swapped, the same object on another
background), so that the text tower learns relations and colours too, not names alone. Afterwards
the text tower is frozen and the UNet is conditioned on its last hidden states; the image tower
classifies the pictures of the UNet in the evaluation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from ...prompt.text import space_han
from ..hardware import bf16_is_fast
from ..loop import Trainer
from .captions import caption
from .scenes import PAIR_SIDE, SIZE, Composer, Scene, pair_scene, single_scene
from .vocabulary import COLOURS, OPPOSITE, RELATIONS, Vocabulary

WIDTH = 128  # dimension of the common embedding space


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return a new, untrained CLIP of the emoji model, both towers, with 3.8 M parameters.

    tokenizer: tells the number of tokens and the ids of start, end and padding.
    """
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


def tokenize(tokenizer: CLIPTokenizer, texts: list[str], *, full: bool = False) -> torch.Tensor:
    """Return the token ids of `texts`, (B, T) int64, for CLIP's text tower; cut off at 77 tokens.

    T is 77 if `full`, else the length of the longest text. Both give the same text embeddings,
    because the text tower is causal and pools at the end token, before the padding.
    """
    encoded = tokenizer(
        [space_han(t) for t in texts],
        padding="max_length" if full else "longest",
        max_length=77,
        truncation=True,
        return_tensors="pt",
    )
    return encoded.input_ids


class PairSource:
    """Source of CLIP's training batches: call it to get random pictures of emoji with captions.

    A batch includes hard negatives: pairs of pictures that differ only in the order of two emoji,
    or only in the background. data: folder of the npm packages with the emoji's pictures and names.
    """

    def __init__(self, data: Path, vocabulary: Vocabulary):
        self.vocabulary, self.composer = vocabulary, Composer(data, vocabulary)

    def scenes(self, batch: int, generator: torch.Generator) -> list[Scene]:
        """Choose what the `batch` pictures of a CLIP training batch show, with hard negatives.

        batch: a multiple of 4. The first half of the pictures show one emoji, the second half two.
        Pictures 2i and 2i + 1 are similar, so that CLIP must learn relations and colours too. With
        two emoji, they differ only in that the places are exchanged. With one emoji, they differ in
        the background; in half of these pairs, at random, the second shows a randomly chosen emoji
        instead of the same one.
        """
        quarter = batch // 4
        out: list[Scene] = []
        colours, relations = list(COLOURS), list(RELATIONS)

        def below(n: int) -> int:
            return int(torch.randint(n, (), generator=generator))

        singles = torch.randperm(len(self.vocabulary), generator=generator)[:quarter].tolist()
        for index in singles:
            first, second = torch.randperm(len(colours), generator=generator)[:2].tolist()
            out.append(single_scene(index, colours[first], generator))
            # Half of the seconds show another object, so that most negatives are other objects.
            other = below(len(self.vocabulary)) if below(2) else index
            out.append(single_scene(other, colours[second], generator))
        for _ in range(quarter):
            a, b = torch.randperm(len(self.vocabulary), generator=generator)[:2].tolist()
            colour, relation = colours[below(len(colours))], relations[below(4)]
            out.append(pair_scene(a, b, relation, colour, generator))
            out.append(pair_scene(a, b, OPPOSITE[relation], colour, generator))
        return out

    def __call__(self, batch: int, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
        """Return a training batch: random pictures (B, 3, 128, 128) and their captions.

        The pictures, about [-1, 1], are blurred at random and noisy; each caption is English or
        Chinese at random. batch: their number B, a multiple of 4.
        """
        scenes = self.scenes(batch, generator)
        pictures = augment(self.composer.draw(scenes), scenes, self.composer, generator)
        texts = [
            caption(s, self.vocabulary, ("en", "zh")[i % 2], generator)
            for i, s in zip(
                torch.randint(2, (len(scenes),), generator=generator).tolist(), scenes, strict=True
            )
        ]
        return pictures, texts


def resize(pictures: torch.Tensor) -> torch.Tensor:
    """Scale `pictures` (B, 3, h, w) to (B, 3, 128, 128), the size for CLIP's image tower."""
    return F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", align_corners=False)


def augment(
    pictures: torch.Tensor, scenes: list[Scene], composer: Composer, generator: torch.Generator
) -> torch.Tensor:
    """Return randomly degraded copies of `pictures`, (B, 3, 128, 128), to train a robust CLIP.

    All get Gaussian noise of deviation 0.03. Half are scaled down and up again, which blurs them. A
    third of those with one emoji are replaced by that emoji at 64 pixels, enlarged to the whole
    picture, as the evaluation does with halves of pictures. scenes: what the pictures show;
    composer: has the emoji's pictures.
    """
    out = pictures.clone()
    for i, scene in enumerate(scenes):
        chance = torch.rand(2, generator=generator).tolist()
        if len(scene.objects) == 1 and chance[0] < 0.33:
            sprite = composer.sprites[PAIR_SIDE][scene.objects[0]]
            background = out[i, :, :1, :1].expand(3, PAIR_SIDE, PAIR_SIDE) * 0.5 + 0.5
            small = (background * (1 - sprite[3:]) + sprite[:3]) * 2 - 1
            out[i] = resize(small[None])[0]
        if chance[1] < 0.5:
            side = int(SIZE / (1.5 + 3 * chance[1]))
            small = F.interpolate(out[i : i + 1], (side, side), mode="bilinear", antialias=True)
            out[i] = resize(small)[0]
    return out + 0.03 * torch.randn(out.shape, generator=generator)


def contrastive_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return CLIP's symmetric contrastive loss of B picture-caption pairs, a scalar.

    image, text: their embeddings, unit vectors (B, E); scale: logarithm of the inverse temperature,
    limited to log(100).
    """
    logits = scale.clamp(max=4.6052).exp() * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def embed_images(model: CLIPModel, pictures: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of pictures (B, 3, 128, 128) in [-1, 1] as unit vectors (B, E)."""
    pooled = model.vision_model(pictures).pooler_output
    return F.normalize(model.visual_projection(pooled), dim=-1)


def embed_texts(model: CLIPModel, ids: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of texts, given as token ids (B, T), as unit vectors (B, E)."""
    pooled = model.text_model(input_ids=ids).pooler_output
    return F.normalize(model.text_projection(pooled), dim=-1)


def make_trainer(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    pairs: PairSource,
    folder: Path,
    *,
    batch: int = 128,
    rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    **loop: Any,
) -> Trainer:
    """Return the training loop for CLIP, both towers of `model`; checkpoints go into `folder`.

    pairs: source of the training batches; batch: pictures per step, a multiple of 4; rate: learning
    rate; loop: further keyword arguments of Trainer, such as `checkpoint_steps`.
    """
    model.to(device).train()
    # On a CPU: 228 pictures/s in bf16 with plain attention, 120 in fp32 with the fused one.
    model.set_attn_implementation("eager" if device == "cpu" else "sdpa")
    rest = [p for n, p in model.named_parameters() if n != "logit_scale"]
    groups: list[dict[str, Any]] = [
        {"params": rest},
        {"params": [model.logit_scale], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.05)

    kind = torch.device(device).type

    def step(generator: torch.Generator, _: int) -> dict[str, torch.Tensor]:
        pictures, texts = pairs(batch, generator)
        ids = tokenize(tokenizer, texts).to(device)
        with torch.autocast(kind, torch.bfloat16, enabled=bf16_is_fast(device)):
            image = embed_images(model, pictures.to(device))
            text = embed_texts(model, ids)
        image, text = image.float(), text.float()
        right = (image @ text.T).argmax(1).cpu() == torch.arange(batch)
        return {
            "loss": contrastive_loss(image, text, model.logit_scale),
            "right": right.float().mean(),
        }

    config = {"batch": batch, "seed": seed}
    return Trainer(folder, model, optimizer, step, config=config, batch=batch, **loop)
