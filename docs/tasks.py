"""Draw the pictures of docs/tasks.md, before and after each task: python docs/tasks.py [NAME ...].

Writes docs/tasks/NAME.png, for all names if none is given; the embedded model draws on the CPU with
fixed seeds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from draw_examples import APPLE, FOX, VIEWS, draw_creature, draw_mask  # noqa: E402
from PIL import Image  # noqa: E402

from pipeline import load, tasks  # noqa: E402
from pipeline.images.upscaler import UPSCALERS  # noqa: E402

if TYPE_CHECKING:
    from pipeline.model import Models

SIDE, GAP = 256, 12  # pixels: height of each picture, and the space between two


def draw(models: Models, key: str, **fields: Any) -> Image.Image:
    """Run the task `key` with these fields of its Options, and return its first picture."""
    *_, result = tasks.stream(models, key, tasks.options(key, **fields))
    return result.images[0]


def side_by_side(*pictures: Image.Image) -> Image.Image:
    """Return the pictures in one row, each scaled to the height SIDE, on white."""
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


def character(models: Models) -> Image.Image:
    """Train a LoRA on four drawings of a creature, and return three pictures in a row.

    A drawing, and the model's pictures of one prompt and seed without and with the LoRA.
    """
    from pipeline.model_files import library
    from pipeline.training.lora.train import LoraOptions, train

    given = [draw_creature(*view) for view in VIEWS[:4]]
    with tempfile.TemporaryDirectory() as folder:
        library.OWN = Path(folder)
        options = LoraOptions(given, "zog", "zog the striped creature", run=Path(folder) / "run")
        for _ in train(models, options):
            pass
        prompt = "zog the striped creature on a yellow background"
        without = draw(models, "generate", prompt=prompt, seed=3)
        with_lora = draw(models, "generate", prompt=f"{prompt} <lora:zog:1>", seed=3)
    return side_by_side(given[0], without, with_lora)


def main() -> None:
    """Draw the pictures that are named on the command line, or all, into docs/tasks."""
    models = load("emoji", device="cpu")
    apple = draw(models, "generate", prompt=APPLE, seed=7)
    fox = draw(models, "generate", prompt=FOX, seed=5)
    grey = apple.convert("L").convert("RGB")
    fields = {"prompt": FOX, "seed": 1}
    on_blue = {"picture": apple, "prompt": "a penguin on a blue background", "seed": 2}
    pictures = {
        "image_to_image": lambda: side_by_side(
            apple, draw(models, "image_to_image", picture=apple, strength=0.6, **fields)
        ),
        "inpaint": lambda: side_by_side(
            apple, draw(models, "inpaint", mask=draw_mask(), **on_blue)
        ),
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
    for name in sys.argv[1:] or pictures:
        pictures[name]().save(folder / f"{name}.png", optimize=True)
        print(folder / f"{name}.png")


if __name__ == "__main__":
    main()
