"""Draw pictures with Stable Diffusion models.

Example:

    from pipeline import load
    models = load("emoji")
    picture = models.generate(prompt="a red apple", seed=1).images[0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import old_names
from .version import __version__

if TYPE_CHECKING:
    from .errors import InputError
    from .loading.load import load
    from .options import GenerateOptions

__all__ = ["GenerateOptions", "InputError", "__version__", "load"]

old_names.install()


def __getattr__(name: str) -> Any:
    """Import the public name `name` at its first use, so that `import pipeline` stays fast.

    The names import torch or pydantic. Raises AttributeError for a name that is not public.
    """
    if name == "load":
        from .loading.load import load

        return load
    if name == "GenerateOptions":
        from .options import GenerateOptions

        return GenerateOptions
    if name == "InputError":
        from .errors import InputError

        return InputError
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
