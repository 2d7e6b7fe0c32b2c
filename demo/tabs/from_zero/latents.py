"""Chapter i: a picture as few numbers, and noise on them."""

from __future__ import annotations

import tempfile
import time

import gradio as gr

from pipeline.latents import vae
from pipeline.latents.noise import alphas_cumprod
from pipeline.samplers.prediction import add_noise

from ...page import Page
from ...texts import say
from ...ui.images import THUMBNAIL_SIDE as SMALL
from ...ui.images import data_url
from ...ui.upload import PictureBox
from . import chapter_parts as parts
from .chapter_html import done_line, frames_json, locate, png_url, render_figure, to_grey

PROMPT = "a red apple on a blue background"
PLACES = 21  # of the slider
FAMOUS = 512  # pixels of a side of Stable Diffusion 1
HEAVY = 256 * 256  # pixels of a picture that a CPU cannot decode PLACES times while one waits
SEED = 0  # of the noise


def build(page: Page) -> None:
    """Build the chapter's components and wire them."""
    from pipeline.training.emoji import vae as emoji_vae

    i18n = page.i18n
    with gr.Column(elem_classes="gb-card", min_width=0):
        parts.prose(i18n, "zero_latents_head_title", "zero_latents_numbers", "zero_latents_small")
        with gr.Row(elem_classes="gb-try"):
            box = PictureBox(
                label=i18n("zero_own_picture"),
                placeholder=i18n("picture_drop"),
                sources=["upload", "clipboard"],
                height=176,
                elem_id="zero-picture",
                elem_classes="gb-picture",
            )
            with gr.Column(min_width=0):
                prompt = gr.Textbox(
                    PROMPT, label=i18n("zero_draw_prompt"), max_lines=1, elem_id="zero-prompt"
                )
                draw = gr.Button(i18n("zero_draw"), variant="primary", elem_id="zero-draw")
        status = parts.status(i18n, "zero-latents-status")
        shown = parts.html(elem_id="zero-latents-view")
    with gr.Column(elem_classes="gb-card", min_width=0):
        parts.prose(i18n, "zero_noise_title", "zero_noise_spoiled", "zero_noise_drag")
        noise = parts.frame_slider("zero-noise")
        parts.prose(i18n, "zero_noise_back")
    code = vae.encode, vae.decode, alphas_cumprod, add_noise, emoji_vae.build
    parts.code_excerpts(i18n, *locate(*code))
    form = page.form
    model = [form[name] for name in ("model", "vae", "width", "height")]

    @page.runner.on_device
    def encoded(language: str, name, vae, width, height, path):
        yield from _looks(page.model_cache.get(name, vae), path, (width, height), language)

    def show_own(language: str, *values):
        began = time.monotonic()
        for html, book in encoded(language, *values):
            yield {shown: html} if book is None else {noise: book}
        yield {status: done_line(language, time.monotonic() - began)}

    def show_drawn(language: str, name, vae, width, height, words):
        with tempfile.TemporaryDirectory(prefix="glassbox-") as folder:
            fields = dict(model=name, vae=vae, width=width, height=height, prompt=words)
            made = yield from parts.draw(page, fields, folder, language, status)
            yield from show_own(language, name, vae, width, height, made.files[0])

    parts.on_device(draw.click, show_drawn, [*model, prompt], [shown, noise], status)
    parts.on_device(box.upload, show_own, [*model, box], [shown, noise], status)


