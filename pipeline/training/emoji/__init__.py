"""Training and evaluation of the embedded emoji model: CLIP, autoencoder, UNet."""
