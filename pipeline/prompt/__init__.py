"""From a prompt to the UNet's context: `syntax` parses it, `encode` runs the text encoders."""
