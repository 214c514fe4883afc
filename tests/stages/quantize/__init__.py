"""Tests of the quantize stage."""
