"""Tests of `roots_compress.report`."""
