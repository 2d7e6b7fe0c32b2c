"""The objects, colours and relations of the embedded model, with English and Chinese words.

Names and keywords come from Unicode's CLDR (npm packages `cldr-annotations-full` and
`cldr-annotations-derived-full`, Unicode licence).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ...disk import write_text
from .packages import PACKAGES, NpmPackage, strip_variation_selector

# 42 emoji per group, chosen to be told apart at a glance and to have plain names.
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

# Keywords of CLDR that people would use for one object of OBJECTS and for no other.
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


# Relation of the first object to the second: English phrases, Chinese phrases.
RELATIONS = {
    "left": (("to the left of", "left of"), ("的左边", "左边", "的左侧")),
    "right": (("to the right of", "right of"), ("的右边", "右边", "的右侧")),
    "above": (("above", "on top of"), ("的上面", "上面", "的上方")),
    "below": (("below", "under"), ("的下面", "下面", "的下方")),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


# What CLDR has for one emoji: "tts" is a list with its name, "default" the list of its keywords.
Annotation = dict[str, list[str]]


@dataclass(frozen=True)
class EmojiObject:
    """One emoji that this project's own small text-to-image model can draw, with words for it.

    emoji: its character; group: such as "animals", a key of OBJECTS; en, zh: its English and
    Chinese name for captions; keywords_en, keywords_zh: other words that mean no other emoji of the
    model.
    """

    emoji: str
    group: str
    en: str
    zh: str
    keywords_en: tuple[str, ...]
    keywords_zh: tuple[str, ...]


def read_annotations(package: NpmPackage, kind: str, language: str) -> dict[str, Annotation]:
    """Read the names and keywords that Unicode CLDR has for emoji, as words for captions.

    Returns {emoji: {"tts": [name], "default": keywords}}. kind: "annotations" if `package` is
    cldr-annotations-full, "annotationsDerived" for cldr-annotations-derived-full; language: "en" or
    "zh".
    """
    content = json.loads(package.read(f"{kind}/{language}/annotations.json"))
    return {strip_variation_selector(k): v for k, v in content[kind]["annotations"].items()}


def short_name(annotation: Annotation) -> str:
    """Return an emoji's name for captions: 'cat face' becomes 'cat' if that is a keyword of it.

    annotation: what Unicode CLDR has for the emoji: "tts" lists its name, "default" its keywords.
    """
    name = annotation["tts"][0].replace("’", "'")
    for suffix in (" face", "脸", "头"):
        short = name.removesuffix(suffix)
        if short and short != name and short in annotation.get("default", ()):
            return short
    return name


class Vocabulary:
    """The emoji that this project's own small text-to-image model can draw, with words for them.

    objects: the list of them with their English and Chinese names; an emoji is referred to by its
    index there.
    """

    def __init__(self, objects: list[EmojiObject]):
        self.objects = objects

    def __len__(self) -> int:
        return len(self.objects)

    @classmethod
    def from_packages(cls, folder: Path) -> Vocabulary:
        """Build the vocabulary: the emoji of OBJECTS, with the words that CLDR has for them.

        folder: of the npm packages with the words of Unicode's CLDR. Raises RuntimeError if one is
        missing.
        """
        annotations: dict[str, dict[str, Annotation]] = {}
        names = NpmPackage(folder, PACKAGES["names"])
        derived = NpmPackage(folder, PACKAGES["derived"])
        for language in ("en", "zh"):
            annotations[language] = read_annotations(names, "annotations", language)
            more = read_annotations(derived, "annotationsDerived", language)
            for emoji, annotation in more.items():
                annotations[language].setdefault(emoji, annotation)
        names.close()
        derived.close()

        rows = [
            (emoji, group, annotations["en"][emoji], annotations["zh"][emoji])
            for group, emojis in OBJECTS.items()
            for emoji in emojis
        ]
        taken_en = {short_name(en).lower() for _, _, en, _ in rows} | set(COLOURS)
        taken_zh = {short_name(zh) for *_, zh in rows} | {zh for zh, _ in COLOURS.values()}
        uses = Counter(
            word
            for *_, en, zh in rows
            for word in {w.lower() for a in (en, zh) for w in a.get("default", ())}
        )

        def unique_keywords(annotation: Annotation, taken: set[str]) -> tuple[str, ...]:
            words = dict.fromkeys(w.lower() for w in annotation.get("default", ()))
            return tuple(w for w in words if w in KEYWORDS and w not in taken and uses[w] == 1)

        return cls(
            [
                EmojiObject(
                    emoji,
                    group,
                    short_name(en),
                    short_name(zh),
                    unique_keywords(en, taken_en),
                    unique_keywords(zh, taken_zh),
                )
                for emoji, group, en, zh in rows
            ]
        )

    def save(self, path: Path) -> None:
        """Write the vocabulary to `path`, so that an exported model tells which emoji it can draw.

        The file is JSON, a list of {"emoji", "en", "zh", "group"}.
        """
        rows = [{"emoji": o.emoji, "en": o.en, "zh": o.zh, "group": o.group} for o in self.objects]
        lines = ",\n ".join(json.dumps(r, ensure_ascii=False) for r in rows)
        write_text(path, f"[{lines}]\n")
