"""Latents: draw the first noise, encode and decode pixels, and make previews."""
