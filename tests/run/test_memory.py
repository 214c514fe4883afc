from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from roots_compress.errors import StageError
from roots_compress.run.memory import available_memory, memory_errors


def test_memory_is_read_within_the_containers_limit(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert available_memory(meminfo, tmp_path) is None
    meminfo.write_text("MemTotal:  900 kB\nMemAvailable:   100 kB\nSwapFree:   20 kB\nHugePages_Total:  0\n")
    assert available_memory(meminfo, tmp_path) == 120 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.stat").write_text("anon 1024\nfile 999999\n")
    assert available_memory(meminfo, tmp_path) == 120 * 1024
    (tmp_path / "memory.max").write_text(f"{50 * 1024}\n")
    assert available_memory(meminfo, tmp_path) == 49 * 1024


@pytest.mark.parametrize("take", [lambda: torch.empty(1 << 50), lambda: bytearray(1 << 60)])
def test_memory_that_is_not_there_is_no_traceback(take: Callable[[], object]) -> None:
    with pytest.raises(StageError, match="memory ran out") as caught, memory_errors():
        take()
    assert caught.value.transient


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors():
        raise RuntimeError("shapes do not fit")
