"""Scenes of emoji with captions, composed on the fly as tensors.

Pictures: Microsoft's Fluent 3D emoji (npm package `@lobehub/fluent-emoji-3d`, MIT). Words: names
and keywords of Unicode's CLDR (`cldr-annotations-full`, `cldr-annotations-derived-full`, Unicode
licence). The packages are fetched with `npm pack` or read from a folder, and never unpacked: single
members are read from the archives.

A scene holds one object, or two in the two halves of the picture, on a plain background. Objects
stand on the grid of the autoencoder (8 pixels a latent), so that the same object in another place
is the same latents in another place. Nothing is mirrored: letters, clocks and flags stay readable.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ...prompt.text import with_article

PACKAGES = {
    "emoji": "@lobehub/fluent-emoji-3d",
    "names": "cldr-annotations-full",
    "derived": "cldr-annotations-derived-full",
}

# 42 of each group, chosen to be told apart at a glance and to have plain names.
OBJECTS = {
    "animals": "🐵🐶🐺🦊🦝🐱🦁🐯🐴🦄🦓🐮🐷🐑🐪🦒🐘🦏🐭🐰🦔🐻🐨🐼🐔🐧🦆🦢🦉🦩🦚🐸🐢🐍🐳🐬🐠🐙🦋🐝🐞🦀",
    "plants": "💐🌸🌹🌻🌷🪻🌱🪴🌲🌳🌴🌵🌾☘🍁🍂🍄🪷🍇🍉🍊🍋🍌🍍🥭🍎🍏🍐🍑🍒🍓🫐🥝🍅🥥🥑🍆🥕🌽🥦🧅🎃",
    "food": "🍞🥐🥖🥨🥞🧀🍗🥩🥓🍔🍟🍕🌭🥪🌮🥚🍳🍿🧂🍱🍙🍚🍜🍣🍤🥮🍡🥟🥡🍦🍩🍪🎂🧁🍫🍭🍯🥛☕🫖🍷🍺",
    "travel": "🚂🚄🚌🚑🚒🚓🚕🚗🚚🚜🏎🏍🛵🚲🛴🛹⚓🛟⛵🛶🚢✈🪂🚁🛰🚀🛸🏠🏢🏰🗼🗽⛪⛩⛲⛺🌋🏝🗿🎡🌈⭐",
    "activities": "🧨🎈🎉🎏🎤🎀🎁🎧🎻🏆🥇⚽⚾🏀🏐🏈🎾🎳🏒🏓🏸🥊🥋⛸🎣🤿🎽🎷🛷🎯🪀🪁🎱🔮🎮🎲🧩🧸🪆🎨🎸🥁",
    "things": "👓👻👕👖❤🧤🧦👗👜🎒👟👠👑🤖🎩🧢💄💍💎☎💻📷🕯💡🏮📚💰⛄📦✏✂🔑🔨🛡🔧🧲🔬🚪🪑☂🔥🔔",
}

# Named background colours: English, Chinese, sRGB.
COLOURS = {
    "white": ("白色", (245, 245, 245)),
    "gray": ("灰色", (150, 153, 158)),
    "black": ("黑色", (32, 33, 36)),
    "red": ("红色", (214, 60, 60)),
    "orange": ("橙色", (243, 146, 55)),
    "yellow": ("黄色", (250, 219, 94)),
    "green": ("绿色", (92, 176, 98)),
    "cyan": ("青色", (98, 205, 214)),
    "blue": ("蓝色", (66, 121, 219)),
    "purple": ("紫色", (136, 88, 196)),
    "pink": ("粉色", (246, 166, 196)),
    "brown": ("棕色", (136, 94, 66)),
}

# CLDR's keywords that a person would use for that object and for no other one here.
KEYWORDS = frozenset(
    [
        "puppy",
        "kitten",
        "kitty",
        "bunny",
        "grizzly",
        "whale",
        "bee",
        "bumblebee",
        "ladybird",
        "tortoise",
        "sprout",
        "pine",
        "maple",
        "toadstool",
        "grape",
        "kiwi",
        "aubergine",
        "maize",
        "pumpkin",
        "jack-o-lantern",
        "loaf",
        "toast",
        "baguette",
        "pancake",
        "drumstick",
        "burger",
        "fries",
        "pepperoni",
        "hotdog",
        "sausage",
        "bento",
        "ramen",
        "shrimp",
        "prawn",
        "takeout",
        "donut",
        "bday",
        "beer",
        "wine",
        "train",
        "shinkansen",
        "cab",
        "car",
        "bike",
        "plane",
        "aeroplane",
        "ufo",
        "island",
        "trophy",
        "soccer",
        "football",
        "hockey",
        "judo",
        "dice",
        "die",
        "jigsaw",
        "drumsticks",
        "eyeglasses",
        "pants",
        "trousers",
        "tshirt",
        "stocking",
        "purse",
        "rucksack",
        "sneaker",
        "heels",
        "tophat",
        "cap",
        "gem",
        "jewel",
        "phone",
        "computer",
        "photo",
        "bulb",
        "book",
        "snowman",
        "parcel",
        "keys",
        "spanner",
        "seat",
        "flame",
        "present",
        "gift",
        "medal",
        "mic",
        "sax",
        "dart",
        "scuba",
        "sled",
        "sleigh",
        "小狗",
        "猫咪",
        "象",
        "兔",
        "乌龟",
        "鲸",
        "鸭",
        "螃蟹",
        "太阳花",
        "南瓜",
        "奶酪",
        "汉堡包",
        "比萨",
        "便当",
        "拉面",
        "虾",
        "曲奇",
        "蛋糕",
        "牛奶",
        "咖啡",
        "酒杯",
        "火车头",
        "公共汽车",
        "卡车",
        "跑车",
        "摩托",
        "单车",
        "城堡",
        "火山",
        "五角星",
        "丝带",
        "奖牌",
        "橄榄球",
        "乒乓",
        "溜溜球",
        "手柄",
        "色子",
        "吉他",
        "幽灵",
        "裤子",
        "心",
        "袜",
        "裙子",
        "包包",
        "书包",
        "运动鞋",
        "王冠",
        "棒球帽",
        "钻石",
        "个人电脑",
        "书本",
        "箱子",
        "剪子",
        "盾",
        "雨伞",
        "火",
    ]
)

RELATIONS = {  # relation of the first object to the second: English phrases, Chinese phrases
    "left": (("to the left of", "left of"), ("的左边", "左边", "的左侧")),
    "right": (("to the right of", "right of"), ("的右边", "右边", "的右侧")),
    "above": (("above", "on top of"), ("的上面", "上面", "的上方")),
    "below": (("below", "under"), ("的下面", "下面", "的下方")),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

SIZE = 128
SINGLE, PAIR = 112, 64  # side of an object's square in pixels, alone and as one of two
SINGLE_PLACES = (0, 8, 16)  # corner of a single object's square: multiples of the latent cell
PAIR_PLACES = (24, 32, 40)  # corner along the middle line; across it, a square fills its half


@dataclass(frozen=True)
class Thing:
    """One object of the vocabulary with its names and the keywords that mean it alone."""

    emoji: str
    group: str
    en: str
    zh: str
    keywords_en: tuple[str, ...]
    keywords_zh: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `things` index the vocabulary; places are pixel corners (x, y)."""

    things: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    relation: str | None
    colour: str
    shade: tuple[int, int, int]


