"""Training and evaluation of the embedded emoji model: tokenizer, CLIP, autoencoder, UNet."""
