"""Read model files and check that they can be loaded; no module here imports torch at top level."""
