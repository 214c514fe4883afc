"""Runs a check over a copy of the repository, clean or with a bug in it, and judges what it says.

A check runs in a forked child that inherits the libraries and nothing of the package, so it costs what the
check itself costs. The process that forks must therefore not have imported the package.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from tests.forked import share_with_children, stand_alone
from tests.planted.bug import Bug, FailingTest, Guard
from tests.symbols import ROOT, find_symbol

COPIED = ("roots_compress", "tests", "recipes", "docs")
MOST_SECONDS = 600.0


@dataclass(frozen=True)
class Failure:
    """The error that ended a check."""

    classes: tuple[str, ...]
    """Its class and the classes that it derives from."""
    frames: tuple[str, ...]
    """The package's functions that it came through, by dotted name."""


@dataclass(frozen=True)
class Answer:
    """What a check came to."""

    code: int
    """0 where it passed, 1 where it failed; others stand for a check that could not be made at all."""
    failure: Failure | None
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
    share_with_children()


def check(tests: Sequence[FailingTest], bug: Bug | None = None) -> Answer:
    """Run tests over a fresh copy of the repository, with a bug planted there or without."""
    return _answer(lambda: _run_tests([test.id for test in tests]), bug)


def check_chain(bug: Bug | None = None, *, seed: int = 0) -> Answer:
    """Run the ordinary chain over a fresh copy of the repository, with a bug planted there or without."""
    return _answer(lambda: _run_chain(seed), bug)


def _answer(make: Callable[[], Failure | int], bug: Bug | None) -> Answer:
    with _copy() as root:
        if bug is not None:
            bug.plant(root)
        started = time.monotonic()
        code, failure, output = _in_child(make, root)
        return Answer(code, failure, output, time.monotonic() - started)


def fault(bug: Bug, answer: Answer) -> str | None:
    """Return why a bug does not count as caught; None where it was, by what should, with the stated error."""
    if answer.code == 0:
        return "it went through unseen"
    if answer.code != 1 or answer.failure is None:
        return f"the check itself broke (exit code {answer.code}): {last_words(answer)}"
    wanted, found = bug.caught_by, answer.failure
    if wanted.error not in found.classes:
        return f"it was caught by a {found.classes[0]} and not by a {wanted.error}: {last_words(answer)}"
    if isinstance(wanted, Guard) and find_symbol(wanted.name).name not in found.frames:
        return f"{found.frames[-1]} caught it, and not {wanted.name}: {last_words(answer)}"
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


def _in_child(make: Callable[[], Failure | int], root: Path) -> tuple[int, Failure | None, str]:
    """Fork, make the check there, and wait; a child that goes on for too long is killed."""
    sys.stdout.flush()
    sys.stderr.flush()
    log, failure = root.with_name("log"), root.with_name("failure")
    ended, alive = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_check(make, root, log, failure)
    os.close(alive)
    # The child alone holds the pipe's other end, so its end is the pipe's.
    if not select.select([ended], [], [], MOST_SECONDS)[0]:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    os.close(ended)
    _, status = os.waitpid(child, 0)
    told = json.loads(failure.read_text(encoding="utf-8")) if failure.exists() else None
    found = Failure(tuple(told["classes"]), tuple(told["frames"])) if told else None
    return os.waitstatus_to_exitcode(status), found, log.read_text(encoding="utf-8", errors="replace")


def _be_the_check(make: Callable[[], Failure | int], root: Path, log: Path, failure: Path) -> NoReturn:
    """Be the check, in the copy and of the copy's modules, as a process group of its own."""
    code = 70
    try:
        stand_alone(log)
        os.chdir(root)
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        sys.path[:] = [str(root), *(path for path in sys.path if path and Path(path) != ROOT)]
        os.environ["PYTHONPATH"] = str(root)
        for name in [name for name in os.environ if name.startswith("ROOTS_TESTS_")]:
            del os.environ[name]  # the address of a server that has the package as it is here
        ending = make()
        if isinstance(ending, Failure):
            failure.write_text(json.dumps(asdict(ending)), encoding="utf-8")
        code = 1 if isinstance(ending, Failure) else ending
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run_chain(seed: int) -> Failure | int:
    from tests.planted.chain import carry_out

    error = carry_out(seed)
    return _failure(error) if error else 0


def _run_tests(ids: list[str]) -> Failure | int:
    """Run tests up to the first that fails."""
    import pytest

    failures: list[Failure] = []

    class Listener:
        def pytest_exception_interact(self, call: Any, report: Any) -> None:
            if isinstance(report, pytest.TestReport):
                failures.append(_failure(call.excinfo.value))

    arguments = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider", *ids]
    code = int(pytest.main(arguments, plugins=[Listener()]))
    return failures[0] if code == 1 and failures else code


def _failure(error: BaseException) -> Failure:
    classes = tuple(kind.__name__ for kind in type(error).__mro__)
    return Failure(classes, tuple(_frames(error.__traceback__)))


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        module, code = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_frame.f_code
        if module.partition(".")[0] == "roots_compress":
            yield f"{module}.{code.co_qualname.replace('.<locals>', '')}"
        trace = trace.tb_next
