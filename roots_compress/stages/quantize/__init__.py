"""Quantization of weights and, where it holds up, of activations."""
