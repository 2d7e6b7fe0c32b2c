"""`python -m pipeline train evaluate`: measure whether the model draws what its captions say.

The classifier is the model's own CLIP image tower: a picture is classified as the object with the
most similar mean image embedding; the means are computed from real (composed) scenes.

Each result is a share (0 to 1):

(a) top-1, top-5: accuracy for pictures drawn from captions of one object, classified among the
    whole vocabulary; the accuracy for real pictures is the highest that can be expected;
(b) background: pictures whose border has the background colour that the caption names;
(c) two objects: pictures of two objects in which the classifier, given the half of the picture
    where an object belongs, ranks it among the top five, for both objects;
(d) words: names of objects whose cross-attention map (averaged over tokens, layers and steps) has
    its centre of mass in the half of the picture where the object belongs, for the captions of (c).

English and Chinese are measured separately. Captions and noise come from one fixed seed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm
from transformers import CLIPVisionModelWithProjection

from ...disk import write_text
from ...events import Step
from ...latents import noise
from ...latents.vae import decode
from ...options import GenerateOptions
from ...prompt.encode import encode_prompts
from ...prompt.syntax import parse
from ...samplers import Answer, make_sampler
from ..sheet import save_sheet
from .captions import caption
from .clip import resize
from .scenes import PAIR_SIDE, SIZE, Composer, Scene, pair_scene, single_scene
from .vocabulary import COLOURS, Vocabulary

if TYPE_CHECKING:
    from ...model import Models

SEED = 20_261  # of the evaluated scenes
STEPS = 20  # sampling steps per picture


@dataclass
class ObjectClassifier:
    """Tells which emoji a drawn picture shows: the one with the most similar mean embedding.

    tower: CLIP's image tower, which embeds pictures. single_means: each emoji's mean embedding over
    pictures of it alone, (N, E); half_means: the same over halves of pictures with two emoji, (N,
    E). All are unit vectors.
    """

    tower: CLIPVisionModelWithProjection
    single_means: torch.Tensor
    half_means: torch.Tensor

    @classmethod
    def build(cls, folder: Path, composer: Composer) -> ObjectClassifier:
        """Return the classifier that uses the CLIP image tower of the model folder `folder`.

        Each emoji's mean embeddings are computed from six pictures of it alone and six halves of
        pictures with two emoji. composer: draws these pictures.
        """
        tower = CLIPVisionModelWithProjection.from_pretrained(
            folder / "clip" / "image_encoder", local_files_only=True, dtype=torch.float32
        ).eval()
        classifier = cls(tower, torch.empty(0), torch.empty(0))
        generator = torch.Generator().manual_seed(SEED)
        colours = list(COLOURS)
        singles, halved = [], []
        for index in range(len(composer.sprites[PAIR_SIDE])):
            chosen = torch.randperm(len(colours), generator=generator)[:6].tolist()
            scenes = [single_scene(index, colours[c], generator) for c in chosen]
            singles.append(classifier.embed(composer.draw(scenes)).mean(0))
            scenes = [pair_scene(index, index, "left", colours[c], generator) for c in chosen]
            first_half = crop_halves(composer.draw(scenes), "left")[0]
            halved.append(classifier.embed(first_half).mean(0))
        classifier.single_means = torch.nn.functional.normalize(torch.stack(singles), dim=-1)
        classifier.half_means = torch.nn.functional.normalize(torch.stack(halved), dim=-1)
        return classifier

    @torch.no_grad()
    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return CLIP's image embeddings of pictures as unit vectors (B, E).

        pictures: (B, 3, 128, 128) in [-1, 1].
        """
        return torch.nn.functional.normalize(self.tower(pictures).image_embeds, dim=-1)

    def ranks(self, pictures: torch.Tensor, wanted: list[int], means: torch.Tensor) -> list[int]:
        """Return the rank, among all emoji, of the emoji that each picture should show.

        Rank 0: no other emoji is more similar to the picture. pictures: (B, 3, 128, 128) in [-1,
        1]; wanted: index of the emoji that each should show; means: the emoji's mean embeddings,
        `single_means` for whole pictures, `half_means` for halves.
        """
        order = (self.embed(pictures) @ means.T).argsort(1, descending=True)
        return [int((row == w).nonzero()) for row, w in zip(order, wanted, strict=True)]


