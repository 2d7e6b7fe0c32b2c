"""The UNet with classifier-free guidance, in tiles for large pictures; attention maps of words."""
