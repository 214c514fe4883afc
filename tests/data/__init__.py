"""Tests of the text a run reads."""