def crop_halves(pictures: torch.Tensor, relation: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut pictures of two emoji in two, to classify each: return (first's half, second's half).

    pictures: (B, 3, 128, 128); relation: where the first emoji stands as seen from the second,
    "left", "right", "above" or "below". Of each half the 64x64 square in the middle is taken and
    scaled up to (B, 3, 128, 128).
    """
    low = (SIZE - PAIR_SIDE) // 2
    near, far = slice(0, PAIR_SIDE), slice(SIZE - PAIR_SIDE, SIZE)
    across = slice(low, low + PAIR_SIDE)
    if relation in ("left", "right"):
        crops = pictures[..., across, near], pictures[..., across, far]
    else:
        crops = pictures[..., near, across], pictures[..., far, across]
    first, second = (resize(c) for c in crops)
    return (first, second) if relation in ("left", "above") else (second, first)


def border_colour(picture: torch.Tensor) -> str:
    """Return the name ("red") of a picture's background colour, to compare it with the caption.

    It is the colour of COLOURS nearest to the median of the picture's border, which is 4 pixels
    wide. picture: (3, H, W) in [-1, 1].
    """
    edge = torch.cat(
        [
            picture[:, :4].flatten(1),
            picture[:, -4:].flatten(1),
            picture[:, :, :4].flatten(1),
            picture[:, :, -4:].flatten(1),
        ],
        dim=1,
    )
    median = (edge.median(1).values + 1) * 127.5
    return min(COLOURS, key=lambda c: (median - torch.tensor(COLOURS[c][1])).norm().item())


def evaluation_scenes(count: int, objects: int) -> tuple[list[Scene], list[Scene]]:
    """Choose what a model is asked to draw in an evaluation: always the same emoji and backgrounds.

    Returns (`count` scenes of one emoji, `count` // 2 scenes of two). objects: number of emoji in
    the vocabulary, from which they are chosen.
    """
    generator = torch.Generator().manual_seed(SEED)

    def below(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    colours = list(COLOURS)
    order = torch.randperm(objects, generator=generator).tolist()
    singles = [
        single_scene(order[i % objects], colours[below(len(colours))], generator)
        for i in range(count)
    ]
    pairs = []
    for _ in range(count // 2):
        a, b = torch.randperm(objects, generator=generator)[:2].tolist()
        relation = ("left", "right", "above", "below")[below(4)]
        pairs.append(pair_scene(a, b, relation, colours[below(len(colours))], generator))
    return singles, pairs


@torch.no_grad()
def draw_batched(
    models: Models, prompts: list[str], seeds: list[int], *, progress: bool = True
) -> torch.Tensor:
    """Draw a picture for each of `prompts`, 16 at a time, several times faster than one by one.

    Uses the model's default sampler. Returns (N, 3, 128, 128) in [-1, 1]. models: a loaded emoji
    model; seeds: one per prompt, for its initial noise; progress: show a progress bar. The pictures
    differ from those drawn one by one only by rounding.
    """
    options = models.resolve(GenerateOptions(steps=STEPS))
    sampler, schedule = options.sampler, options.schedule
    assert sampler is not None and schedule is not None  # resolved
    out: list[torch.Tensor] = []
    for begin in tqdm(range(0, len(prompts), 16), desc="drawing", disable=not progress):
        here = slice(begin, begin + 16)
        encoded = [
            encode_prompts(models.text, parse(p, 1), parse("", 1))[:2] for p in prompts[here]
        ]
        context = torch.cat(
            [side.contexts[0] for pair in zip(*encoded, strict=True) for side in pair]
        )
        context = context.to(models.device, models.dtype)
        running = []
        for seed in seeds[here]:
            generator = noise.generator_for(seed)
            first = noise.first_noise(generator, 4, SIZE // 8, SIZE // 8)
            config = models.scheduler_config
            running.append(make_sampler(sampler, schedule, config, first, STEPS, generator, seed))
        queries, latents = [next(r) for r in running], []
        while queries:
            x = torch.cat([q.x for q in queries]).to(models.device, models.dtype)
            t = queries[0].t.to(models.device)
            output = models.unet(torch.cat([x, x]), t, encoder_hidden_states=context).sample
            cond, uncond = output.float().cpu().chunk(2)
            guided = uncond + options.cfg * (cond - uncond)
            queries = []
            for r, g in zip(running, guided.split(1), strict=True):
                try:
                    queries.append(r.send(Answer(g, g, None)))
                except StopIteration as done:
                    latents.append(done.value)
        out += [decode(models.vae, x) * 2 - 1 for x in latents]
    return torch.cat(out)


def evaluate(
    folder: Path, data: Path, *, count: int = 200, progress: bool = True, sheet: Path | None = None
) -> dict[str, Any]:
    """Measure how well the emoji model in `folder` draws what captions ask for; return the results.

    data: folder of the npm packages with the emoji's pictures and names; count: number of captions
    of one emoji (half as many of two); progress: show a progress bar; sheet: PNG file for the first
    pictures drawn from English captions, or None. The result is a dict:

    "en", "zh": for English and Chinese captions a dict of shares (0 to 1): "top1", "top5" (the
        emoji asked for is the most similar, or among the five), "background" (its colour is right),
        "two_objects" (both emoji right), "two_objects_swapped" (both drawn, but in each other's
        half) and "words" (a name's attention map lies in the half of its emoji)
    "real": "top1" and "top5" for pictures like those of the training, not drawn by the model, as an
        upper limit; "real_through_vae": the same pictures encoded and decoded; "real_two_objects":
        the share of such pictures of two emoji in which both are recognized
    "vae_psnr": PSNR in dB of the autoencoder
    "count", "steps", "objects": the numbers of captions, of sampling steps, and of emoji
    """
    from ...loading.load import load

    models = load(str(folder), device="auto")
    vocabulary = Vocabulary.from_packages(data)
    composer = Composer(data, vocabulary)
    classifier = ObjectClassifier.build(folder, composer)
    singles, pairs = evaluation_scenes(count, len(vocabulary))

    def shares(ranks: list[int]) -> dict[str, float]:
        n = len(ranks)
        return {"top1": sum(r == 0 for r in ranks) / n, "top5": sum(r < 5 for r in ranks) / n}

    wanted = [s.objects[0] for s in singles]
    table: dict[str, Any] = {
        "count": count,
        "steps": STEPS,
        "objects": len(vocabulary),
        "real": shares(classifier.ranks(composer.draw(singles), wanted, classifier.single_means)),
    }
    with torch.no_grad():
        vae = models.vae
        pictures = composer.draw(singles).to(vae.device, vae.dtype)
        reconstructed = torch.cat(
            [
                vae.decode(vae.encode(p).latent_dist.mode()).sample.float().cpu()
                for p in pictures.split(8)
            ]
        ).clamp(-1, 1)
    table["real_through_vae"] = shares(
        classifier.ranks(reconstructed, wanted, classifier.single_means)
    )
    error = (reconstructed - composer.draw(singles)).square().mean()
    table["vae_psnr"] = (10 * (4 / error).log10()).item()
    for language in ("en", "zh"):
        captions = [caption(s, vocabulary, language) for s in [*singles, *pairs]]
        seeds = [*range(len(singles)), *range(len(pairs))]
        samples = draw_batched(models, captions, seeds, progress=progress)
        pictures, pair_pictures = samples[: len(singles)], samples[len(singles) :]
        row = shares(classifier.ranks(pictures, wanted, classifier.single_means))
        matches = [border_colour(p) == s.colour for p, s in zip(pictures, singles, strict=True)]
        row["background"] = sum(matches) / len(matches)
        both, swapped = [], 0
        for picture, scene in zip(pair_pictures, pairs, strict=True):
            first, second = crop_halves(picture[None], scene.relation)
            a, b = scene.objects
            right = [
                classifier.ranks(p, [w], classifier.half_means)[0] < 5
                for p, w in ((first, a), (second, b))
            ]
            wrong = [
                classifier.ranks(p, [w], classifier.half_means)[0] < 5
                for p, w in ((first, b), (second, a))
            ]
            both.append(all(right))
            swapped += all(wrong) and not all(right)
        row["two_objects"] = sum(both) / len(both)
        row["two_objects_swapped"] = swapped / len(both)
        row["words"] = word_map_accuracy(models, vocabulary, pairs, language, progress=progress)
        table[language] = row
        if sheet is not None and language == "en":
            shown = torch.cat([pictures[:24], pair_pictures])
            save_sheet(shown[:32], sheet, columns=8)
    table["real_two_objects"] = _real_pair_accuracy(classifier, composer, pairs)
    return table


def find_name(words: tuple[str, ...], name: str) -> slice | None:
    """Find the words of a prompt that together spell an emoji's name; None if it is not there.

    Returns their slice of `words`, the prompt split into words as the tokenizer does. Case and
    spaces are ignored, because the tokenizer may split a name differently.
    """
    wanted = name.replace(" ", "").lower()
    for begin in range(len(words)):
        joined = ""
        for end in range(begin, len(words)):
            joined += words[end].replace(" ", "").lower()
            if joined == wanted:
                return slice(begin, end + 1)
            if not wanted.startswith(joined):
                break
    return None


def is_in_right_half(word_map: torch.Tensor, relation: str | None, first: bool) -> bool:
    """Return whether the attention to an emoji's name is in the half of the picture it belongs to.

    The prompt names two emoji. The centre of mass of the attention map decides. word_map: the
    attention to the name of one of them (h, w); first: whether it is the first one; relation: where
    the first one should stand as seen from the second, "left", "right", "above" or "below", not
    None (which Scene has for one emoji).
    """
    along = word_map.sum(0 if relation in ("left", "right") else 1)
    positions = (torch.arange(len(along)) + 0.5) / len(along)
    centre = float((along * positions).sum() / along.sum())
    return (centre < 0.5) == ((relation in ("left", "above")) == first)


def word_map_accuracy(
    models: Models,
    vocabulary: Vocabulary,
    pairs: list[Scene],
    language: str,
    *,
    progress: bool = True,
) -> float:
    """Measure how often the model looks at an emoji's name where it shall draw that emoji.

    Draws a picture from the caption of each scene of `pairs`, which has two emoji, one in each half
    of the picture. Returns the share (0 to 1) of their names whose attention map lies mainly in the
    half of its emoji; a name that is not found in the prompt counts as wrong. models: the model to
    measure; vocabulary: the emoji's names; language: of the captions, "en" or "zh"; progress: show
    a progress bar.
    """
    right = []
    for seed, scene in enumerate(tqdm(pairs, desc="words", disable=not progress)):
        options = GenerateOptions(
            prompt=caption(scene, vocabulary, language), seed=seed, steps=STEPS
        )
        steps = [e for e in models.stream(options, words=True) if isinstance(e, Step)]
        maps = torch.stack([step.maps for step in steps if step.maps is not None]).mean(0)
        for number, index in enumerate(scene.objects):
            known = vocabulary.objects[index]
            span = find_name(steps[0].words, known.en if language == "en" else known.zh)
            right.append(
                span is not None
                and is_in_right_half(maps[span].sum(0), scene.relation, first=number == 0)
            )
    return sum(right) / len(right)


def _real_pair_accuracy(
    classifier: ObjectClassifier, composer: Composer, pairs: list[Scene]
) -> float:
    right = 0
    for scene in pairs:
        first, second = crop_halves(composer.draw([scene]), scene.relation)
        a, b = scene.objects
        right += all(
            classifier.ranks(p, [w], classifier.half_means)[0] < 5
            for p, w in ((first, a), (second, b))
        )
    return right / len(pairs)


def to_markdown(table: dict[str, Any]) -> str:
    """Return a Markdown table of the measured shares of emoji, backgrounds and words drawn right.

    table: a dict that `evaluate` returns, with shares (0 to 1) for English ("en") and Chinese
    ("zh") captions and for training pictures ("real", ...).
    """

    def percent(x: float) -> str:
        return f"{100 * x:.1f}%"

    real, through = table["real"], table["real_through_vae"]
    rows = [
        "| asked in | top-1 | top-5 | background | two objects, both right | words in place |",
        "|---|---|---|---|---|---|",
    ]
    for language, label in (("en", "English"), ("zh", "Chinese")):
        row = table[language]
        keys = ("top1", "top5", "background", "two_objects", "words")
        rows.append(f"| {label} | " + " | ".join(percent(row[k]) for k in keys) + " |")
    rows.append(
        f"| real pictures (the judge's ceiling) | {percent(real['top1'])} | {percent(real['top5'])}"
        f" | | {percent(table['real_two_objects'])} | |"
    )
    rows.append(
        f"| real pictures through the autoencoder | {percent(through['top1'])} "
        f"| {percent(through['top5'])} | | | |"
    )
    return "\n".join(rows)


def report(table: dict[str, Any]) -> str:
    """Return the emoji model's measured results as Markdown for its model card: sentences, a table.

    table: a dict that `evaluate` returns, with shares (0 to 1) drawn right for English ("en") and
    Chinese ("zh") captions and for training pictures ("real", ...), PSNR, and the number of
    captions.
    """
    n, steps = table["count"], table["steps"]
    return (
        f"{n} captions of one object and {n // 2} of two, drawn at random with a fixed seed, "
        f"{steps} steps each. The judge is the model's own CLIP image tower, choosing among "
        f"{table['objects']} objects. Words in place: names in captions of two objects whose map"
        f" has its centre of mass in the half of what they name.\n\n{to_markdown(table)}\n\n"
        f"The autoencoder keeps {table['vae_psnr']:.1f} dB of these pictures (PSNR)."
    )


def save(table: dict[str, Any], path: Path) -> None:
    """Write `table`, the measured results that `evaluate` returns, as JSON to `path`.

    The file becomes the model's evaluation.json, of which the model card is made.
    """
    write_text(path, json.dumps(table, indent=2) + "\n")
