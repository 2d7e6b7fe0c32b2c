"""From a model's manifest to networks on a device."""
