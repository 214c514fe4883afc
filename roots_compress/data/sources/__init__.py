"""Documents from files of each kind."""
