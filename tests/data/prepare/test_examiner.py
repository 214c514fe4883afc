"""Documents examined in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roots_compress.configs.prepare import PrepareConfig
from roots_compress.data.prepare import examiner
from roots_compress.data.prepare.examiner import Examiner, examining
from roots_compress.data.prepare.prepare import prepare
from roots_compress.errors import StageError
from roots_compress.events import Events
from tests.data.prepare.texts import contents, jsonl, prose

NONE = np.zeros(0, np.uint64)
SETTINGS = PrepareConfig.model_validate({"sources": [{"path": "a"}]})


def test_a_corpus_has_the_same_bytes_by_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examiner, "BATCH_CHARACTERS", 3000)
    begun: list[int] = []

    class Counted(ProcessPoolExecutor):
        def __init__(self, processes: int, *arguments: Any) -> None:
            begun.append(processes)
            super().__init__(processes, *arguments)

    monkeypatch.setattr(examiner, "ProcessPoolExecutor", Counted)
    texts = [prose(seed % 40) + ("" if seed % 3 else " cafe\u0301") for seed in range(60)]
    sources = [{"path": jsonl(tmp_path / f"{name}.jsonl", texts[at::2])} for at, name in enumerate("ab")]
    for processes in (1, 2):
        settings = PrepareConfig.model_validate({"sources": sources, "processes": processes})
        prepare(settings, tmp_path / str(processes) / "corpus", Events())
    one, two = (contents(tmp_path / str(processes) / "corpus") for processes in (1, 2))
    assert one == two
    assert begun == [2]


def test_a_killed_process_is_named_and_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examiner, "BATCH_CHARACTERS", 1)

    def texts() -> Iterator[str]:
        for number in range(1000):
            if number == 40:
                os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
            yield prose(number % 3)

    with (
        pytest.raises(StageError, match="a process that examines documents was killed"),
        examining(Examiner(SETTINGS, NONE), NONE, 2) as examine,
    ):
        list(examine(texts()))


KILLED = """
import multiprocessing, os, signal, sys
from tests.data.prepare.test_examiner import *
if __name__ == "__main__":
    with examining(Examiner(SETTINGS, NONE), NONE, 2) as examine:
        list(examine([prose(1)] * 2000))
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them() -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    children = [int(each) for each in ended.stdout.split()]
    assert len(children) == 2, ended.stderr
    deadline = time.monotonic() + 20
    while children and time.monotonic() < deadline:
        for child in list(children):
            with suppress(ProcessLookupError):
                os.kill(child, 0)
                continue
            children.remove(child)
        time.sleep(0.1)
    assert not children
