"""Workers, one process an engine, and what is asked of them.

Timings take turns: within a repeat every engine is timed once at a context, and the order moves on by one
from repeat to repeat. A worker that is not being timed is stopped by a signal, so that no thread of it can
spin; each engine therefore runs with the spinning its library chose.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.checkpoints import Tokens
from benchmarks.peers.engines import HERE, OURS, Engine
from benchmarks.peers.environments import PeerError, last_line, peer_variables
from roots_compress.runtime.onnx.session import EXACT_INTEGER_SUMS
from roots_compress.system.machine import own_instruction_set, saturates

GREEDY_TOKENS = 32


@dataclass(frozen=True)
class Launch:
    """How an engine's worker is started."""

    engine: Engine
    python: Path
    path: Path
    threads: int
    room: int
    """Tokens the cache must hold."""
    log: Path


@dataclass(frozen=True)
class Rate:
    """Tokens per second: the median of the repeats, and their extremes."""

    context: int
    median: float
    low: float
    high: float


def needed_options(instructions: str) -> dict[str, str]:
    """Return what any ONNX Runtime session must be told on a processor for exact integer sums."""
    return dict([EXACT_INTEGER_SUMS] * saturates(instructions))


class Worker:
    """A process with one engine; close it, or use it in a `with` block."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        extra = {"OMP_NUM_THREADS": str(launch.threads)}
        if launch.engine.environment == OURS:
            extra["PYTHONPATH"] = str(HERE.parents[1])
        script = str(HERE / f"workers/{launch.engine.worker}.py")
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        with launch.log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [str(launch.python), script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=peer_variables(extra),
            )
        opening = {
            "path": str(launch.path),
            "threads": launch.threads,
            "room": launch.room,
            "session_options": needed_options(own_instruction_set()),
        }
        try:
            answer = self.ask({**opening, **dict(launch.engine.options)})
            self.settings: dict[str, str] = answer["settings"]
        except BaseException:
            self.close()
            raise

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            PeerError: the worker reported an error, or died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise PeerError(f"its worker ended with code {code}: {last_line(self._launch.log)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"].splitlines()[0])
        return answer

    def pause(self) -> None:
        """Stop every thread of the process, where the system can."""
        if sys.platform != "win32":
            os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process run again."""
        if sys.platform != "win32":
            os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def judge(launch: Launch, scoring: Launch, tokens: Tokens, *, context: int, decode: int) -> dict[str, Any]:
    """Return an engine's settings, peak memory, greedy tokens and negative log-likelihood of the windows.

    Memory is read after one prompt and some decoded tokens, before anything else is asked.

    Raises:
        PeerError: the worker cannot do it.
    """
    with Worker(launch) as worker:
        settings, timed = worker.settings, tokens.timed
        worker.ask(
            {"do": "time", "prompt": timed[:context], "continuation": timed[context : context + decode]}
        )
        peak = worker.ask({"do": "peak"})["bytes"]
        greedy = worker.ask({"do": "greedy", "prompt": tokens.greedy_prompt, "count": GREEDY_TOKENS})[
            "tokens"
        ]
    with Worker(scoring) as worker:
        nll = worker.ask({"do": "score", "windows": tokens.windows})["nll_nats"]
    return {
        "session_options": settings,
        "peak_rss_bytes": peak,
        "greedy_tokens": greedy,
        "nll_nats": nll,
    }


def time_engines(
    launches: Sequence[Launch],
    tokens: Sequence[int],
    *,
    contexts: Sequence[int],
    prefill_contexts: Sequence[int],
    decode: int,
    repeats: int,
    progress: Callable[[str], None],
) -> tuple[dict[str, dict[str, list[Rate]]], dict[str, str]]:
    """Time all engines in turns; return the rates of each, and the reason where one failed.

    At a context that prefill is not timed at, the prompt is read once and decoding goes on from it: the
    context grows by `decode` tokens a repeat, for all engines alike.
    """
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        workers = _open(launches, stack, failed)
        rates: dict[str, dict[str, list[Rate]]] = {name: {"prefill": [], "decode": []} for name in workers}
        for context in contexts:
            fresh = context in prefill_contexts
            seconds: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
            for repeat in range(-1, repeats):  # The first round warms up and is not counted.
                progress(f"context {context}, repeat {repeat + 1} of {repeats}")
                names = list(workers)
                turn = repeat % max(1, len(names))
                for name in names[turn:] + names[:turn]:
                    prompt = tokens[:context] if fresh or repeat < 0 else []
                    start = context if fresh else context + (repeat + 1) * decode
                    request = {
                        "do": "time",
                        "prompt": list(prompt),
                        "continuation": list(tokens[start : start + decode]),
                    }
                    workers[name].resume()
                    try:
                        seconds[name].append(workers[name].ask(request))
                    except PeerError as error:
                        failed[name] = str(error)
                        workers.pop(name).close()
                        continue
                    workers[name].pause()
            for name in workers:
                counted = seconds[name][1:]
                rates[name]["decode"].append(_rate(context, decode, counted, "decode_seconds"))
                if fresh:
                    rates[name]["prefill"].append(_rate(context, context, counted, "prefill_seconds"))
    return {name: rates[name] for name in workers}, failed


def _open(launches: Sequence[Launch], stack: ExitStack, failed: dict[str, str]) -> dict[str, Worker]:
    """Start the engines, each of which then waits for its turn; enter those that fail, and why."""
    workers: dict[str, Worker] = {}
    for launch in launches:
        try:
            worker = stack.enter_context(Worker(launch))
        except PeerError as error:
            failed[launch.engine.name] = str(error)
        else:
            worker.pause()
            workers[launch.engine.name] = worker
    return workers


def tokens_needed(contexts: Sequence[int], decode: int, repeats: int) -> int:
    """Return the most tokens a cache holds in `time_engines`."""
    return max(contexts) + decode * (repeats + 1)


def _rate(context: int, tokens: int, answers: list[dict[str, Any]], what: str) -> Rate:
    each = [tokens / answer[what] for answer in answers]
    return Rate(context, median(each), min(each), max(each))
