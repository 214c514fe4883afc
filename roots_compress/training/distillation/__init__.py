"""Training a student on what its teacher predicts."""
