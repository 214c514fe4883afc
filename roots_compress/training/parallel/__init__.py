"""Training by several processes: who they are, what each reads, and where the weights lie."""
