"""Training: the embedded emoji model and the pixel upscaler from zero, LoRAs on any model.

Only the command line and the demo's training tabs import this package, and only when they train.
"""
