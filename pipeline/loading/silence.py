"""Keep the messages of libraries off the user's screen while they are imported and load."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silence_libraries() -> Iterator[None]:
    """Within this, transformers, diffusers and the hub print no warnings and no progress bars."""
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
