"""Measures the model against what it was asked for; the judge is its own CLIP image tower.

(a) retrieval: single-object captions drawn at random; the generated picture's nearest object among
    the whole vocabulary (mean image embedding of real scenes), top-1 and top-5, beside the same
    figure for real pictures that the judge has not averaged: its own ceiling;
(b) background: the named colour nearest to the median of the picture's border;
(c) two objects: the object asked for is among the five nearest of its half, for both halves.

(d) words: the map of an object's name, of all of its tokens, layers and steps together, has its
    centre of mass in the half where the object was asked for, over both objects of (c)'s scenes.

English and Chinese are counted apart. All draws come from one fixed seed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import CLIPVisionModelWithProjection

from ...events import Step
from ...latents import noise
from ...latents.vae import decode
from ...options import GenerateOptions
from ...prompt.encode import encode_prompts
from ...prompt.syntax import parse
from ...samplers import Answer, make_sampler
from ..sheet import save_sheet
from .clip import enlarge
from .scenes import (
    COLOURS,
    PAIR,
    SIZE,
    Composer,
    Scene,
    Vocabulary,
    caption,
    pair_scene,
    single_scene,
)

SEED = 20_261
STEPS = 20


@dataclass
class Judge:
    """The CLIP image tower and the mean embedding of each object of the vocabulary (N, E)."""

    tower: CLIPVisionModelWithProjection
    whole: torch.Tensor
    half: torch.Tensor

    @classmethod
    def build(cls, folder: Path, composer: Composer) -> Judge:
        tower = CLIPVisionModelWithProjection.from_pretrained(
            folder / "clip" / "image_encoder", local_files_only=True, dtype=torch.float32
        ).eval()
        judge = cls(tower, torch.empty(0), torch.empty(0))
        generator = torch.Generator().manual_seed(SEED)
        colours = list(COLOURS)
        whole, half = [], []
        for thing in range(len(composer.sprites[PAIR])):
            chosen = torch.randperm(len(colours), generator=generator)[:6].tolist()
            scenes = [single_scene(thing, colours[c], generator) for c in chosen]
            whole.append(judge.embed(composer.draw(scenes)).mean(0))
            scenes = [pair_scene(thing, thing, "left", colours[c], generator) for c in chosen]
            half.append(judge.embed(halves(composer.draw(scenes), "left")[0]).mean(0))
        judge.whole = torch.nn.functional.normalize(torch.stack(whole), dim=-1)
        judge.half = torch.nn.functional.normalize(torch.stack(half), dim=-1)
        return judge

    @torch.no_grad()
    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, 3, 128, 128) in -1..1 to unit vectors (B, E)."""
        return torch.nn.functional.normalize(self.tower(pictures).image_embeds, dim=-1)

    def ranks(self, pictures: torch.Tensor, wanted: list[int], table: torch.Tensor) -> list[int]:
        """0 where the wanted object is the nearest, 1 where it is the second, ..."""
        order = (self.embed(pictures) @ table.T).argsort(1, descending=True)
        return [(row == w).nonzero().item() for row, w in zip(order, wanted, strict=True)]


