"""What a verb shows while it works: on a terminal, in lines, or as JSON."""