def fetch(folder: Path) -> None:
    """Fetch the packages that `folder` lacks with `npm pack`. Raises RuntimeError in one sentence."""
    missing = [name for name in PACKAGES.values() if not _archives(folder, name)]
    if not missing:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            f"The training data is not in {folder} and npm is not installed: install Node.js, or put "
            f"the packages {', '.join(missing)} there and pass --data {folder}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [npm, "pack", "--silent", *missing], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise RuntimeError(f"npm pack could not fetch {', '.join(missing)}: {reason}")


def _archives(folder: Path, package: str) -> list[Path]:
    stem = package.lstrip("@").replace("/", "-")
    return sorted(p for p in folder.glob(f"{stem}-*.tgz") if p.name[len(stem) + 1].isdigit())


class _Package:
    """Read-only view of an npm archive: member path (without `package/`) to bytes."""

    def __init__(self, folder: Path, package: str):
        archives = _archives(folder, package)
        if not archives:
            raise RuntimeError(f"{folder} has no archive of the npm package {package}.")
        self._tar = tarfile.open(archives[-1], "r:gz")  # noqa: SIM115 - kept open, closed in close()
        self.members = {
            m.name.removeprefix("package/"): m for m in self._tar.getmembers() if m.isfile()
        }

    def read(self, path: str) -> bytes:
        return self._tar.extractfile(self.members[path]).read()

    def close(self) -> None:
        self._tar.close()


