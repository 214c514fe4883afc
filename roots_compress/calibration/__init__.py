"""What a model does on calibration text: activations, gradients, text of its own."""
