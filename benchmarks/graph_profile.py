"""Where a graph's time goes: ONNX Runtime's profile of a prompt and of a decoded token, by operator.

Run it as `python benchmarks/graph_profile.py FOLDER [--context 512] [--threads 2]`. It prints a Markdown
table of milliseconds of one run. Profiling adds some microseconds to every node, so read shares.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime as ort

from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.prompts import check_context

DECODED, REPEATS = 8, 3
SHOWN = 12


def profiled(folder: Path, context: int, threads: int, target: Path) -> list[dict[str, Any]]:
    """Read a prompt and decode, several times; return the profile's events."""
    options = ort.SessionOptions

    def profiling() -> Any:
        made = options()
        made.enable_profiling = True
        made.profile_file_prefix = str(target / "profile")
        return made

    with patch.object(ort, "SessionOptions", profiling):
        engine = OnnxEngine.load(folder, threads=threads, provider="cpu")
    check_context(engine, context + DECODED)
    tokens = np.random.default_rng(0).integers(engine.vocab_size, size=(1, context + DECODED))
    for _ in range(REPEATS):
        step = engine.prefill(tokens[:, :context])
        for position in range(context, context + DECODED):
            step = engine.decode(tokens[:, position], step.cache)
    events: list[dict[str, Any]] = json.loads(Path(engine._session.end_profiling()).read_text())
    return events


def by_operator(events: list[dict[str, Any]]) -> tuple[Counter[str], Counter[str]]:
    """Return microseconds by operator, of one prompt and of one decoded token; the first repeat warms up."""
    runs = sorted((event for event in events if event["name"] == "model_run"), key=lambda event: event["ts"])
    pieces = len(runs) // REPEATS - DECODED
    prefill: Counter[str] = Counter()
    decode: Counter[str] = Counter()
    # The time of an `If` is that of the nodes in its bodies, which stand in the profile as well.
    nodes = [
        event
        for event in events
        if event.get("cat") == "Node" and event.get("args", {}).get("op_name", "If") != "If"
    ]
    for index, run in enumerate(runs):
        repeat, place = divmod(index, pieces + DECODED)
        if repeat == 0:
            continue
        spent, share = (prefill, 1) if place < pieces else (decode, DECODED)
        for node in nodes:
            if run["ts"] <= node["ts"] < run["ts"] + run["dur"]:
                spent[node["args"]["op_name"]] += node["dur"] / share / (REPEATS - 1)
    return prefill, decode


def main() -> None:
    """Profile the graph and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as target:
        events = profiled(arguments.folder, arguments.context, arguments.threads, Path(target))
    prefill, decode = by_operator(events)
    print(f"| operator, ms | prompt of {arguments.context} | one token after it |\n|---|---|---|")
    for name, _ in (prefill + decode).most_common(SHOWN):
        print(f"| `{name}` | {prefill[name] / 1e3:.1f} | {decode[name] / 1e3:.2f} |")
    print(f"| all | {prefill.total() / 1e3:.1f} | {decode.total() / 1e3:.2f} |")


if __name__ == "__main__":
    main()
