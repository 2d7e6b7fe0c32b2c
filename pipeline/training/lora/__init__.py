"""Training of a LoRA on a handful of pictures."""
