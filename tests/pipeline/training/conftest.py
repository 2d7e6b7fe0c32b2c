"""Training data in the format of the npm packages, with coloured discs instead of emoji."""

import io
import json
import tarfile
from pathlib import Path

import pytest


def _archive(path: Path, members: dict[str, bytes]) -> None:
    """Write an npm archive (.tgz) with these files by path."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _disc(index: int) -> bytes:
    """Return a WebP file of 32x32 pixels: a disc whose colour and height depend on `index`."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGBA", (32, 32))
    colour = ((index * 67) % 256, (index * 131) % 256, (index * 29) % 256, 255)
    ImageDraw.Draw(picture).ellipse((3, 3 + index % 5, 28, 28), fill=colour)
    out = io.BytesIO()
    picture.save(out, "WEBP", lossless=True)
    return out.getvalue()


@pytest.fixture(scope="session", autouse=True)
def cached_sprites():
    """Decode the pictures of an archive once, not again for each stage of each run."""
    from pipeline.training.emoji import scenes, vae
    from pipeline.training.upscaler import crops

    read, cache = scenes.load_sprites, {}

    def load_sprites(folder, emojis, side):
        key = folder, None if emojis is None else tuple(emojis), side
        if key not in cache:
            cache[key] = read(folder, emojis, side)
        return cache[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        for module in (scenes, crops, vae):
            patch.setattr(module, "load_sprites", load_sprites)
        yield


@pytest.fixture
def few_objects(monkeypatch):
    """Reduce the vocabulary to four objects a group, for tests that process each one many times."""
    from pipeline.training.emoji import vocabulary

    objects = {group: emojis[:4] for group, emojis in vocabulary.OBJECTS.items()}
    monkeypatch.setattr(vocabulary, "OBJECTS", objects)


def write_tiny_data(folder: Path) -> Path:
    """Write the three npm archives that training reads to `folder`, which is there; return it.

    They hold a disc, an English name and a Chinese name for every object of the vocabulary.
    """
    from pipeline.training.emoji.vocabulary import OBJECTS

    emojis = [e for group in OBJECTS.values() for e in group]
    pictures, names = {}, {"en": {}, "zh": {}}
    for i, emoji in enumerate(emojis):
        pictures["assets/" + "-".join(f"{ord(c):x}" for c in emoji) + ".webp"] = _disc(i)
        han = "".join(chr(0x4E00 + (i * k + k) % 2000) for k in (7, 13))
        letters = "".join(chr(97 + (i // 26**k) % 26) for k in range(2))
        names["en"][emoji] = {"tts": [f"thing {letters}"], "default": ["thing", "puppy"]}
        names["zh"][emoji] = {"tts": [han], "default": [han]}
    names["en"]["🐱"] = {"tts": ["cat face"], "default": ["cat", "pet", "kitten"]}
    _archive(folder / "lobehub-fluent-emoji-3d-1.0.0.tgz", pictures)
    for package, kind in (("full", "annotations"), ("derived-full", "annotationsDerived")):
        members = {
            f"{kind}/{language}/annotations.json": json.dumps(
                {kind: {"annotations": words if package == "full" else {}}}
            ).encode()
            for language, words in names.items()
        }
        _archive(folder / f"cldr-annotations-{package}-1.0.0.tgz", members)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """Return the folder of `write_tiny_data`."""
    return write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def vocabulary(tiny_data):
    """Return the Vocabulary of tiny_data."""
    from pipeline.training.emoji.vocabulary import Vocabulary

    return Vocabulary.from_packages(tiny_data)


@pytest.fixture(scope="session")
def composer(tiny_data, vocabulary):
    """Return a Composer, which makes training pictures of tiny_data's discs."""
    from pipeline.training.emoji.scenes import Composer

    return Composer(tiny_data, vocabulary)


@pytest.fixture(scope="session")
def words(tmp_path_factory, vocabulary):
    """Return the folder of a tokenizer that was trained on 500 captions of the vocabulary."""
    from pipeline.training.emoji import tokenizer

    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    tokenizer.train(vocabulary, folder, size=1500, captions=500)
    return folder
