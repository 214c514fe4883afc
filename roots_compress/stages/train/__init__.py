"""The `train` stage: pre-train a ROOTS model."""
