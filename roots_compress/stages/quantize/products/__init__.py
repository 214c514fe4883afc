"""Whether int8 multiplies integers or floats: chosen by timing."""
