"""GPU kernels for Stable Diffusion's hot paths: attention and GroupNorm.

This file imports nothing: transformers executes it while it looks for the PyPI package `kernels`.
"""

__version__ = "0.1.0"
