"""Measurements in a separate process, without this one's threads, libraries and memory.

The request goes to the child's standard input as JSON. The child answers on its standard output, one JSON
object a line: `{"progress": [done, total]}` as often as it likes, then `{"result": ...}` or
`{"error": "...", "where": ..., "remedy": ..., "input": bool}`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

from roots_compress.errors import InputError, RootsError, StageError
from roots_compress.system.memory import memory_errors

if TYPE_CHECKING:
    # Not at run time: the child needs no progress bars, and its memory is measured.
    from roots_compress.progress import Progress


KEPT_LINES = 20
"""Lines kept of a child's standard error; the last one says why it ended."""


def measure(module: str, request: dict[str, Any], *, progress: Progress | None = None) -> Any:
    """Run `python -m module` with a request, and return its result.

    Raises:
        InputError: the child refused its input.
        StageError: the child could not be started, reported another error, or ended without a result (killed
            for its memory, say).
    """
    process = start(module)
    with process, _last_lines(process) as said:
        try:
            answer = _converse(process, request, progress)
        except BaseException:
            process.kill()
            raise
    if answer is not None and process.returncode == 0:
        return answer
    how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
    raise StageError(
        f"the measuring process {module} ended with {how}" + (f": {said[-1]}" if said else ""),
        remedy="Signal 9 means that memory ran out: close other programs, or measure a smaller model."
        if process.returncode == -9
        else "Give the same command again. If it fails again, please report it.",
        transient=True,
    )


def start(module: str) -> subprocess.Popen[str]:
    """Start `python -m module`, with pipes for its standard streams.

    Raises:
        StageError: it could not be started.
    """
    try:
        return subprocess.Popen(
            # -P: no module of the current folder may replace a library's.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise StageError(
            f"the measuring process cannot be started: {error.strerror or error}",
            where=sys.executable or None,
            remedy="It is a second process of this Python: check that the file may be executed, and the"
            " limits on processes and memory.",
            transient=True,
        ) from error


@contextmanager
def _last_lines(process: subprocess.Popen[str]) -> Iterator[deque[str]]:
    """Read a child's standard error while it runs; after the block, its last lines are available."""
    said: deque[str] = deque(maxlen=KEPT_LINES)

    def read() -> None:
        assert process.stderr is not None
        with suppress(ValueError):  # An interruption may close the stream before its end.
            said.extend(line.strip() for line in process.stderr if line.strip())

    reader = Thread(target=read, daemon=True)
    reader.start()
    try:
        yield said
    finally:
        reader.join()


def _converse(process: subprocess.Popen[str], request: dict[str, Any], progress: Progress | None) -> Any:
    """Send the request and read to the end; return the result, or None if there was none."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin as stdin:
            json.dump(request, stdin)
    except BrokenPipeError:
        return None
    result = None
    for line in process.stdout:
        try:
            answer = json.loads(line)
        except ValueError:
            continue  # A line that a killed child did not finish.
        if "error" in answer:
            kind = InputError if answer["input"] else StageError
            raise kind(answer["error"], where=answer["where"], remedy=answer["remedy"])
        if "progress" in answer and progress is not None:
            progress(*answer["progress"])
        result = answer.get("result", result)
    return result


def serve(handler: Callable[[dict[str, Any], Progress], Any]) -> None:
    """Run as the child: answer the request on standard input with the handler's result."""

    def say(**answer: Any) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    try:
        with memory_errors():
            say(result=handler(json.load(sys.stdin), lambda done, total: say(progress=[done, total])))
    except RootsError as error:
        say(
            error=error.message,
            where=error.where,
            remedy=error.remedy,
            input=isinstance(error, InputError),
        )
