"""Sections that Ctrl-C and SIGTERM must not interrupt."""

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

    Use this for a second signal instead of `SIG_DFL`: if a handler is removed while its signal is pending,
    Python complains and drops the signal.
    """
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Delay the first of `ENDINGS` to the end of the block; a second one ends the program at once.

    Yields a list to which an arriving signal is added.

    A `KeyboardInterrupt` inside an optimizer step would leave some weights updated and others not.
    Python runs its signal handlers in the main thread, so other threads delay nothing. Nor is a signal
    delayed that has no Python handler, or that ends the program at once.
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
