"""A disk that refuses one call, or every one from some moment on, or loses a write without saying so."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from roots_compress.errors import RootsError
from tests.faults.crashes import begun, go_on, recorded
from tests.faults.disk import Hook, Kind, Operation, interposed
from tests.faults.scenarios import Scenario, state_of

ERRORS = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EROFS)
REFUSED: tuple[Kind, ...] = ("create", "write", "fsync", "rename", "mkdir")
STUB_FILES = ("model.safetensors", "model.onnx", "state")
"""What the stub stages write by themselves; that a stage's own files are whole is the stage's to see to."""


class _Refusal(Hook):
    """Refuses the operation with this number, and, where it `lasts`, all from then on."""

    def __init__(self, number: int, error: int, *, lasts: bool) -> None:
        super().__init__()
        self._number, self._error, self._lasts = number, error, lasts
        self.fired = False

    def __call__(self, operation: Operation, perform: Callable[[], Any]) -> Any:
        due = len(self.done) == self._number and (self._lasts or not self.fired)
        if due and operation.kind in REFUSED:
            self.fired = True
            raise OSError(self._error, os.strerror(self._error), str(operation.path))
        return super().__call__(operation, perform)


class _LostWrite(Hook):
    """Says that a write was done of which nothing, or only the first half, was."""

    def __init__(self, number: int, *, half: bool) -> None:
        super().__init__()
        self._number, self._half = number, half
        self.fired = False

    def __call__(self, operation: Operation, perform: Callable[[], Any]) -> Any:
        if len(self.done) != self._number or operation.kind != "write":
            return super().__call__(operation, perform)
        self.fired = True
        kept = operation.data[: len(operation.data) // 2] if self._half else b""
        descriptor = os.open(operation.path, os.O_WRONLY)
        os.write(descriptor, kept)
        os.close(descriptor)
        return super().__call__(operation, lambda: len(operation.data))


def check_errors(scenario: Scenario, folder: Path, *, every: int = 1) -> int:
    """Refuse each operation of a scenario with each of four errors, once and for good; return how many times.

    Args:
        scenario: what is done.
        folder: an empty folder to do it in.
        every: try only one in so many combinations.

    Raises:
        AssertionError: an artifact was lost, an error came out that is not the program's own, or success was
            reported although the new state does not stand.
    """
    before = begun(scenario, folder)
    cases = list(_refusals(scenario, before, folder))[::every]
    for number, error, lasts in cases:
        where = (
            f"{scenario.name}, {errno.errorcode[error]} at operation {number}{' and after' if lasts else ''}"
        )
        _check(scenario, before, folder / "run", _Refusal(number, error, lasts=lasts), where)
    return len(cases)


def check_lost_writes(scenario: Scenario, folder: Path, *, every: int = 1) -> int:
    """Lose each write of the store, whole and by half; return how many times.

    Args:
        scenario: what is done.
        folder: an empty folder to do it in.
        every: try only one in so many writes.

    Raises:
        AssertionError: as `check_errors` does.
    """
    before = begun(scenario, folder)
    operations = recorded(scenario.act, shutil.copytree(before, folder / "whole"))
    writes = [
        number
        for number, operation in enumerate(operations)
        if operation.kind == "write" and operation.path.name not in STUB_FILES
    ][::every]
    for number in writes:
        for half in (False, True):
            where = f"{scenario.name}, {operations[number].path.name} lost at operation {number}"
            _check(scenario, before, folder / "run", _LostWrite(number, half=half), where)
    return 2 * len(writes)


def _refusals(scenario: Scenario, before: Path, folder: Path) -> Iterator[tuple[int, int, bool]]:
    operations = recorded(scenario.act, shutil.copytree(before, folder / "whole"))
    for number, operation in enumerate(operations):
        if operation.kind in REFUSED:
            for error in ERRORS:
                for lasts in (False, True):
                    yield number, error, lasts


def _check(scenario: Scenario, before: Path, run: Path, hook: _Refusal | _LostWrite, where: str) -> None:
    shutil.copytree(before, run)
    failure: Exception | None = None
    try:
        with interposed(hook):
            scenario.act(run)
    except (RootsError, OSError) as error:
        failure = error
    assert hook.fired, f"{where}: the injection did not fire"
    if isinstance(failure, OSError):
        # The stub stages write without the pipeline around them, which says so in the program's own words.
        assert Path(str(failure.filename)).name in STUB_FILES, f"{where}: {failure!r}"
    state = state_of(run)
    assert scenario.allows(state), f"{where}: {state}"
    assert failure or scenario.is_complete(state), f"{where}: reported as done"
    go_on(scenario, run)
    assert scenario.is_complete(state_of(run)), f"{where}: going on does not reach the end"
    shutil.rmtree(run)
