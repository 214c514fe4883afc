"""Blocks as modules: the one forward of each."""
