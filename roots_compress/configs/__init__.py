"""Every configuration object, torch-free: those of the stages, of data and of evaluation."""
