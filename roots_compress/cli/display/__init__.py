"""The display of a working verb: on a terminal, in lines, or as JSON."""
