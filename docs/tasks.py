"""The README's pictures of each task, before and after: python docs/tasks.py.

All are drawn by the embedded model with the seeds that stand here; docs/tasks/NAME.png.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image, ImageDraw  # noqa: E402

from pipeline import load, tasks  # noqa: E402
from pipeline.images.upscaler import UPSCALERS  # noqa: E402

SIDE, GAP = 256, 12
APPLE = "a red apple on a blue background"
FOX = "a fox on a green background"
MASK = Image.new("L", (128, 128))
ImageDraw.Draw(MASK).rounded_rectangle((10, 4, 122, 126), 30, fill=255)


def draw(models, key: str, **fields) -> Image.Image:
    *_, result = tasks.stream(models, key, tasks.options(key, **fields))
    return result.images[0]


def side_by_side(*pictures: Image.Image) -> Image.Image:
    """Pictures at one height, on white."""
    shown = []
    for picture in pictures:
        width = round(picture.width * SIDE / picture.height)
        shown.append(UPSCALERS["lanczos"].enlarge(picture, width, SIDE))
    sheet = Image.new("RGB", (sum(p.width for p in shown) + GAP * (len(shown) - 1), SIDE), "white")
    x = 0
    for picture in shown:
        sheet.paste(picture, (x, 0))
        x += picture.width + GAP
    return sheet


def creature(ground: str, x: int, y: int) -> Image.Image:
    """A character that the model never saw: purple, striped, one eye, three antennae."""
    image = Image.new("RGB", (256, 256), ground)
    pen = ImageDraw.Draw(image)
    for lean in (-36, 0, 36):
        pen.line((128 + x, 80 + y, 128 + lean + x, 34 + y), fill="#7e3cb4", width=7)
        pen.ellipse((119 + lean + x, 24 + y, 137 + lean + x, 42 + y), fill="#dc3c3c")
    pen.ellipse((63 + x, 70 + y, 193 + x, 222 + y), fill="#7e3cb4")
    for top in (125, 150, 175):
        pen.rectangle((77 + x, top + y, 179 + x, top + 8 + y), fill="#fad23c")
    pen.ellipse((103 + x, 88 + y, 153 + x, 138 + y), fill="white")
    pen.ellipse((119 + x, 103 + y, 139 + x, 125 + y), fill="#141414")
    return image


def character(models) -> Image.Image:
    from pipeline.model_files import library
    from pipeline.training.lora.train import LoraOptions, train

    views = [("#427bdb", 0, 0), ("#f5f5f5", 10, -8), ("#5cb062", -10, 5), ("#f6a6c4", 5, 10)]
    given = [creature(*view) for view in views]
    with tempfile.TemporaryDirectory() as folder:
        library.OWN = Path(folder)
        asked = LoraOptions(given, "zog", "zog the striped creature", run=Path(folder) / "run")
        for _ in train(models, asked):
            pass
        prompt = "zog the striped creature on a yellow background"
        without = draw(models, "generate", prompt=prompt, seed=3)
        taught = draw(models, "generate", prompt=f"{prompt} <lora:zog:1>", seed=3)
    return side_by_side(given[0], without, taught)


def main() -> None:
    models = load("emoji", device="cpu")
    apple = draw(models, "generate", prompt=APPLE, seed=7)
    fox = draw(models, "generate", prompt=FOX, seed=5)
    grey = apple.convert("L").convert("RGB")
    fields = {"prompt": FOX, "seed": 1}
    on_blue = {"picture": apple, "prompt": "a penguin on a blue background", "seed": 2}
    made = {
        "image_to_image": lambda: side_by_side(
            apple, draw(models, "image_to_image", picture=apple, strength=0.6, **fields)
        ),
        "inpaint": lambda: side_by_side(apple, draw(models, "inpaint", mask=MASK, **on_blue)),
        "outpaint": lambda: side_by_side(
            fox,
            draw(
                models, "inpaint", picture=fox, prompt=FOX, left=32, right=32, strength=0.6, seed=1
            ),
        ),
        "hires": lambda: side_by_side(
            fox, draw(models, "hires", prompt=FOX, seed=5, sampler="dpmpp_2m", strength=0.1)
        ),
        "upscale": lambda: side_by_side(
            apple.crop((32, 16, 96, 80)),
            draw(models, "upscale", picture=apple, prompt=APPLE, seed=1, sampler="dpmpp_2m").crop(
                (64, 32, 192, 160)
            ),
        ),
        "colorize": lambda: side_by_side(
            grey, draw(models, "colorize", picture=grey, prompt=APPLE, seed=1), apple
        ),
        "grid": lambda: draw(
            models,
            "grid",
            prompt=APPLE,
            seed=7,
            x="sampler: euler, dpmpp_2m, ddim",
            y="prompt: red apple, lemon, fox",
        ),
        "character": lambda: character(models),
    }
    folder = ROOT / "docs" / "tasks"
    folder.mkdir(exist_ok=True)
    for name in sys.argv[1:] or made:
        made[name]().save(folder / f"{name}.png", optimize=True)
        print(folder / f"{name}.png")


if __name__ == "__main__":
    main()
