"""The version of Glassbox Diffusion, which is written into receipts and parameters texts."""

__version__ = "0.1.0"
