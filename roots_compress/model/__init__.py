"""The ROOTS model: configuration, modelling, checkpoints, surgery and importers.

Importing `roots_compress.model.modeling` registers `roots` with transformers' Auto classes.
"""
