"""Long calls into libraries, and how a program still answers to signals while it waits for one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")

WAIT_SECONDS = 0.1
"""A wait without an end cannot be interrupted on every system."""
GRACE_SECONDS = 0.2
"""What the main thread gets to end the program in its own way before it is ended."""

_running: set[threading.Thread] = set()


def interruptible(work: Callable[[], Result]) -> Result:
    """Return what a function returns, computed in a thread, so that a signal is handled meanwhile.

    Python handles signals in the main thread, between two of its own steps. A library that computes for
    seconds without returning would hold them back. Where the handler raises, the thread is left behind; the
    program must then end by `os._exit`, as `left_behind` tells.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    results: list[Result] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            _running.discard(thread)
            done.set()

    thread = threading.Thread(target=run, daemon=True)
    _running.add(thread)
    thread.start()
    while not done.wait(WAIT_SECONDS):
        pass
    if errors:
        raise errors[0]
    return results[0]


def left_behind() -> bool:
    """Return whether a call goes on that nobody waits for: an ordinary exit could end in an abort."""
    return any(thread.is_alive() for thread in _running)


@contextmanager
def starting_processes() -> Iterator[None]:
    """Let processes that are started in the block hold Ctrl-C back, until they unblock it.

    A terminal sends it to every process. One that still imports would write a traceback beside the message of
    the process that started it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # As it starts with the first of them, it unblocks Ctrl-C.
    # What this thread blocks, another one of this process hears: here Ctrl-C is not held back.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def end_with_parent() -> None:
    """From now on, end this process as soon as the one that started it has ended, killed or not."""
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def end_at_second_signal(endings: Container[int]) -> None:
    """From now on, let a second signal of `endings` end the program, whatever its main thread is in.

    The handlers that Python runs wait for the main thread; this one does not. It needs a moment without the
    interpreter's lock, which libraries give back while they compute.
    """
    if os.name != "posix":
        return  # Windows ends a program at Ctrl-Break.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second, args=(reading, endings), daemon=True).start()


def _end_at_second(reading: int, endings: Container[int]) -> None:
    seen = False
    while numbers := os.read(reading, 1):
        if numbers[0] in endings:
            if seen:
                time.sleep(GRACE_SECONDS)
                os._exit(128 + numbers[0])
            seen = True
