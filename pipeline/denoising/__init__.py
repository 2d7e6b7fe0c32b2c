"""The UNet with classifier-free guidance, in tiles where needed, and its attention maps."""
