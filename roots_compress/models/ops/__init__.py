"""Blocks as data, torch-free: each block's sizes, matrices, axes and inputs."""
