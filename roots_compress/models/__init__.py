"""The ROOTS model: its specification, its blocks, and what is stored of it.

Importing `roots_compress.models.modeling` registers `roots` with transformers' Auto classes.
"""
