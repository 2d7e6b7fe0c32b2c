"""Turn a prompt into the UNet's cross-attention context.

`syntax` parses the text, `encode` runs the text encoders, `resources` opens the LoRAs and textual
inversions that the prompt names.
"""
