"""The command line: parse, call, render. Torch is imported inside commands only."""
