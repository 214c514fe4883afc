"""Tests of block attention for dense checkpoints."""
