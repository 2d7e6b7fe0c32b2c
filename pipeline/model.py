"""Models: a loaded Stable Diffusion model with its default settings and methods that draw."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .errors import InputError

if TYPE_CHECKING:
    import torch

    from .backends import Backends
    from .events import Events, Result
    from .latents.preview import Preview
    from .lora.adapters import Adapters
    from .metadata.receipt import Receipt
    from .options import GenerateOptions, ResolvedOptions
    from .prompt.encode import TextEncoders


@dataclass
class Models:
    """A loaded Stable Diffusion model, ready to draw: networks, name, device, and default options.

    name              the name that users select it by
    path              its checkpoint file, or its folder in diffusers' format
    family            "sd1", "sd2" or "xl": Stable Diffusion 1.x, 2.x or XL
    what              description of its files, for people
    vae_name          name of the autoencoder that replaces its own, or None
    warnings          sentences about missing files and what is used in their place
    hash              first 10 hex digits of the SHA-256 of the checkpoint file, or for a folder of
                      its UNet's files
    digests           SHA-256 of the files of each component: {"unet": ..., "vae": ...}
    unet, vae         diffusers' UNet2DConditionModel and AutoencoderKL
    text              the tokenizers and text encoders; SD XL has two of each
    adapters          applies LoRAs to the networks
    scheduler_config  content of its scheduler_config.json
    defaults          its default options: sampler, schedule, steps, cfg, width, height
    vocabulary        the emoji that it can draw, a dict {"emoji", "en", "zh"} for each; None for a
                      model without vocabulary.json
    device, dtype     device and dtype of the UNet's computations; vae_dtype: of the autoencoder's
    backends          the attention and GroupNorm backends that it can use
    preview           the linear map that makes coarse pictures of latents
    lock              held while a network runs, so that requests take turns
    lora_folder       a folder whose LoRAs prompts may name besides those in ./models; None for none
    """

    name: str
    path: Path
    family: str
    what: str
    vae_name: str | None
    warnings: tuple[str, ...]
    hash: str
    digests: dict[str, str]
    unet: Any
    vae: Any
    text: TextEncoders
    adapters: Adapters
    scheduler_config: dict[str, Any]
    defaults: dict[str, Any]
    vocabulary: list[dict[str, Any]] | None
    device: torch.device
    dtype: torch.dtype
    vae_dtype: torch.dtype
    backends: Backends
    preview: Preview
    lock: AbstractContextManager[Any] = field(default_factory=threading.RLock, repr=False)
    lora_folder: Path | None = None

    @property
    def tokenizer(self) -> Any:
        """The CLIPTokenizer of transformers; for SD XL the first of two."""
        return self.text.encoders[0].tokenizer

    @property
    def text_encoder(self) -> Any:
        """The CLIPTextModel of transformers; for SD XL the first of two."""
        return self.text.encoders[0].model

    @property
    def attention(self) -> str:
        """Name of the attention backend that is used if a request selects none."""
        return self.backends.open_session().attention

    @property
    def group_norm(self) -> str:
        """Name of the GroupNorm backend that is used if a request selects none."""
        return self.backends.open_session().group_norm

    def resolve(self, options: GenerateOptions) -> ResolvedOptions:
        """Return a copy of `options` with the model's defaults and a random seed filled in.

        They replace None as sampler, schedule, steps, cfg, width, height and seed. The result has
        the class of `options`. Raises InputError for a schedule that the sampler does not accept.
        """
        from .options import MAX_SEED
        from .samplers import check_pair

        fields = {k: getattr(options, k) for k in type(options).model_fields}
        given = {k: v for k, v in fields.items() if v is not None}
        filled = self.defaults | given
        if "schedule" not in given and check_pair(filled["sampler"], filled["schedule"]):
            filled["schedule"] = "automatic"
        reason = check_pair(filled["sampler"], filled["schedule"])
        if reason:
            raise InputError(reason)
        varied = ["variation_seed"] if filled["variation_strength"] else []
        for name in ("seed", *varied):
            if name not in given:
                filled[name] = secrets.randbelow(MAX_SEED + 2 - filled["count"])
        return cast("ResolvedOptions", options.model_copy(update=filled))

    def stream(self, options: GenerateOptions, *, words: bool = False) -> Events:
        """Draw text to image step by step: yield a Step for every UNet call, at last the Result.

        Each picture of the Result has a receipt (JSON that lists all it was made from), by which
        pipeline.verify can draw it again and compare. words: whether Steps have attention maps of
        the prompt's words. Closing the generator stops the work.
        """
        from . import engine

        return self.sign(engine.stream(self, options, words=words), "generate", options)

    def sign(
        self,
        events: Events,
        task: str,
        options: GenerateOptions,
        *,
        parent: Receipt | None = None,
        at: int = 0,
        change: Mapping[str, Any] | None = None,
    ) -> Events:
        """Pass on the events of a task; add a receipt to each picture as `info["receipt"]`.

        A receipt lists everything that is needed to draw the picture again, with a fingerprint of
        the latents of each step.

        task     key of the task in tasks.TASKS, such as "generate", or "branch"
        options  the options as the user gave them
        parent   for a branch, a picture that continues another from one of its steps: the receipt
                 of that other picture
        at       for a branch: how many of the parent's fingerprints come before it
        change   for a branch: {"at": step, name of each changed option: its new value}

        Closing the generator closes `events`.
        """
        from .events import Result
        from .metadata import receipt
        from .metadata.fingerprint import fingerprint

        prints: dict[int, dict[int, str]] = {}  # picture: {step: fingerprint}
        words = False
        try:
            for event in events:
                if isinstance(event, Result):
                    for i, image in enumerate(event.images):
                        steps = list(prints.get(i, {}).values())
                        steps += [str(fingerprint(x)) for x in event.latents[i : i + 1]]
                        if parent is None:
                            source = receipt.provenance(task, options, event.options, i, words)
                        else:
                            source = receipt.extend_provenance(parent, change or {})
                            steps = parent.steps[:at] + steps
                        image.info["receipt"] = receipt.write(self, event, i, source, steps)
                else:
                    by_step = prints.setdefault(event.image, {})
                    if event.index not in by_step:  # only the first call of a step
                        by_step[event.index] = str(fingerprint(event.latents))
                    words = words or event.maps is not None
                yield event
        finally:
            events.close()

    def generate(self, options: GenerateOptions | None = None, **fields: Any) -> Result:
        """Draw text to image and return the Result: the pictures and how they were made.

        options: what to draw. fields: fields of GenerateOptions by name, such as prompt="a cat";
        they override those of `options`. Raises InputError for wrong values.
        """
        from . import events
        from .options import GenerateOptions

        if options is not None and fields:
            options = GenerateOptions(**(options.model_dump() | fields))

        *_, result = self.stream(options or GenerateOptions(**fields))
        assert isinstance(result, events.Result)
        return result
