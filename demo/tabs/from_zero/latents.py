"""Chapter i: how the VAE encodes a picture as latents, and how noise is added to them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipeline.latents import vae
from pipeline.latents.noise import alphas_cumprod
from pipeline.samplers.prediction import add_noise

from ...page import Page
from ...server.temp_folder import request_folder
from ...texts import say
from ...ui.images import THUMBNAIL_SIDE as SMALL
from ...ui.images import data_url
from ...ui.upload import PictureBox
from . import chapter_parts as parts
from .chapter_html import done_line, frames_json, locate, png_url, render_figure, to_grey

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from pipeline.model import Models

PROMPT = "a red apple on a blue background"
POSITIONS = 21  # timesteps that the slider shows
SD1_SIDE = 512  # pixels: the side of Stable Diffusion 1's pictures
MAX_CPU_PIXELS = 256 * 256  # of larger pictures a CPU shows quick previews: decoding takes too long
SEED = 0  # of the noise


def build(page: Page) -> None:
    """Build the chapter on latents: how the VAE encodes a picture, and how noise is added to them.

    Adds its components to the page that is being built, and attaches their listeners.
    """
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
        view = parts.html(elem_id="zero-latents-view")
    with gr.Column(elem_classes="gb-card", min_width=0):
        parts.prose(i18n, "zero_noise_title", "zero_noise_spoiled", "zero_noise_drag")
        noise = parts.frame_slider("zero-noise")
        parts.prose(i18n, "zero_noise_back")
    code = vae.encode, vae.decode, alphas_cumprod, add_noise, emoji_vae.build
    parts.code_excerpts(i18n, *locate(*code))
    form = page.form
    model = [form[name] for name in ("model", "vae", "width", "height")]

    @page.runner.on_device
    def encode_on_device(
        language: str, name: str, vae_name: str, width: Any, height: Any, path: str
    ) -> Iterator[tuple[str | None, str | None]]:
        models = page.model_cache.get(name, vae_name)
        yield from _render_views(models, path, (width, height), language)

    def show_file(language: str, *values: Any, visitor: str) -> Iterator[dict[Any, Any]]:
        began = time.monotonic()
        for html, frames in encode_on_device(language, *values):
            yield {view: html} if frames is None else {noise: frames}
        yield {status: done_line(language, time.monotonic() - began)}

    def draw_and_show(
        language: str,
        name: str,
        vae_name: str,
        width: Any,
        height: Any,
        text: str,
        visitor: str,
    ) -> Iterator[dict[Any, Any]]:
        with request_folder() as folder:
            fields = dict(model=name, vae=vae_name, width=width, height=height, prompt=text)
            finished = yield from parts.draw(page, fields, folder, language, status, visitor)
            values = name, vae_name, width, height, finished.files[0]
            yield from show_file(language, *values, visitor=visitor)

    parts.on_device(page, draw.click, draw_and_show, [*model, prompt], [view, noise], status)
    parts.on_device(page, box.upload, show_file, [*model, box], [view, noise], status)


def _render_views(
    models: Models, path: str, size: tuple[Any, Any], language: str
) -> Iterator[tuple[str | None, str | None]]:
    """Encode the picture at `path` with the VAE; yield the two things that the chapter shows of it.

    First (HTML of picture, latents and decoded picture, None), then (None, JSON for the slider that
    adds noise). size: (width, height) in pixels from the page's form; None takes the model's
    default.
    """
    from pipeline.images.open import fit_image, open_picture, to_tensor
    from pipeline.latents.autoencode import decode_picture, encode_picture
    from pipeline.latents.vae import factor
    from pipeline.options import GenerateOptions

    options = models.resolve(GenerateOptions(prompt="", width=size[0], height=size[1]))
    scale = factor(models.vae)
    width, height = (side // scale * scale for side in (options.width, options.height))
    image = fit_image(open_picture(path).image, width, height)
    latents = encode_picture(models, image)
    decoded = decode_picture(models, latents)
    error = float((to_tensor(image) - to_tensor(decoded)).abs().mean()) * 255
    yield _render_encoding(image, latents, decoded, scale, error, language), None
    yield None, _noise_frames(models, latents, language)


def _render_encoding(
    image: Image.Image,
    latents: torch.Tensor,
    decoded: Image.Image,
    factor: int,
    error: float,
    language: str,
) -> str:
    """Return a picture, its latents and the decoded picture as HTML, and how many numbers each is.

    latents: (1, C, h, w). factor: pixels of the picture per latent, along each side. error: the
    mean absolute difference between the picture and the decoded one, 0 to 255.
    """
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
    sd1_pixels, sd1_numbers = 3 * SD1_SIDE**2, channels * (SD1_SIDE // factor) ** 2
    counts = say(
        "zero_counted",
        language,
        pixels=pixels,
        numbers=numbers,
        times=pixels / numbers,
        side=SD1_SIDE,
        famous_pixels=sd1_pixels,
        famous_numbers=sd1_numbers,
        famous_times=sd1_pixels / sd1_numbers,
    )
    before = say("zero_before", language, width=image.width, height=image.height, count=pixels)
    after = say("zero_after", language, error=error)
    middle = say("zero_middle", language, c=channels, w=width, h=height, count=numbers)
    return (
        f'<div class="gb-chain">{render_figure(data_url(image, SMALL), before, before)}'
        f'<i aria-hidden="true">→</i><div><div class="gb-planes">{small}</div><p>{middle}</p></div>'
        f'<i aria-hidden="true">→</i>{render_figure(data_url(decoded, SMALL), after, after)}</div>'
        f'<p class="gb-note gb-told" id="zero-counted">{counts}</p>'
    )


def _noise_frames(models: Models, latents: torch.Tensor, language: str) -> str:
    """Return the JSON for the slider that shows x_t, latents with noise, at POSITIONS timesteps t.

    It is the value of a `frame_slider`. latents: the clean x_0 (1, C, h, w). Each position has the
    decoded picture of x_t and the two factors in x_t = a x_0 + b noise.
    """
    import torch

    from pipeline.latents.autoencode import decode_picture
    from pipeline.latents.noise import alphas_cumprod, first_noise, generator_for
    from pipeline.latents.vae import factor
    from pipeline.samplers.prediction import add_noise

    height, width = latents.shape[-2:]
    pixels = height * width * factor(models.vae) ** 2
    quick = models.device.type == "cpu" and pixels > MAX_CPU_PIXELS

    def picture(x: torch.Tensor) -> str:
        preview = models.preview.image(x, SMALL, SMALL * height // width) if quick else None
        return data_url(preview or decode_picture(models, x), SMALL)

    alphas = alphas_cumprod(models.scheduler_config)
    eps = first_noise(generator_for(SEED), *latents.shape[1:])
    frames, clean, noise = [], picture(latents), picture(eps)
    for t in torch.linspace(0, len(alphas) - 1, POSITIONS).round().long().tolist():
        alpha = float(alphas[t])
        a, b = alpha**0.5, (1 - alpha) ** 0.5
        frames.append(
            {
                "place": f"t = {t}",
                "t": str(t),
                "a": f"{a:.4f}",
                "b": f"{b:.4f}",
                "sum": f"{a * a + b * b:.4f}",
                "share": f"{alpha:.4f}",
                "x": picture(add_noise(latents, eps, alpha)),
            }
        )
    at = POSITIONS // 3
    now = frames[at]
    labels = [say(f"zero_{key}", language) for key in ("clean", "pure", "mixed")]
    x_t, x_0 = "x<sub>t</sub>", "x<sub>0</sub>"
    number = '<b data-is="{0}"></b>'.format
    html = (
        '<div class="gb-mix">'
        f"{number('a')}<i>×</i>{render_figure(clean, labels[0], f'{x_0} {labels[0]}')}<i>+</i>"
        f"{number('b')}<i>×</i>{render_figure(noise, labels[1], f'ε {labels[1]}')}<i>=</i>"
        f"{render_figure(now['x'], labels[2], f'{x_t} {labels[2]}', 'x')}</div>"
        f'<p class="gb-formula">{x_t} = √<span class="gb-bar-over">α</span><sub>t</sub> · {x_0}'
        ' + √(1 − <span class="gb-bar-over">α</span><sub>t</sub>) · ε</p>'
        f'<p class="gb-formula gb-filled">x<sub>{number("t")}</sub> = {number("a")} · {x_0} + '
        f"{number('b')} · ε <span>{number('a')}² + {number('b')}² = {number('sum')}</span></p>"
        f"{_curves(frames, language)}"
    )
    if quick:
        html += f'<p class="gb-note gb-not">{say("zero_quick", language)}</p>'
    return frames_json(html, say("zero_drag", language), frames, at)


def _curves(frames: list[dict[str, str]], language: str) -> str:
    """Return a plot over the timestep t of the factors in x_t = a x_0 + b noise, as HTML with SVG.

    A line marks the position of the slider that chooses t. frames: one dict for each t, with "a"
    and "b" as text.
    """
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
