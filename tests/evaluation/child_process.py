"""The child of the tests of `roots_compress.evaluation.child`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from roots_compress.errors import InputError
from roots_compress.evaluation.child import serve


def handle(request: dict[str, Any], progress: Callable[[int, int], None]) -> Any:
    match request["do"]:
        case "echo":
            progress(1, 2)
            progress(2, 2)
        case "refuse":
            raise InputError("the child's own words")
        case "crash":
            return 1 / 0
        case "chatter":
            # More than a pipe holds.
            sys.stderr.write("words\n" * 100_000)
        case "exhaust":
            bytearray(1 << 60)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            progress(os.getpid(), 1)
            time.sleep(60)
    return request["value"]


if __name__ == "__main__":
    serve(handle)
