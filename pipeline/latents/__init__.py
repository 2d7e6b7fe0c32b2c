"""Latents: noise to begin from, the autoencoder to and from pixels, previews."""
