"""A run killed between any two steps of the store holds the old stages or the new one, never a mixture."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from roots_compress.errors import StageError
from roots_compress.run.stages import read_stages
from roots_compress.run.store import RunFolder
from tests.run.stubs import add_stage, contents, make_key

STEPS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
"""The calls of `os` that change which names the run holds, or make a change last."""


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead process loses no write that the system has taken: only its steps count here, not their cost."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Killed(BaseException):
    """Stands for a SIGKILL: nothing of ours catches it, and no step works after it."""


@contextmanager
def killed_before(step: int, monkeypatch: pytest.MonkeyPatch, on_step: Callable[[], None]) -> Iterator[None]:
    """Let `step` of the store's steps happen, and none after them."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if done >= step:
                on_step()
            done += 1
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, counted(getattr(os, name)))
        yield


def die() -> None:
    raise Killed


def visible(path: Path) -> list[tuple[str, str]]:
    """What the next process sees after its recovery."""
    with RunFolder.open(path):
        return contents(path)


def three_stages(path: Path) -> None:
    with RunFolder.open(path) as run:
        add_stage(run, "baseline", "b")
        add_stage(run, "prune", "old")
        add_stage(run, "quantize", "q")


OLD = [("00-baseline", "b"), ("01-prune", "old"), ("02-quantize", "q")]
ACTIONS: dict[str, tuple[Callable[[RunFolder], object], list[list[tuple[str, str]]]]] = {
    "append": (lambda run: add_stage(run, "quantize", "new"), [OLD, [*OLD, ("03-quantize", "new")]]),
    "replace": (lambda run: add_stage(run, "prune", "new", at=1), [OLD, [OLD[0], ("01-prune", "new")]]),
    "replace by another kind": (
        lambda run: add_stage(run, "distill", "new", at=1),
        [OLD, [OLD[0], ("01-distill", "new")]],
    ),
    "replace all": (lambda run: add_stage(run, "baseline", "new", at=0), [OLD, [("00-baseline", "new")]]),
    "discard": (lambda run: run.discard(1), [OLD, OLD[:2], OLD[:1]]),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_killed_at_each_step_it_is_old_or_new(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act, allowed = ACTIONS[name]
    three_stages(tmp_path / "before")
    seen = []
    for step in range(1000):
        path = tmp_path / str(step)
        shutil.copytree(tmp_path / "before", path)
        try:
            with RunFolder.open(path) as run, killed_before(step, monkeypatch, die):
                act(run)
            finished = True
        except Killed:
            finished = False
        state = visible(path)
        assert state in allowed, f"killed before step {step}"
        seen.append(allowed.index(state))
        assert read_stages(path)[1] == [], f"killed before step {step}: a stage is left over"
        if finished:
            break
        with RunFolder.open(path) as run:  # the same command again reaches the same end
            if state != allowed[-1]:
                act(run)
            assert contents(path) == allowed[-1]
            assert not list(path.glob(".*.replaced")) + list(path.glob(".*.discarded"))
    assert finished
    assert step > 8, "the injection did not fire"
    assert seen == sorted(seen), "once new, never old again"


def test_killed_while_recovering_it_is_still_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_stages(tmp_path / "before")
    with RunFolder.open(tmp_path / "before") as run:
        run.set_aside(1)  # a commit that died just before its rename
    for step in range(1000):
        path = tmp_path / str(step)
        shutil.copytree(tmp_path / "before", path)
        try:
            with killed_before(step, monkeypatch, die):
                RunFolder.open(path).__exit__(None, None, None)
            finished = True
        except Killed:
            finished = False
        assert visible(path) == OLD
        if finished:
            break
    assert finished
    assert step > 3


def test_killed_while_beginning_again_the_work_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder.open(tmp_path / "before") as run:
        workspace = run.begin(0, "train", "train", make_key(None))
        (workspace.work / "step").write_text("7")
        (workspace.onnx / "model.onnx").write_text("half")
    for step in range(1000):
        path = tmp_path / str(step)
        shutil.copytree(tmp_path / "before", path)
        try:
            with killed_before(step, monkeypatch, die), RunFolder.open(path) as run:
                run.begin(0, "train", "train", make_key(None))
            finished = True
        except Killed:
            finished = False
        with RunFolder.open(path) as run:
            assert (run.begin(0, "train", "train", make_key(None)).work / "step").read_text() == "7"
        if finished:
            break
    assert finished


def test_a_failing_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space() -> None:
        raise OSError(28, "No space left on device")

    three_stages(tmp_path / "before")
    for step in range(1000):
        path = tmp_path / str(step)
        shutil.copytree(tmp_path / "before", path)
        try:
            with RunFolder.open(path) as run, killed_before(step, monkeypatch, no_space):
                add_stage(run, "prune", "new", at=1)
            break
        except StageError as error:
            message = str(error)
        assert "No space left on device" in message
        assert "Free some space" in message
        assert visible(path) in (OLD, [OLD[0], ("01-prune", "new")])
    assert step > 8


def test_every_file_is_synced_before_the_rename_that_publishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    real_rename = os.rename

    def fsync(descriptor: int) -> None:
        events.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))

    def rename(source: Path, target: Path) -> None:
        events.append(("rename", str(target)))
        real_rename(source, target)

    with RunFolder.open(tmp_path) as run:
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "rename", rename)
        stage = add_stage(run, "baseline", "b")
        monkeypatch.undo()
    published = events.index(("rename", str(stage.path)))
    before = {Path(path).name for event, path in events[:published] if event == "fsync"}
    assert before >= {"model.safetensors", "model.onnx", "checkpoint", "onnx", "stage"}
    assert before >= {".metrics.json.tmp", ".manifest.json.tmp"}
    assert events[published + 1] == ("fsync", str(tmp_path))


REPLACER = """
import os, signal, sys
from pathlib import Path
from roots_compress.run.store import RunFolder
from tests.run.stubs import add_stage
left = int(sys.argv[2])
def fatal(real):
    def call(*args, **kwargs):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*args, **kwargs)
    return call
with RunFolder.open(Path(sys.argv[1])) as run:
    for name in ("fsync", "rename", "replace", "unlink", "rmdir"):
        setattr(os, name, fatal(getattr(os, name)))
    add_stage(run, "prune", "new", at=1)
"""


@pytest.mark.parametrize("steps", [3, 11, 19, 20, 22, 24, 25, 35, 42])
def test_a_real_sigkill_leaves_old_or_new(tmp_path: Path, steps: int) -> None:
    three_stages(tmp_path)
    child = subprocess.run([sys.executable, "-c", REPLACER, str(tmp_path), str(steps)], check=False)
    assert child.returncode == -signal.SIGKILL, "the injection did not fire"
    assert visible(tmp_path) in (OLD, [OLD[0], ("01-prune", "new")])
