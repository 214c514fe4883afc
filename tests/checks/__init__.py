"""Each promised check, held against the one fault that it is there for."""
