"""Distil, prune and quantize a trained language model into a small ONNX graph."""

import os

from roots_compress.old_names import understand_old_names

__version__ = "0.1.0"

# From 1.29 on ONNX Runtime's own builds write an identifier to the home folder and report sessions, model
# names and machine over the network, unless this stands in the environment before it is first imported. Not
# `setdefault`: this program says that nothing of a run leaves the machine.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

understand_old_names()
