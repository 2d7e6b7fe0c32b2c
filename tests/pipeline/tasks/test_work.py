"""What tasks.work counts is what the UNet is really called with, or a little more."""

import pytest
from PIL import Image

from pipeline import tasks

SIZE = (96, 64)
REQUESTS = {
    "generate": dict(steps=3, count=2, sampler="heun"),
    "image_to_image": dict(steps=6, strength=0.5),
    "inpaint": dict(steps=4, strength=0.5, left=32),
    "hires": dict(steps=4, scale=1.5, strength=0.5),
    "upscale": dict(steps=4, scale=3, strength=0.6, tile=64),
    "colorize": dict(steps=3),
    "grid": dict(x="steps: 2, 3", y="sampler: euler, heun"),
}


@pytest.mark.parametrize("task", tasks.TASKS)
def test_counted_pixels_are_those_the_unet_sees(models, task):
    fields = dict(REQUESTS[task], cfg=1)
    if "picture" in tasks.module(task).Options.model_fields:
        fields["picture"] = Image.new("RGB", SIZE, "teal")
    options = tasks.options(task, **fields)
    seen = []

    def count(module, args, kwargs):
        latents = args[0] if args else kwargs["sample"]
        seen.append(latents.shape[0] * latents.shape[-2] * latents.shape[-1] * 64)

    hook = models.unet.register_forward_pre_hook(count, with_kwargs=True)
    try:
        for _ in tasks.stream(models, task, options):
            pass
    finally:
        hook.remove()
    counted = tasks.work(task, options, models.defaults)
    assert sum(seen) <= counted <= 1.35 * sum(seen)
