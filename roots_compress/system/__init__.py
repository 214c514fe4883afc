"""The machine: cores, threads, memory, processes."""
