"""Targets that an encoder-decoder writes for its student: whose, how many, and that they are written once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.data.documents import SOURCE, TARGET, Document, Span
from roots_compress.events import Event, Events, WorkAdvanced
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.seq2seq import RootsForSeq2SeqLM
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation import teacher_targets
from roots_compress.training.distillation.teacher_targets import with_teacher_targets
from tests.specs import seq2seq
from tests.tiny import randomise, tiny_tokenizer

PAIRS = tuple(
    Document((Span(f"source {number}" * (1 + number % 3), False, SOURCE), Span("target", True, TARGET)))
    for number in range(48)
)


def teacher(seed: int = 0) -> Checkpoint:
    model = make_model(RootsConfig(spec=seq2seq())).eval()
    randomise(model, seed)
    return Checkpoint(model, tiny_tokenizer())


def ask(work: Path, checkpoint: Checkpoint | None = None, told: list[Event] | None = None) -> Sequence[str]:
    """Return the targets, three quarters of which the teacher writes."""
    events = Events(*([] if told is None else [told.append]))
    context = TrainingContext("cpu", 0, work, events)
    pairs = with_teacher_targets(PAIRS, checkpoint or teacher(), 0.75, context, block_size=24, limit=1000)
    assert [pair.named(SOURCE) for pair in pairs] == [pair.named(SOURCE) for pair in PAIRS]
    return [pair.named(TARGET) for pair in pairs]


def counts(told: list[Event]) -> list[int]:
    return [event.done for event in told if isinstance(event, WorkAdvanced)]


def test_an_interrupted_writing_goes_on_after_its_last_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "straight").mkdir()
    expected = ask(tmp_path / "straight")
    assert 30 < sum(target != "target" for target in expected) <= 36
    write: Any = RootsForSeq2SeqLM.generate
    calls = itertools.count()

    def stop(*arguments: object, **settings: object) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return write(*arguments, **settings)

    told: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(RootsForSeq2SeqLM, "generate", stop)
        with pytest.raises(KeyboardInterrupt):
            ask(tmp_path, told=told)
    assert counts(told) == [16, 32]
    told.clear()
    assert ask(tmp_path, told=told) == expected
    assert counts(told) == [36]
    told.clear()
    assert ask(tmp_path, told=told) == expected
    assert counts(told) == [], "nothing is written twice"


def test_what_another_teacher_wrote_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    expected = ask(tmp_path / "alone", teacher(1))
    assert ask(tmp_path) != expected
    assert ask(tmp_path, teacher(1)) == expected


def test_a_damaged_part_is_written_again(tmp_path: Path) -> None:
    expected = ask(tmp_path)
    path = tmp_path / teacher_targets.FOLDER / "00001.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert ask(tmp_path) == expected
    assert path.read_text() == whole
