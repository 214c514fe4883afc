"""Training text that the teacher writes: how much, whose, and that it is written once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.calibration import own_text
from roots_compress.calibration.own_text import Written, own_text_in_parts
from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.data.windows import IGNORED_LABEL, PackedWindows
from roots_compress.errors import StageError
from roots_compress.events import Events
from roots_compress.models.drawing import drawn
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation import teacher_text
from roots_compress.training.distillation.teacher_text import with_teacher_text
from tests.tiny import tiny_checkpoint
from tests.training.text import windows

GIVEN = windows()


def ask(
    work: Path,
    teacher: Checkpoint | None = None,
    given: PackedWindows = GIVEN,
    ratio: float = 0.25,
    seed: int = 0,
    limit: int = 100,
) -> PackedWindows:
    return with_teacher_text(
        given,
        teacher or tiny_checkpoint(),
        ratio,
        TrainingContext("cpu", seed, work, Events()),
        limit=limit,
    )


def count_writing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of how many windows a model writes at a time."""
    written: list[int] = []

    def counted(*arguments: Any, **settings: Any) -> Iterator[Written]:
        for part in own_text_in_parts(*arguments, **settings):
            written.append(len(part.ids_NT))
            yield part

    monkeypatch.setattr(teacher_text, "own_text_in_parts", counted)
    return written


@pytest.mark.parametrize(("ratio", "count"), [(0.25, 4), (0.5, 12), (0.75, 36), (0.01, 0)])
def test_the_ratio_is_of_the_whole(tmp_path: Path, ratio: float, count: int) -> None:
    both = ask(tmp_path, ratio=ratio)
    assert both.input_ids.shape == (12 + count, 16)
    for name in ("input_ids", "targets", "segment_ids"):
        assert np.array_equal(getattr(both, name)[:12], getattr(GIVEN, name)), name
        assert getattr(both, name).shape == both.input_ids.shape
        assert getattr(both, name).dtype == getattr(GIVEN, name).dtype


def test_no_more_is_written_than_is_read(tmp_path: Path) -> None:
    assert ask(tmp_path, ratio=0.999999, limit=3).input_ids.shape == (15, 16)


def test_what_the_teacher_did_not_write_is_not_scored(tmp_path: Path) -> None:
    teacher = tiny_checkpoint()
    own = ask(tmp_path, teacher)[12:]
    assert (own.input_ids[:, 0] == teacher.tokenizer.bos_token_id).all()
    assert (own.targets[:, [0, -1]] == IGNORED_LABEL).all()
    assert np.array_equal(own.targets[:, 1:-1], own.input_ids[:, 2:])
    assert not own.segment_ids.any()


def test_it_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = count_writing(monkeypatch)
    first, second = ask(tmp_path), ask(tmp_path)
    assert written == [4]
    for name in ("input_ids", "targets", "segment_ids"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_a_long_text_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = windows(count=40, tokens=64)
    written = count_writing(monkeypatch)
    first, second = (ask(tmp_path, given=given, ratio=0.5).input_ids for _ in range(2))
    assert written == [40]
    assert np.array_equal(first, second)


def other_weights() -> Checkpoint:
    return tiny_checkpoint(seed=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda work: ask(work, other_weights()),
        lambda work: ask(work, seed=1),
        lambda work: ask(work, given=windows(count=16)),
        lambda work: ask(work, given=windows(tokens=24)),
    ],
    ids=["teacher", "seed", "count", "length"],
)
def test_anothers_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], PackedWindows]
) -> None:
    (tmp_path / "alone").mkdir()
    expected = change(tmp_path / "alone").input_ids
    ask(tmp_path)
    written = count_writing(monkeypatch)
    assert np.array_equal(change(tmp_path).input_ids, expected)
    assert len(written) == 1


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "another document", "a folder of that name"])
def test_a_damaged_one_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    expected = ask(tmp_path).input_ids
    (path,) = (tmp_path / teacher_text.FOLDER).iterdir()
    text = path.read_text()
    written = count_writing(monkeypatch)
    if damage == "a folder of that name":
        path.unlink()
        path.mkdir()
        with pytest.raises(StageError, match="cannot write"):
            ask(tmp_path)
        return
    changed = json.loads(text)
    changed["content"]["part"]["tokens"][0][5] += 1
    path.write_text(
        {
            "changed": json.dumps(changed),
            "cut": text[: len(text) // 2],
            "empty": "",
            "another document": "[1]",
        }[damage]
    )
    assert np.array_equal(ask(tmp_path).input_ids, expected)
    assert written == [4]
    assert path.read_text() == text


def test_an_interrupted_writing_goes_on_after_its_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = windows(count=50)
    (tmp_path / "straight").mkdir()
    expected = ask(tmp_path / "straight", given=given, ratio=0.75).input_ids
    written = count_writing(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(own_text, "drawn", interrupting(after=14 + 5))
        with pytest.raises(KeyboardInterrupt):
            ask(tmp_path, given=given, ratio=0.75)
    assert written == [64]
    assert np.array_equal(ask(tmp_path, given=given, ratio=0.75).input_ids, expected)
    assert written == [64, 36]


def interrupting(after: int) -> Callable[[torch.Tensor, torch.Generator], torch.Tensor]:
    """Return what draws tokens so many times, until Ctrl-C is pressed."""
    calls = itertools.count()

    def draw(logits_RV: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if next(calls) == after:
            raise KeyboardInterrupt
        return drawn(logits_RV, generator)

    return draw


def test_a_teacher_that_predicts_nan_is_refused(tmp_path: Path) -> None:
    teacher = tiny_checkpoint()
    with torch.no_grad():
        teacher.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="predicts NaN"):
        ask(tmp_path, teacher)
    assert list(tmp_path.iterdir()) == []
