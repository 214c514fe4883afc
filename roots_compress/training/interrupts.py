"""Sections that Ctrl-C and SIGTERM must not tear."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDINGS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a run to save its state and leave. Windows has no SIGHUP."""


def end_at_once(number: int, _frame: FrameType | None = None) -> None:
    """End the program as a signal without a handler does.

    Handle a second signal by this rather than by `SIG_DFL`: Python complains, and drops the signal, where a
    handler is taken away while its signal waits to be handled.
    """
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Hold the first of `ENDINGS` back until the block is done, then deliver it; a second one ends at once.

    Yields a list that a signal is put into when it comes.

    A `KeyboardInterrupt` half way through an optimizer step would leave some weights updated and others not.
    Python runs its signal handlers in the main thread, so elsewhere there is nothing to hold back. Nor is
    there where a signal has no handler of Python's, or is to end the program at once.
    """
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield held
        return

    def hold(number: int, _frame: FrameType | None) -> None:
        if held:
            end_at_once(number)
        held.append(number)

    previous = {
        number: signal.signal(number, hold)
        for number in ENDINGS
        if callable(handler := signal.getsignal(number)) and handler is not end_at_once
    }
    try:
        yield held
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[0])
