"""Training and evaluation of "glass", the pixel upscaler that doubles pictures."""