def _bare(emoji: str) -> str:
    return emoji.replace("\ufe0f", "")


def _file_key(path: str) -> str:
    codes = path.removeprefix("assets/").removesuffix(".webp").split("-")
    return "-".join(c for c in codes if c != "fe0f")


def _annotations(package: _Package, kind: str, language: str) -> dict[str, dict]:
    found = json.loads(package.read(f"{kind}/{language}/annotations.json"))
    return {_bare(k): v for k, v in found[kind]["annotations"].items()}


def _plain_name(entry: dict) -> str:
    """CLDR's name, shortened from 'cat face' to 'cat' where CLDR itself has that keyword."""
    name = entry["tts"][0].replace("’", "'")
    for suffix in (" face", "脸", "头"):
        short = name.removesuffix(suffix)
        if short and short != name and short in entry.get("default", ()):
            return short
    return name


class Vocabulary:
    """The objects the model learns. `things[i]`; `save` writes `vocabulary.json`."""

    def __init__(self, things: list[Thing]):
        self.things = things

    def __len__(self) -> int:
        return len(self.things)

    @classmethod
    def from_packages(cls, folder: Path) -> Vocabulary:
        names, derived = _Package(folder, PACKAGES["names"]), _Package(folder, PACKAGES["derived"])
        words = {}
        for language in ("en", "zh"):
            words[language] = _annotations(names, "annotations", language)
            for emoji, entry in _annotations(derived, "annotationsDerived", language).items():
                words[language].setdefault(emoji, entry)
        names.close()
        derived.close()

        rows = []
        for group, emojis in OBJECTS.items():
            for emoji in emojis:
                rows.append((emoji, group, words["en"][emoji], words["zh"][emoji]))
        taken_en = {_plain_name(en).lower() for _, _, en, _ in rows} | set(COLOURS)
        taken_zh = {_plain_name(zh) for *_, zh in rows} | {zh for zh, _ in COLOURS.values()}

        def own(entry: dict, taken: set[str]) -> tuple[str, ...]:
            words = dict.fromkeys(w.lower() for w in entry.get("default", ()))
            return tuple(w for w in words if w in KEYWORDS and w not in taken and uses[w] == 1)

        uses = Counter(
            word
            for *_, en, zh in rows
            for word in {w.lower() for e in (en, zh) for w in e.get("default", ())}
        )
        return cls(
            [
                Thing(
                    emoji,
                    group,
                    _plain_name(en),
                    _plain_name(zh),
                    own(en, taken_en),
                    own(zh, taken_zh),
                )
                for emoji, group, en, zh in rows
            ]
        )

    def save(self, path: Path) -> None:
        rows = [{"emoji": t.emoji, "en": t.en, "zh": t.zh, "group": t.group} for t in self.things]
        lines = ",\n ".join(json.dumps(r, ensure_ascii=False) for r in rows)
        path.write_text(f"[{lines}]\n", encoding="utf-8")


