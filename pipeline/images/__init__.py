"""Work on pictures as pixels: open, mask, recolour, upscale, lay out on sheets, write text."""
