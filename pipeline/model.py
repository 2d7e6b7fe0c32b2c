"""A loaded model as callers hold it: its networks, its defaults, and methods that draw."""

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
    """A loaded model: its networks, its name, its device and its own default settings."""

    name: str
    path: Path
    family: str  # a key of identify.FAMILIES
    what: str  # what its files are, in words
    vae_name: str | None  # of another autoencoder than its own
    warnings: tuple[str, ...]  # sentences about what was used instead of what is missing
    hash: str  # first 10 hex digits of the SHA-256 of the file, or of the folder's UNet's files
    digests: dict[str, str]  # of each part, the SHA-256 of its files: "unet", "vae", ...
    unet: Any
    vae: Any
    text: TextEncoders  # tokenizers and text encoders, two of each for SD XL
    adapters: Adapters  # puts LoRAs on for a call
    scheduler_config: dict
    defaults: dict  # sampler, schedule, steps, cfg, width, height
    vocabulary: list[dict] | None  # what it knows: [{"emoji", "en", "zh"}], where it says so
    device: torch.device
    dtype: torch.dtype
    vae_dtype: torch.dtype
    backends: Backends
    preview: Preview
    lock: AbstractContextManager[Any] = field(default_factory=threading.RLock, repr=False)

    @property
    def tokenizer(self) -> Any:
        """The (first) tokenizer."""
        return self.text.encoders[0].tokenizer

    @property
    def text_encoder(self) -> Any:
        """The (first) text encoder."""
        return self.text.encoders[0].model

    @property
    def attention(self) -> str:
        """The attention backend that runs where a request asks for none."""
        return self.backends.open_session().attention

    @property
    def group_norm(self) -> str:
        """The GroupNorm backend that runs where a request asks for none."""
        return self.backends.open_session().group_norm

    def resolve(self, options: GenerateOptions) -> ResolvedOptions:
        """Return `options` with every None filled: the model's defaults, and a random seed.

        The result has the class of `options`.
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
        """Yield the Steps of text to image, then the Result; see engine.stream.

        Each picture carries its receipt. Closing the iterator stops the work.
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
        """Pass on the events of a task, and put a receipt into `info["receipt"]` of each picture.

        parent, at, change: of a branch, the receipt of its parent, how many of the parent's
        fingerprints come before it, and what was changed. Closing the iterator closes the events.
        """
        from .events import Result
        from .metadata import receipt
        from .metadata.fingerprint import fingerprint

        prints: dict[int, dict[int, str]] = {}  # of each picture, by step
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
                    found = prints.setdefault(event.image, {})
                    if event.index not in found:  # of several calls in a step the first
                        found[event.index] = str(fingerprint(event.latents))
                    words = words or event.maps is not None
                yield event
        finally:
            events.close()

    def generate(self, options: GenerateOptions | None = None, **fields: Any) -> Result:
        """Return the Result for `options`, or for fields of GenerateOptions given by name."""
        from . import events
        from .options import GenerateOptions

        if options is not None and fields:
            options = GenerateOptions(**(options.model_dump() | fields))

        *_, result = self.stream(options or GenerateOptions(**fields))
        assert isinstance(result, events.Result)
        return result