def load_sprites(folder: Path, emojis: list[str] | None, side: int) -> torch.Tensor:
    """Pictures of `emojis` (all in the package where None) as premultiplied RGBA.

    Returns (N, 4, side, side) float32 in 0..1.
    """
    package = _Package(folder, PACKAGES["emoji"])
    by_key = {_file_key(p): p for p in sorted(package.members) if p.endswith(".webp")}
    if emojis is None:
        # Skin tones and hair styles of one person would be half of all pictures.
        tones = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
        paths = [p for k, p in by_key.items() if not tones & set(k.split("-"))]
    else:
        paths = [by_key["-".join(f"{ord(c):x}" for c in _bare(e))] for e in emojis]
    out = np.empty((len(paths), 4, side, side), dtype=np.float32)
    for i, path in enumerate(paths):
        picture = Image.open(io.BytesIO(package.read(path)), formats=("WEBP",)).convert("RGBA")
        rgba = np.asarray(picture, dtype=np.float32) / 255
        rgba[..., :3] *= rgba[..., 3:]
        whole = torch.from_numpy(rgba).permute(2, 0, 1)[None]
        out[i] = F.interpolate(whole, (side, side), mode="bicubic", antialias=True)[0].clamp(0, 1)
        out[i, :3] = np.minimum(out[i, :3], out[i, 3])
    package.close()
    return torch.from_numpy(out)


def _pick(options, generator: torch.Generator):
    return options[int(torch.randint(len(options), (), generator=generator))]


def _shade(colour: str, generator: torch.Generator) -> tuple[int, int, int]:
    jitter = torch.randint(-6, 7, (3,), generator=generator).tolist()
    return tuple(min(255, max(0, c + j)) for c, j in zip(COLOURS[colour][1], jitter, strict=True))


def single_scene(thing: int, colour: str, generator: torch.Generator) -> Scene:
    place = (_pick(SINGLE_PLACES, generator), _pick(SINGLE_PLACES, generator))
    return Scene((thing,), (place,), None, colour, _shade(colour, generator))


def pair_scene(
    first: int, second: int, relation: str, colour: str, generator: torch.Generator
) -> Scene:
    """`first` stands `relation` ("left", "right", "above", "below") of `second`."""
    near, far = 0, SIZE - PAIR
    across = [_pick(PAIR_PLACES, generator) for _ in range(2)]
    along = (near, far) if relation in ("left", "above") else (far, near)
    if relation in ("left", "right"):
        places = tuple((a, c) for a, c in zip(along, across, strict=True))
    else:
        places = tuple((c, a) for a, c in zip(along, across, strict=True))
    return Scene((first, second), places, relation, colour, _shade(colour, generator))


def random_scene(count: int, generator: torch.Generator, pairs: float = 0.5) -> Scene:
    """A scene over a vocabulary of `count` objects; two objects with probability `pairs`."""
    colour = _pick(list(COLOURS), generator)
    if float(torch.rand((), generator=generator)) >= pairs:
        return single_scene(int(torch.randint(count, (), generator=generator)), colour, generator)
    first, second = torch.randperm(count, generator=generator)[:2].tolist()
    return pair_scene(first, second, _pick(list(RELATIONS), generator), colour, generator)


class Composer:
    """Draws scenes. Pictures are (B, 3, 128, 128) float32 in -1..1."""

    def __init__(self, folder: Path, vocabulary: Vocabulary):
        emojis = [t.emoji for t in vocabulary.things]
        self.sprites = {side: load_sprites(folder, emojis, side) for side in (SINGLE, PAIR)}

    def draw(self, scenes: list[Scene]) -> torch.Tensor:
        shades = torch.tensor([s.shade for s in scenes], dtype=torch.float32) / 255
        out = shades[:, :, None, None].expand(-1, -1, SIZE, SIZE).clone()
        for i, scene in enumerate(scenes):
            side = SINGLE if len(scene.things) == 1 else PAIR
            for thing, (x, y) in zip(scene.things, scene.places, strict=True):
                sprite = self.sprites[side][thing]
                window = out[i, :, y : y + side, x : x + side]
                window.mul_(1 - sprite[3:]).add_(sprite[:3])
        return out.mul_(2).sub_(1)


