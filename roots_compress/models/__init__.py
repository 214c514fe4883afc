"""The ROOTS model: its specification, its blocks, and its stored form.

Importing `roots_compress.models.modeling` registers `roots` with transformers' Auto classes.
"""
