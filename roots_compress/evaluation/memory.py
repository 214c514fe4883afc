"""Peak memory of running a graph, measured in a process that does nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from roots_compress.errors import StageError
from roots_compress.evaluation.child import measure, serve
from roots_compress.tasks.registry import task_of_graph

if TYPE_CHECKING:
    from roots_compress.progress import Progress

PROC_STATUS = Path("/proc/self/status")


def peak_rss_bytes(folder: Path, *, context: int, decode_tokens: int, threads: int) -> int:
    """Return the peak memory of a process that opens a graph and runs its workloads once.

    The process is Python with numpy and ONNX Runtime, which are part of the figure. Mapped pages of external
    data count if they were read.

    Args:
        context: tokens of context, as `Task.lengths` returns them.
        decode_tokens: tokens decoded after it, if the task decodes.

    Raises:
        InputError: the folder is not a whole graph.
        StageError: the measuring process failed, or this platform does not tell a process its peak.
    """
    # Imported here: the child must not load `onnx`, whose memory would count.
    from roots_compress.runtime.onnx.graph_folder import graph_files

    request = {
        "graph": str(graph_files(folder)[0].absolute()),
        "context": context,
        "decode_tokens": decode_tokens,
        "threads": threads,
    }
    return int(measure(__name__, request))


def own_peak_rss_bytes() -> int:
    """Return this process's own peak resident set.

    On Linux it is read from `/proc`: `getrusage` reports the parent's memory at the start if that was larger.

    Raises:
        StageError: neither is available (Windows).
    """
    if PROC_STATUS.exists():
        for line in PROC_STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError as error:
        raise StageError(
            "peak memory cannot be measured on this platform", remedy="Use Linux or macOS."
        ) from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS reports bytes, the other systems KiB.
    return peak if sys.platform == "darwin" else peak * 1024


def _handle(request: dict[str, Any], _progress: Progress) -> int:
    graph, context, decode_tokens = Path(request["graph"]), request["context"], request["decode_tokens"]
    task = task_of_graph(graph)
    engine = task.open_graph(graph, threads=request["threads"], provider="cpu")
    tokens_1T = np.random.default_rng(0).integers(engine.vocab_size, size=(1, context + decode_tokens))
    task.run_workloads(engine, tokens_1T, context, decode_tokens)
    return own_peak_rss_bytes()


if __name__ == "__main__":
    serve(_handle)
