"""Load a model: find its files by name, build its networks and move them to a device."""
