"""Draw the files in examples/ that the commands of the documents use: python docs/draw_examples.py.

apple.png, fox.png: drawn by the embedded model; grey.png: the apple's lightness; mask.png: white
where `inpaint` repaints; zog/: five drawings of a creature that the model has never seen.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image, ImageDraw  # noqa: E402

FOLDER = ROOT / "examples"
APPLE = "a red apple on a blue background"
FOX = "a fox on a green background"
VIEWS = (  # background, shift to the right and down in pixels
    ("#427bdb", 0, 0),
    ("#f5f5f5", 10, -8),
    ("#5cb062", -10, 5),
    ("#f6a6c4", 5, 10),
    ("#f39237", -6, -10),
)


def draw_mask() -> Image.Image:
    """Return the mask for `inpaint`, 128x128, white over the object in the middle of a picture."""
    mask = Image.new("L", (128, 128))
    ImageDraw.Draw(mask).rounded_rectangle((10, 4, 122, 126), 30, fill=255)
    return mask


def draw_creature(background: str, x: int, y: int) -> Image.Image:
    """Return a drawing, 256x256, of a striped creature with one eye and three antennae.

    x, y: by how many pixels it is shifted to the right and down.
    """
    image = Image.new("RGB", (256, 256), background)
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


def main() -> None:
    """Write every file of examples/."""
    from pipeline import load

    FOLDER.mkdir(exist_ok=True)
    models = load("emoji", device="cpu")
    apple = models.generate(prompt=APPLE, seed=7)
    apple.save(FOLDER / "apple.png")
    models.generate(prompt=FOX, seed=5).save(FOLDER / "fox.png")
    apple.images[0].convert("L").save(FOLDER / "grey.png", optimize=True)
    draw_mask().save(FOLDER / "mask.png", optimize=True)
    (FOLDER / "zog").mkdir(exist_ok=True)
    for number, view in enumerate(VIEWS, 1):
        draw_creature(*view).save(FOLDER / "zog" / f"zog{number}.png", optimize=True)


if __name__ == "__main__":
    main()