def _looks(models, path: str, size: tuple, language: str):
    """What the chapter shows of the picture at `path`: (HTML, None), then (None, book)."""
    from pipeline.images.open import fit_image, open_picture, to_tensor
    from pipeline.latents.autoencode import decode_picture, encode_picture
    from pipeline.latents.vae import factor
    from pipeline.options import GenerateOptions

    asked = models.resolve(GenerateOptions(prompt="", width=size[0], height=size[1]))
    grain = factor(models.vae)
    width, height = (side // grain * grain for side in (asked.width, asked.height))
    image = fit_image(open_picture(path).image, width, height)
    latents = encode_picture(models, image)
    back = decode_picture(models, latents)
    error = float((to_tensor(image) - to_tensor(back)).abs().mean()) * 255
    yield _encoded(image, latents, back, grain, error, language), None
    yield None, _noisy(models, latents, language)


def _encoded(image, latents, back, factor: int, error: float, language: str) -> str:
    """Picture, latents, picture again, and how many numbers each is."""
    channels, height, width = latents.shape[1:]
    names = [say("zero_channel", language, number=i + 1) for i in range(channels)]
    small = "".join(
        render_figure(
            png_url(to_grey(plane)),
            name,
            f"{plane.min():.1f} … {plane.max():.1f}",
        )
        for plane, name in zip(latents[0], names, strict=True)
    )
    pixels, numbers = 3 * image.width * image.height, latents.numel()
    famous = 3 * FAMOUS**2, channels * (FAMOUS // factor) ** 2
    told = say(
        "zero_counted",
        language,
        pixels=pixels,
        numbers=numbers,
        times=pixels / numbers,
        side=FAMOUS,
        famous_pixels=famous[0],
        famous_numbers=famous[1],
        famous_times=famous[0] / famous[1],
    )
    before = say("zero_before", language, width=image.width, height=image.height, count=pixels)
    after = say("zero_after", language, error=error)
    middle = say("zero_middle", language, c=channels, w=width, h=height, count=numbers)
    return (
        f'<div class="gb-chain">{render_figure(data_url(image, SMALL), before, before)}'
        f'<i aria-hidden="true">→</i><div><div class="gb-planes">{small}</div><p>{middle}</p></div>'
        f'<i aria-hidden="true">→</i>{render_figure(data_url(back, SMALL), after, after)}</div>'
        f'<p class="gb-note gb-told" id="zero-counted">{told}</p>'
    )


def _noisy(models, latents, language: str) -> str:
    """The book of x_t: pictures at PLACES timesteps, each with its two numbers."""
    import torch

    from pipeline.latents.autoencode import decode_picture
    from pipeline.latents.noise import alphas_cumprod, first_noise, generator_for
    from pipeline.latents.vae import factor
    from pipeline.samplers.prediction import add_noise

    height, width = latents.shape[-2:]
    pixels = height * width * factor(models.vae) ** 2
    quick = models.device.type == "cpu" and pixels > HEAVY

    def picture(x):
        seen = models.preview.image(x, SMALL, SMALL * height // width) if quick else None
        return data_url(seen or decode_picture(models, x), SMALL)

    shares = alphas_cumprod(models.scheduler_config)
    eps = first_noise(generator_for(SEED), *latents.shape[1:])
    frames, whole, pure = [], picture(latents), picture(eps)
    for t in torch.linspace(0, len(shares) - 1, PLACES).round().long().tolist():
        share = float(shares[t])
        a, b = share**0.5, (1 - share) ** 0.5
        frames.append(
            {
                "place": f"t = {t}",
                "t": str(t),
                "a": f"{a:.4f}",
                "b": f"{b:.4f}",
                "sum": f"{a * a + b * b:.4f}",
                "share": f"{share:.4f}",
                "x": picture(add_noise(latents, eps, share)),
            }
        )
    at = PLACES // 3
    now = frames[at]
    marked = [say(f"zero_{key}", language) for key in ("clean", "pure", "mixed")]
    x_t, x_0 = "x<sub>t</sub>", "x<sub>0</sub>"
    number = '<b data-is="{0}"></b>'.format
    html = (
        '<div class="gb-mix">'
        f"{number('a')}<i>×</i>{render_figure(whole, marked[0], f'{x_0} {marked[0]}')}<i>+</i>"
        f"{number('b')}<i>×</i>{render_figure(pure, marked[1], f'ε {marked[1]}')}<i>=</i>"
        f"{render_figure(now['x'], marked[2], f'{x_t} {marked[2]}', 'x')}</div>"
        f'<p class="gb-formula">{x_t} = √<span class="gb-bar-over">α</span><sub>t</sub> · {x_0}'
        ' + √(1 − <span class="gb-bar-over">α</span><sub>t</sub>) · ε</p>'
        f'<p class="gb-formula gb-filled">x<sub>{number("t")}</sub> = {number("a")} · {x_0} + '
        f"{number('b')} · ε <span>{number('a')}² + {number('b')}² = {number('sum')}</span></p>"
        f"{_curves(frames, language)}"
    )
    if quick:
        html += f'<p class="gb-note gb-not">{say("zero_quick", language)}</p>'
    return frames_json(html, say("zero_drag", language), frames, at)


def _curves(frames: list[dict], language: str) -> str:
    """Both numbers over t, and a line where the slider is."""
    last = len(frames) - 1

    def line(key: str) -> str:
        return " ".join(
            f"{i / last * 100:.1f},{(1 - float(f[key])) * 100:.1f}" for i, f in enumerate(frames)
        )

    alt = say("zero_curves", language)
    return (
        f'<figure class="gb-curves"><div><svg viewBox="0 0 100 100" preserveAspectRatio="none"'
        f' role="img" aria-label="{alt}"><polyline class="gb-a" points="{line("a")}"/>'
        f'<polyline class="gb-b" points="{line("b")}"/></svg><i></i></div>'
        f"<figcaption>{alt}</figcaption></figure>"
    )