def halves(pictures: torch.Tensor, relation: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The square around the middle of each half, first object's then second's, at full size."""
    low = (SIZE - PAIR) // 2
    near, far = slice(0, PAIR), slice(SIZE - PAIR, SIZE)
    across = slice(low, low + PAIR)
    if relation in ("left", "right"):
        crops = pictures[..., across, near], pictures[..., across, far]
    else:
        crops = pictures[..., near, across], pictures[..., far, across]
    first, second = (enlarge(c) for c in crops)
    return (first, second) if relation in ("left", "above") else (second, first)


def border_colour(picture: torch.Tensor) -> str:
    """The named colour nearest to the median of the outermost 4 pixels; picture (3, H, W)."""
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


def asked(count: int, things: int) -> tuple[list[Scene], list[Scene]]:
    """The fixed scenes that are asked for: `count` of one object, `count` // 2 of two."""
    generator = torch.Generator().manual_seed(SEED)

    def below(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    colours = list(COLOURS)
    order = torch.randperm(things, generator=generator).tolist()
    singles = [
        single_scene(order[i % things], colours[below(len(colours))], generator)
        for i in range(count)
    ]
    pairs = []
    for _ in range(count // 2):
        a, b = torch.randperm(things, generator=generator)[:2].tolist()
        relation = ("left", "right", "above", "below")[below(4)]
        pairs.append(pair_scene(a, b, relation, colours[below(len(colours))], generator))
    return singles, pairs


@torch.no_grad()
def draw(models, prompts: list[str], seeds: list[int], *, progress: bool = True) -> torch.Tensor:
    """What `models` draws with its own defaults, (N, 3, 128, 128) in -1..1.

    The samplers of 16 pictures run in step and share each UNet call, which is several times faster
    than one picture after the other and changes the last bits only.
    """
    options = models.resolve(GenerateOptions(steps=STEPS))
    out = []
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
            pair = options.sampler, options.schedule
            running.append(
                make_sampler(*pair, models.scheduler_config, first, STEPS, generator, seed)
            )
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
) -> dict:
    """The table of figures for the model in `folder`; shares in 0..1.

    `sheet` is where to save the first pictures that were drawn, none left out: 24 of one object
    and 8 of two, English.
    """
    from ...loading.load import load

    models = load(str(folder), device="auto")
    vocabulary = Vocabulary.from_packages(data)
    composer = Composer(data, vocabulary)
    judge = Judge.build(folder, composer)
    singles, pairs = asked(count, len(vocabulary))

    def shares(ranks: list[int]) -> dict[str, float]:
        n = len(ranks)
        return {"top1": sum(r == 0 for r in ranks) / n, "top5": sum(r < 5 for r in ranks) / n}

    wanted = [s.things[0] for s in singles]
    table: dict = {
        "count": count,
        "steps": STEPS,
        "objects": len(vocabulary),
        "real": shares(judge.ranks(composer.draw(singles), wanted, judge.whole)),
    }
    with torch.no_grad():
        vae = models.vae
        seen = composer.draw(singles).to(vae.device, vae.dtype)
        kept = torch.cat(
            [
                vae.decode(vae.encode(s).latent_dist.mode()).sample.float().cpu()
                for s in seen.split(8)
            ]
        ).clamp(-1, 1)
    table["real_through_vae"] = shares(judge.ranks(kept, wanted, judge.whole))
    table["vae_psnr"] = (10 * (4 / (kept - composer.draw(singles)).square().mean()).log10()).item()
    for language in ("en", "zh"):
        asked_for = [caption(s, vocabulary, language) for s in [*singles, *pairs]]
        seeds = [*range(len(singles)), *range(len(pairs))]
        drawn = draw(models, asked_for, seeds, progress=progress)
        pictures, drawn_pairs = drawn[: len(singles)], drawn[len(singles) :]
        row = shares(judge.ranks(pictures, wanted, judge.whole))
        named = [border_colour(p) == s.colour for p, s in zip(pictures, singles, strict=True)]
        row["background"] = sum(named) / len(named)
        both, swapped, shown = [], 0, list(pictures[:24])
        for picture, scene in zip(drawn_pairs, pairs, strict=True):
            shown.append(picture)
            first, second = halves(picture[None], scene.relation)
            a, b = scene.things
            right = [judge.ranks(p, [w], judge.half)[0] < 5 for p, w in ((first, a), (second, b))]
            wrong = [judge.ranks(p, [w], judge.half)[0] < 5 for p, w in ((first, b), (second, a))]
            both.append(all(right))
            swapped += all(wrong) and not all(right)
        row["two_objects"] = sum(both) / len(both)
        row["two_objects_swapped"] = swapped / len(both)
        row["words"] = words_on_things(models, vocabulary, pairs, language, progress=progress)
        table[language] = row
        if sheet is not None and language == "en":
            save_sheet(torch.stack(shown[:32]), sheet, columns=8)
    table["real_two_objects"] = _real_pairs(judge, composer, pairs)
    return table


def name_at(words: tuple[str, ...], name: str) -> slice | None:
    """Where the words of `name` stand among a prompt's words, however they were cut."""
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


def in_its_half(maps: torch.Tensor, relation: str, first: bool) -> bool:
    """Whether the map (h, w) of the first or second object has its centre of mass in the half where
    the object was asked for."""
    along = maps.sum(0 if relation in ("left", "right") else 1)
    places = (torch.arange(len(along)) + 0.5) / len(along)
    centre = float((along * places).sum() / along.sum())
    return (centre < 0.5) == ((relation in ("left", "above")) == first)


def words_on_things(
    models, vocabulary: Vocabulary, pairs: list[Scene], language: str, *, progress: bool = True
) -> float:
    """Share of the names in captions of `pairs` whose maps lie in the right half."""
    right = []
    for seed, scene in enumerate(tqdm(pairs, desc="words", disable=not progress)):
        options = GenerateOptions(
            prompt=caption(scene, vocabulary, language), seed=seed, steps=STEPS
        )
        steps = [e for e in models.stream(options, words=True) if isinstance(e, Step)]
        maps = torch.stack([step.maps for step in steps]).mean(0)
        for number, thing in enumerate(scene.things):
            called = vocabulary.things[thing]
            at = name_at(steps[0].words, called.en if language == "en" else called.zh)
            right.append(
                at is not None and in_its_half(maps[at].sum(0), scene.relation, not number)
            )
    return sum(right) / len(right)


def _real_pairs(judge: Judge, composer: Composer, pairs: list[Scene]) -> float:
    right = 0
    for scene in pairs:
        first, second = halves(composer.draw([scene]), scene.relation)
        a, b = scene.things
        right += all(judge.ranks(p, [w], judge.half)[0] < 5 for p, w in ((first, a), (second, b)))
    return right / len(pairs)


def markdown(table: dict) -> str:
    """The figures as a table for the model card and the README."""

    def percent(x: float) -> str:
        return f"{100 * x:.1f}%"

    real, through = table["real"], table["real_through_vae"]
    rows = [
        "| asked in | top-1 | top-5 | background | two objects, both right | words in place |",
        "|---|---|---|---|---|---|",
    ]
    for language, name in (("en", "English"), ("zh", "Chinese")):
        row = table[language]
        keys = ("top1", "top5", "background", "two_objects", "words")
        rows.append(f"| {name} | " + " | ".join(percent(row[k]) for k in keys) + " |")
    rows.append(
        f"| real pictures (the judge's ceiling) | {percent(real['top1'])} | {percent(real['top5'])}"
        f" | | {percent(table['real_two_objects'])} | |"
    )
    rows.append(
        f"| real pictures through the autoencoder | {percent(through['top1'])} "
        f"| {percent(through['top5'])} | | | |"
    )
    return "\n".join(rows)


def report(table: dict) -> str:
    """The table with the words that it needs."""
    n, steps = table["count"], table["steps"]
    return (
        f"{n} captions of one object and {n // 2} of two, drawn at random with a fixed seed, "
        f"{steps} steps each. The judge is the model's own CLIP image tower, choosing among "
        f"{table['objects']} objects. Words in place: names in captions of two objects whose map"
        f" has its centre of mass in the half of what they name.\n\n{markdown(table)}\n\n"
        f"The autoencoder keeps {table['vae_psnr']:.1f} dB of these pictures (PSNR)."
    )


def save(table: dict, path: Path) -> None:
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
