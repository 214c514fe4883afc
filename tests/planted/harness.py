"""Runs a check over a copy of the repository, clean or with a bug in it, and judges what it says.

A check runs in a forked child that inherits the libraries and nothing of the package, so it costs what the
check itself costs. The process that forks must therefore not have imported the package.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.forked import stand_alone
from tests.planted.patches import RUN, Plant, plant

ROOT = Path(__file__).parents[2]
COPIED = ("roots_compress", "tests", "recipes", "docs")
MOST_SECONDS = 600.0
REFUSED = {True: (1, 2), False: (1,)}
"""Exit codes of the chain whose command an error of ours ended, and of pytest where a test failed. Others
stand for a check that could not be made at all."""


@dataclass(frozen=True)
class Answer:
    """What a check came to."""

    code: int
    output: str
    seconds: float


def warm_up() -> None:
    """Import what the package imports, once for all children."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", COLUMNS="200")
    import torch
    import transformers
    import typer.testing  # noqa: F401

    # A pool of threads does not survive a fork: a child would wait for it for ever.
    torch.set_num_threads(1)
    _ = transformers.AutoModelForCausalLM, transformers.LlamaConfig, transformers.PreTrainedTokenizerFast
    assert "roots_compress" not in sys.modules, "children would have the package as it is here"


def check(caught_by: Sequence[str], bug: Plant | None = None, *, seed: int = 0) -> Answer:
    """Run a check over a fresh copy of the repository, with a bug planted there or without.

    Args:
        caught_by: tests' ids, or `run` alone.
        bug: what to plant.
        seed: of the chain that `run` is.
    """
    with _copy() as root:
        if bug is not None:
            plant(bug, root)
        started = time.monotonic()
        code, output = _in_child(caught_by, root, seed)
        return Answer(code, output, time.monotonic() - started)


def fault(bug: Plant, answer: Answer) -> str | None:
    """Return why a bug does not count as caught; None where it was, by what should, for the stated reason."""
    if answer.code == 0:
        return "it went through unseen"
    if answer.code not in REFUSED[bug.caught_by == RUN]:
        return f"the check itself broke (exit code {answer.code}): {last_words(answer)}"
    if bug.caught_by == RUN:
        # The product's own errors have no traceback, and a terminal may fold their one sentence.
        spoken = "" if "Traceback" in answer.output else " ".join(answer.output.split())
    else:
        spoken = "\n".join(line for line in answer.output.splitlines() if line.startswith("E "))
    if not re.search(bug.says, spoken):
        return f"it was caught for another reason than {bug.says!r}: {last_words(answer)}"
    return None


def last_words(answer: Answer) -> str:
    """Return the end of what a check printed, on one line."""
    return " | ".join(line.strip() for line in answer.output.splitlines()[-12:] if line.strip())[-900:]


@contextmanager
def _copy() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "copy")
        root.mkdir()
        for name in COPIED:
            # Compiled files come along: Python compares their times with the sources'.
            shutil.copytree(ROOT / name, root / name)
        shutil.copy2(ROOT / "pyproject.toml", root)
        yield root


def _in_child(caught_by: Sequence[str], root: Path, seed: int) -> tuple[int, str]:
    """Fork, run the check there, and wait; a child that goes on for too long is killed."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = root.with_name("log")
    ended, alive = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_check(caught_by, root, log, seed)
    os.close(alive)
    # The child alone holds the pipe's other end, so its end is the pipe's.
    if not select.select([ended], [], [], MOST_SECONDS)[0]:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    os.close(ended)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), log.read_text(encoding="utf-8", errors="replace")


def _be_the_check(caught_by: Sequence[str], root: Path, log: Path, seed: int) -> NoReturn:
    """Be the check, in the copy and of the copy's modules, as a process group of its own."""
    code = 70
    try:
        stand_alone(log)
        os.chdir(root)
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        sys.path[:] = [str(root), *(path for path in sys.path if path and Path(path) != ROOT)]
        os.environ["PYTHONPATH"] = str(root)
        code = _carry_out(caught_by, seed)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _carry_out(caught_by: Sequence[str], seed: int) -> int:
    if RUN in caught_by:
        from tests.planted.chain import carry_out

        return carry_out(seed)
    import pytest

    return int(pytest.main(["-x", "-q", "--tb=short", "-p", "no:cacheprovider", *caught_by]))
