"""Draw docs/tour.webp, the moving picture of the README: python docs/tour.py.

The frames show a picture step by step, decoded from the predicted clean latents, beside the noisy
latents; then one word of the prompt after the other, with its cross-attention map over the picture.
Everything comes from one call of `models.stream(..., words=True)`.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from pipeline import GenerateOptions, load  # noqa: E402
from pipeline.events import Step  # noqa: E402
from pipeline.images import fonts  # noqa: E402
from pipeline.latents.vae import decode, to_image  # noqa: E402

PROMPT = "a penguin to the left of a red apple on a yellow background"
SEED = 5
SHOWN_WORDS = ("penguin", "left", "red", "apple", "yellow", "background")
WIDTH, HEIGHT, SIDE = 720, 430, 320
BACKGROUND, TEXT, FAINT, ACCENT = "#10151c", "#e8edf2", "#8794a3", "#37d6a0"


def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font of all texts in the frames, `size` pixels high."""
    return fonts.font(fonts.faces()[0], size)


def overlay(picture: Image.Image, word_map: torch.Tensor) -> Image.Image:
    """Return the picture, darkened where the attention map (h, w) is low."""
    word_map = word_map - word_map.min()
    scaled = (word_map / word_map.max().clamp(min=1e-8)).sqrt()
    mask = Image.fromarray((scaled * 255).round().to(torch.uint8).numpy(), "L")
    mask = mask.resize(picture.size, Image.Resampling.BICUBIC)
    dark = Image.blend(picture, Image.new("RGB", picture.size, BACKGROUND), 0.82)
    return Image.composite(picture, dark, mask)


def draw_prompt(pen: ImageDraw.ImageDraw, words: tuple[str, ...], lit: int | None) -> None:
    """Write the prompt near the frame's lower edge.

    lit: index of the word that is written in a box; None for no box.
    """
    font, space = load_font(19), 7
    widths = [pen.textlength(word, font=font) for word in words]
    x = (WIDTH - sum(widths) - space * (len(words) - 1)) / 2
    for number, (word, width) in enumerate(zip(words, widths, strict=True)):
        if number == lit:
            pen.rounded_rectangle((x - 5, 384, x + width + 5, 414), 7, fill=ACCENT)
        pen.text((x, 387), word, font=font, fill=BACKGROUND if number == lit else TEXT)
        x += width + space


def draw_frame(
    picture: Image.Image, latents: Image.Image, step: Step, lit: int | None, caption: str
) -> Image.Image:
    """Return one frame: decoded latents on the left, picture on the right, prompt below.

    step: whose index fills the progress bar; lit: see `draw_prompt`; caption: above the picture.
    """
    frame = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    pen = ImageDraw.Draw(frame)
    for x, image, title in ((30, latents, "what the UNet gets"), (370, picture, caption)):
        frame.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, 44))
        pen.text((x, 14), title, font=load_font(17), fill=FAINT)
    done = 30 + 660 * step.index / step.total
    pen.rectangle((30, 370, 690, 373), fill="#263240")
    pen.rectangle((30, 370, done, 373), fill=ACCENT)
    draw_prompt(pen, step.words, lit)
    return frame


def main() -> None:
    """Draw the picture once, and write docs/tour.webp."""
    models = load("emoji", device="cpu")
    options = GenerateOptions(prompt=PROMPT, seed=SEED)
    steps = [e for e in models.stream(options, words=True) if isinstance(e, Step)]
    frames, durations = [], []
    for step in steps:
        picture = to_image(decode(models.vae, step.clean))
        latents = to_image(decode(models.vae, step.latents))
        frames.append(
            draw_frame(picture, latents, step, None, f"step {step.index} of {step.total}")
        )
        durations.append(160)
    durations[-1] = 900
    maps = torch.stack([s.maps for s in steps if s.maps is not None]).mean(0)
    for number, word in enumerate(steps[-1].words):
        if word in SHOWN_WORDS:
            lit = overlay(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), maps[number])
            frames.append(draw_frame(lit, latents, steps[-1], number, f"attention to “{word}”"))
            durations.append(950)
    target = ROOT / "docs" / "tour.webp"
    frames[0].save(
        target, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=80
    )
    print(f"{target}: {len(frames)} frames, {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
