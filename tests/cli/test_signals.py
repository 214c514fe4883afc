"""The first signal lets a verb save its state and leave with the signal's code; a second ends it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.shells import ROOT
from tests.tiny import TEXT

VERB = """
import time
from roots_compress.cli import app as cli

@cli.app.command("wait")
def wait() -> None:
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("saving", flush=True)
        if SLOW:
            time.sleep(60)
        raise

cli.main()
"""

EARLY = """
import os
from roots_compress.cli import app as cli

parse = cli.RootsGroup.make_context
cli.RootsGroup.make_context = lambda *given, **more: (os.kill(os.getpid(), NUMBER), parse(*given, **more))[1]
cli.main()
"""

IMPORTING = """
import os, sys
from roots_compress import __main__ as program
sys.addaudithook(lambda event, given: event == "import" and given[0] == "roots_compress.cli.help"
                 and os.kill(os.getpid(), signal.SIGINT))
program.main()
"""

LEAVING = """
import atexit, os
from roots_compress.__main__ import main
atexit.register(lambda: os.kill(os.getpid(), NUMBER))
main()
"""

STARTING = """
import os
os.environ["CTRL_C"] = "1"
from roots_compress.__main__ import main
main()
"""
FIRST = """
import os, signal, sys
if "CTRL_C" in os.environ and "--multiprocessing-fork" in sys.orig_argv:
    os.kill(os.getpid(), signal.SIGINT)
"""
"""What Python imports in every process before anything else."""

# A shell that started the tests in the background may have let them ignore both.
UNIGNORED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""


def start(first: str) -> subprocess.Popen[str]:
    """Start the verb after a line of code that comes first, and wait until it is at work."""
    process = subprocess.Popen(
        [sys.executable, "-c", UNIGNORED + first + VERB, "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_verb_with_its_code(number: signal.Signals, code: int) -> None:
    process = start("SLOW = False")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (code, "saving\n")
    assert "interrupted: nothing is kept; the same command begins again" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_verb_has_its_code_too(number: signal.Signals, code: int) -> None:
    program = f"{UNIGNORED}NUMBER = {int(number)}\n{EARLY}"
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def test_a_signal_while_the_program_is_imported_ends_it_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNIGNORED + IMPORTING, "doctor"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("verb", ["schema", "nonsense"])
def test_a_signal_while_the_program_is_taken_down_ends_it_without_a_traceback(
    verb: str, number: signal.Signals
) -> None:
    program = f"{UNIGNORED}NUMBER = {int(number)}\n{LEAVING}"
    done = subprocess.run(
        [sys.executable, "-c", program, verb], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (-number, False)
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    "verb",
    [
        "data prepare text --out corpus --min-words 2 --processes 2",
        pytest.param(
            "train --data text --hidden-size 32 --layers 1 --vocab-size 300 --steps 2 --batch-size 2 "
            "--train-block-size 16 --block-size 16 --windows 2 --processes 2 --threads 2 --run run",
            marks=[pytest.mark.slow, pytest.mark.processes],
        ),
    ],
)
def test_ctrl_c_is_heard_by_no_process_that_has_just_been_started(verb: str, tmp_path: Path) -> None:
    """A terminal sends it to all, and the one that leads ends the others."""
    (tmp_path / "text").mkdir()
    for number in range(8):
        (tmp_path / "text" / f"{number}.txt").write_text(f"Part {number}. " + TEXT * (number + 1))
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(FIRST)
    done = subprocess.run(
        [sys.executable, "-c", UNIGNORED + STARTING, *verb.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'first'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_a_second_signal_ends_it_at_once_whichever_the_first_was() -> None:
    process = start("SLOW = True")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize(("how", "code"), [("raise from", 143), ("raise", 143), ("before", 1)])
def test_an_interruption_that_a_library_turns_into_its_own_error_is_one(how: str, code: int) -> None:
    """As pybind11 does where a module is imported; an error that came before is none."""
    turned = {
        "raise from": "except BaseException as caught: raise ImportError('init') from caught",
        "raise": "except BaseException: raise ImportError('init')",
        "before": "finally: raise ImportError('init')",
    }
    sent = "pass" if how == "before" else "os.kill(os.getpid(), signal.SIGTERM); rest(60)"
    program = f"""
import os, signal, time
rest = time.sleep
def turn(_seconds):
    try: {sent}
    {turned[how]}
time.sleep = turn
SLOW = False
"""
    _, stderr = (process := start(program)).communicate(timeout=30)
    assert (process.returncode, "Traceback" in stderr, "interrupted: " in stderr) == (
        code,
        code == 1,
        code != 1,
    )


def test_two_signals_that_come_together_end_it_without_a_traceback() -> None:
    """Both wait to be handled where the first handler is called, as after a long call into a library."""
    process = start(
        "import os, time; SLOW = False\n"
        "time.sleep = lambda _seconds: os.system('kill -HUP $PPID; kill -TERM $PPID')\n"
    )
    _, stderr = process.communicate(timeout=30)
    # By the second signal, or by the thread that waits for one, where the main thread is late.
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert stderr == ""


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    process = start("signal.signal(signal.SIGHUP, signal.SIG_IGN); SLOW = False")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
