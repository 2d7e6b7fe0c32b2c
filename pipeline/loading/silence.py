"""Suppress the messages of diffusers, transformers and the Hub client while a model loads."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silence_libraries() -> Iterator[None]:
    """Import diffusers and transformers silently, and suppress warnings inside the `with`.

    Their logging below errors and their progress bars stay off afterwards, and so do those of
    huggingface_hub.
    """
    for name in ("TRANSFORMERS", "DIFFUSERS", "HF_HUB"):
        os.environ.setdefault(f"{name}_VERBOSITY", "error")
    logging.getLogger("xformers").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers
        import transformers
        from huggingface_hub.utils import disable_progress_bars

        for library in (diffusers, transformers):
            library.utils.logging.set_verbosity_error()
            library.utils.logging.disable_progress_bar()
        disable_progress_bars()
        yield
