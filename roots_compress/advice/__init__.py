"""What suits a checkpoint, a machine and bounds: the recipe that `init` writes, and what `compress` tries."""
