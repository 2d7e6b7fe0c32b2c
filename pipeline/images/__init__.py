"""Pictures: opening, masks, CIELAB, upscaling, contact sheets, fonts."""
