"""From prompt to picture.

from pipeline import load, GenerateOptions
models = load("emoji")
picture = models.generate(prompt="a red apple", seed=1).images[0]
"""

from .version import __version__

__all__ = ["GenerateOptions", "InputError", "__version__", "load"]


def __getattr__(name: str):
    """Import late, so that `python -m pipeline --help` is instant."""
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
