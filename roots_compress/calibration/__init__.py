"""Calibration: activations, gradients, and text that the model writes itself."""
