"""What closes with a verb is told how the verb ended, and may say something itself."""

from __future__ import annotations

import pytest

from roots_compress.cli.display.output import Output
from roots_compress.errors import GateMissedError, RootsError, StageError
from roots_compress.events import Event, Message


@pytest.mark.parametrize(("error", "failed"), [(GateMissedError("a"), False), (StageError("b"), True)])
def test_a_missed_gate_is_no_failed_run(error: RootsError, failed: bool) -> None:
    output, told = Output(), list[bool]()
    output.follow(lambda event: None, told.append)
    output.fail(error)
    assert told == [failed]


def test_what_closes_is_still_heard() -> None:
    output, heard = Output(), list[Event]()
    output.follow(heard.append, lambda failed: None)
    output.follow(lambda event: None, lambda failed: output.events.say("it failed"))
    output.end_display(failed=False)
    assert any(isinstance(event, Message) for event in heard)
