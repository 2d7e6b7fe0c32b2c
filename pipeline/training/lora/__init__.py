"""Training of a LoRA on a few pictures of one character."""
