"""From a target to the shape of each layer."""
