"""Tests of adapters that are added to their bases at the import."""
