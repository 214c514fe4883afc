"""The first signal lets a verb save its state and leave with the signal's code; a second ends it at once."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

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


def test_a_second_signal_ends_it_at_once_whichever_the_first_was() -> None:
    process = start("SLOW = True")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM


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
