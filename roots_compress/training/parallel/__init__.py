"""Training by several processes: the team, the share of each process, and the placement of weights."""
