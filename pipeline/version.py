"""The product's version, as receipts and infotext name it."""

__version__ = "0.1.0"
