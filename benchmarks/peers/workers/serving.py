"""What every worker does: read requests as JSON lines, answer each with one line.

A worker is a script in a process and an environment of its own. It imports nothing but this file, numpy and
the library it measures. Requests: `time` (prefill, or go on from the tokens before, then decode), `score`
(windows), `greedy`, `peak`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


class Engine(Protocol):
    """A language model that reads tokens into a cache, batch 1."""

    settings: dict[str, str]
    """What the engine was told beyond its library's defaults and the number of threads."""

    def prefill(self, tokens: list[int]) -> None:
        """Read a prompt into an empty cache and compute the logits of its last token."""

    def decode(self, token: int) -> None:
        """Append one token and compute its logits."""

    def last_logits(self) -> Logits:
        """Return the logits `(V,)` of the last token read."""

    def all_logits(self, tokens: list[int]) -> Logits:
        """Return the logits `(T, V)` of every token of a text; the cache is lost."""


def serve(open_engine: Callable[[dict[str, Any]], Engine]) -> None:
    """Open the engine that the first line describes, then answer requests until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # What a library prints must not mix with answers.

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        engine = open_engine(json.loads(sys.stdin.readline()))
        say({"ok": True, "settings": engine.settings})
        for line in sys.stdin:
            say(_answer(engine, json.loads(line)))
    except Exception as error:  # Whatever a library raises is the answer: the driver goes on with the others.
        say({"error": f"{type(error).__name__}: {error}"})
        raise


def _answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    match request["do"]:
        case "time":
            return _time(engine, request["prompt"], request["continuation"])
        case "score":
            return {
                "nll_nats": sum(_negative_log_likelihood(engine, tokens) for tokens in request["windows"])
            }
        case "greedy":
            return {"tokens": _greedy(engine, request["prompt"], request["count"])}
        case "peak":
            return {"bytes": _peak_bytes()}
        case unknown:
            raise ValueError(f"no request is called {unknown!r}")


def _time(engine: Engine, prompt: list[int], continuation: list[int]) -> dict[str, Any]:
    """Time a prompt, unless it is empty and the cache is gone on from, and the tokens decoded after it."""
    began = time.perf_counter()
    if prompt:
        engine.prefill(prompt)
    filled = time.perf_counter()
    for token in continuation:
        engine.decode(token)
    return {"prefill_seconds": filled - began, "decode_seconds": time.perf_counter() - filled}


def _greedy(engine: Engine, prompt: list[int], count: int) -> list[int]:
    engine.prefill(prompt)
    tokens = [int(engine.last_logits().argmax())]
    while len(tokens) < count:
        engine.decode(tokens[-1])
        tokens.append(int(engine.last_logits().argmax()))
    return tokens


def _negative_log_likelihood(engine: Engine, tokens: list[int]) -> float:
    """Return the summed -log p of every token after the first, in float64; the last token is not read."""
    logits_TV = engine.all_logits(tokens[:-1]).astype(np.float64)
    logits_TV -= logits_TV.max(axis=1, keepdims=True)
    target_T = np.take_along_axis(logits_TV, np.array(tokens[1:])[:, None], axis=1)[:, 0]
    return float((np.log(np.exp(logits_TV).sum(axis=1)) - target_T).sum())


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not tell the peak memory")
