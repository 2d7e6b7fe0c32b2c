"""Call the UNet with classifier-free guidance, in tiles for large pictures; collect word maps."""
