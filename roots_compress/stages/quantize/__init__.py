"""Quantization of weights and, if quality allows, of activations."""
