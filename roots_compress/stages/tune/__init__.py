"""The `tune` stage: teach a model to answer, or to give the right label."""
