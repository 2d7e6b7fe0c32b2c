"""From a prompt to what the UNet hears: `syntax` reads it, `encode` asks the text encoders."""
