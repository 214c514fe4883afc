"""Blocks as modules, each with its forward pass."""
