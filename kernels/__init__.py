"""GPU kernels in Triton for Stable Diffusion's attention and GroupNorm layers.

This file must import nothing: transformers imports it when it looks for the PyPI package `kernels`,
which has the same name.
"""

__version__ = "0.1.0"
