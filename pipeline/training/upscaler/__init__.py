"""Training and evaluation of the pixel upscaler."""
