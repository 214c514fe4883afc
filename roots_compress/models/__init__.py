"""The ROOTS model: configuration, modelling, checkpoints, surgery and importers.

Importing `roots_compress.models.modeling` registers `roots` with transformers' Auto classes.
"""
