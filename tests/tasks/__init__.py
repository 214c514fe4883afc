"""Tests of `roots_compress.tasks`."""
