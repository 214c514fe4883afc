"""The `tune` stage: trains a model to answer, or to label texts."""
