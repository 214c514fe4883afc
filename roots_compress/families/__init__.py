"""Other families of models: their configuration and their tensors in terms of ROOTS."""
