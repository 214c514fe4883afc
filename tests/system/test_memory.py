from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from roots_compress.errors import StageError
from roots_compress.system.cgroup import ControlGroups
from roots_compress.system.memory import available_memory, memory_errors


def test_memory_is_what_the_system_has_left_with_swap(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    nothing = ControlGroups((), (), (), ())
    assert available_memory(meminfo, nothing) is None
    meminfo.write_text("MemTotal:  900 kB\nMemAvailable:   100 kB\nSwapFree:   20 kB\nHugePages_Total:  0\n")
    assert available_memory(meminfo, nothing) == 120 * 1024


@pytest.mark.parametrize("take", [lambda: torch.empty(1 << 50), lambda: bytearray(1 << 60)])
def test_memory_that_is_not_there_is_no_traceback(take: Callable[[], object]) -> None:
    with pytest.raises(StageError, match="memory ran out") as caught, memory_errors():
        take()
    assert caught.value.transient


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors():
        raise RuntimeError("shapes do not fit")
