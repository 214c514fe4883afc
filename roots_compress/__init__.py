"""Distil, prune and quantize a trained language model into a small ONNX graph."""

import os
from typing import TYPE_CHECKING, Any

from roots_compress.old_names import understand_old_names
from roots_compress.version import VERSION

if TYPE_CHECKING:
    from roots_compress.api import compress, evaluate, load

__all__ = ["__version__", "compress", "evaluate", "load"]
__version__ = VERSION

# From 1.29 on ONNX Runtime's own builds write an identifier to the home folder and report sessions, model
# names and machine over the network, unless this stands in the environment before it is first imported. Not
# `setdefault`: this program says that nothing of a run leaves the machine.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

understand_old_names()


def __getattr__(name: str) -> Any:
    """Import the functions of `api.py` when they are asked for: the command line's help does not wait."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from roots_compress import api

    return getattr(api, name)