# ---- captions -------------------------------------------------------------------------------

EN_SINGLE = (
    "{a} on a {c} background",
    "{a} on a {c} background",
    "{n} on a {c} background",
    "a picture of {a} on a {c} background",
    "{n}, {c} background",
    "{a} in front of a {c} background",
)
EN_PLAIN = ("{a}", "{n}", "a picture of {a}", "an emoji of {a}")
EN_PAIR = (
    "{a} {r} {b} on a {c} background",
    "{a} {r} {b} on a {c} background",
    "{a} {r} {b}, {c} background",
)
ZH_SINGLE = (
    "{c}背景上的{n}",
    "{c}背景上的{n}",
    "一个{n}，{c}背景",
    "{n}，{c}背景",
    "{c}背景，{n}",
    "{n}在{c}背景上",
)
ZH_PLAIN = ("{n}", "一个{n}", "{n}的图片")
ZH_PAIR = (
    "{a}在{b}{r}，{c}背景",
    "{c}背景上，{a}在{b}{r}",
    "{c}背景上的{a}，在{b}{r}",
)


def caption(
    scene: Scene,
    vocabulary: Vocabulary,
    language: str,
    generator: torch.Generator | None = None,
) -> str:
    """A caption of `scene` in "en" or "zh": the first phrasing, or with a generator any."""
    return told(scene, vocabulary, language, generator)[0]


def told(
    scene: Scene,
    vocabulary: Vocabulary,
    language: str,
    generator: torch.Generator | None = None,
) -> tuple[str, tuple[str, ...]]:
    """A caption of `scene`, see `caption`, and what it calls each of the scene's things."""

    def choose(options):
        return options[0] if generator is None else _pick(options, generator)

    def chance(p: float) -> bool:
        return generator is not None and float(torch.rand((), generator=generator)) < p

    def name(index: int) -> str:
        thing = vocabulary.things[index]
        keywords = thing.keywords_en if language == "en" else thing.keywords_zh
        full = thing.en if language == "en" else thing.zh
        return choose(keywords) if keywords and chance(0.15) else full

    names = tuple(name(i) for i in scene.things)
    colour = scene.colour if language == "en" else COLOURS[scene.colour][0]
    if scene.relation is None:
        plain = chance(0.15)
        if language == "en":
            form = choose(EN_PLAIN if plain else EN_SINGLE)
            return form.format(a=with_article(names[0]), n=names[0], c=colour), names
        return choose(ZH_PLAIN if plain else ZH_SINGLE).format(n=names[0], c=colour), names
    order, relation = names, scene.relation
    if chance(0.5):  # the same scene, told from the other object
        order, relation = names[::-1], OPPOSITE[relation]
    if language == "en":
        a, b = (with_article(n) for n in order)
        phrase = choose(RELATIONS[relation][0])
        return choose(EN_PAIR).format(a=a, b=b, r=phrase, c=colour), names
    phrase = choose(RELATIONS[relation][1])
    return choose(ZH_PAIR).format(a=order[0], b=order[1], r=phrase, c=colour), names


def squares(scene: Scene, side: int) -> torch.Tensor:
    """Where the scene's things lie, (things, side, side): the share of each cell of the picture, cut
    into side x side, that the square of a thing covers."""
    size = SINGLE if len(scene.things) == 1 else PAIR
    edges = torch.arange(side + 1) * (SIZE / side)

    def covered(low: int) -> torch.Tensor:
        ends = edges.clamp(low, low + size)
        return (ends[1:] - ends[:-1]) / (SIZE / side)

    return torch.stack([covered(y)[:, None] * covered(x)[None] for x, y in scene.places])
