"""Blocks as data, torch-free: each block's numbers, matrices, axes and inputs."""
