"""The processes that a training starts itself, on its own machine, by PyTorch's launcher."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

from roots_compress.system.background import end_with_parent, starting_processes
from roots_compress.training.interrupts import ENDINGS


class Followers:
    """Processes 1 and up of a team; within a `with` block they run."""

    def __init__(self, size: int, port: int) -> None:
        self._size, self._port = size, port

    def __enter__(self) -> Self:
        from torch.multiprocessing.spawn import start_processes

        # A fresh interpreter: a forked copy of a process with threads may hang.
        with starting_processes():
            context = start_processes(
                _follow,
                (self._size, self._port),
                self._size - 1,
                join=False,
                daemon=True,
                start_method="spawn",
            )
        assert context is not None
        self._processes = context.processes
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if kind is None:
                process.join(timeout=LEAVING_SECONDS)
            if process.is_alive():
                process.kill()
            process.join()

    def ended(self) -> str | None:
        """Return how a process ended unexpectedly; None if all are running."""
        for rank, process in enumerate(self._processes, 1):
            if process.exitcode is not None:
                code = process.exitcode
                how = (
                    f"was killed by {signal.Signals(-code).name}"
                    if code < 0
                    else f"left with exit code {code}"
                )
                return f"process {rank} of {self._size} {how}"
        return None


LEAVING_SECONDS = 10.0
"""Seconds for a finished process to exit."""


def _follow(index: int, size: int, port: int) -> None:
    """Run as process `index + 1`."""
    from torch._C._distributed_c10d import TCPStore
    from torch.distributed import DistError

    from roots_compress.training.parallel.launch import OWN, serve

    _leave_signals_to(os.getppid())
    end_with_parent()  # PyTorch would wait ten minutes for a killed process 0.
    sys.stdin = None
    with suppress(DistError):  # process 0 is gone
        store = TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)
        serve(store, OWN, index + 1, size, index + 1, size)


def _leave_signals_to(parent: int) -> None:
    """Leave signals that end a run to process 0, unless it has ended.

    A terminal sends Ctrl-C to all. During a step such a signal is delayed, and all stop together after it.
    """

    def heard(_number: int, _frame: FrameType | None) -> None:
        if os.getppid() != parent:
            os._exit(1)

    for number in ENDINGS:
        signal.signal(number, heard)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
