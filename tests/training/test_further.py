"""Training that goes on from a model: what made it no better is undone, and said."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.prune import PruneConfig, RecoveryConfig
from roots_compress.configs.sparsify import AdaptationConfig, SparsifyConfig
from roots_compress.configs.train import TrainConfig
from roots_compress.configs.training import TrainingConfig
from roots_compress.configs.tune import TuneConfig
from roots_compress.data.documents import Document, Span, TextSplit
from roots_compress.errors import StageError
from roots_compress.events import Events
from roots_compress.models.ops.heads import EmbeddingHead
from roots_compress.results import Json
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.registry import stage_of
from roots_compress.training import further
from roots_compress.training.distillation.teach import teach
from roots_compress.training.summary import FitSummary
from tests.heard import Heard
from tests.specs import bert
from tests.tiny import TEXT, tiny_checkpoint, tiny_model, tiny_tokenizer

TRAINING = TrainingConfig(steps=6, batch_size=4, block_size=32, learning_rate=2e-3)
HARM = TRAINING.model_copy(update={"learning_rate": 0.3})
SPLIT = TextSplit(tuple(Document.plain(f"{TEXT} {number}") for number in range(12)), (), "tiny")
Config = PruneConfig | SparsifyConfig | TrainConfig | TuneConfig


def pruning(training: TrainingConfig | None, **more: object) -> PruneConfig:
    calibration = CalibrationConfig(windows=8, block_size=32)
    recovery = None if training is None else RecoveryConfig.model_validate({"training": training, **more})
    return PruneConfig(ratio=0.5, calibration=calibration, own_windows=0, multiple_of=4, recovery=recovery)


def sparsifying(training: TrainingConfig) -> SparsifyConfig:
    calibration = CalibrationConfig(windows=2, block_size=32)
    return SparsifyConfig(
        size=4, blocks=2, calibration=calibration, adaptation=AdaptationConfig(training=training)
    )


STAGES: dict[str, tuple[Callable[[TrainingConfig], Config], str | None]] = {
    "prune": (pruning, "recovery"),
    "prune, low rank": (lambda training: pruning(training, rank=2), "recovery"),
    "sparsify": (sparsifying, "adaptation"),
    "train": (lambda training: TrainConfig(training=training), None),
    "tune": (lambda training: TuneConfig(training=training, answers=0), None),
}
"""Each kind of training that goes on from a model, and the key of its notes."""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model that knows the text well, to which a training can do harm."""
    training = TRAINING.model_copy(update={"steps": 60, "learning_rate": 1e-2})
    context = StageContext(SPLIT, "cpu", 0, tmp_path_factory.mktemp("learned"), Events(), new=True)
    config = TrainConfig(training=training)
    return stage_of(config).run(config, tiny_checkpoint(), context).checkpoint


def run(
    config: Config,
    work: Path,
    checkpoint: Checkpoint,
    *,
    text: TextSplit = SPLIT,
    events: Events | None = None,
) -> StageOutcome:
    context = StageContext(text, "cpu", 0, work, events or Events())
    return stage_of(config).run(config, checkpoint, context)


def judged_in(notes: Json, key: str | None) -> dict[str, Json]:
    assert isinstance(notes, dict)
    within = notes if key is None else notes[key]
    assert isinstance(within, dict)
    found = within["judged"]
    assert isinstance(found, dict)
    return found


def same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


@pytest.mark.parametrize("kind", STAGES)
def test_a_training_that_does_harm_is_undone_and_said(kind: str, learned: Checkpoint, tmp_path: Path) -> None:
    make, key = STAGES[kind]
    heard = Heard()
    outcome = run(make(HARM), tmp_path, learned, events=heard)
    judged = judged_in(outcome.notes, key)
    assert judged["loss_after"] > judged["loss_before"]  # type: ignore[operator]
    assert judged["kept"] == "before"
    cut = kind.startswith("prune")
    before = run(pruning(None), tmp_path, learned).checkpoint if cut else learned
    assert same_weights(outcome.checkpoint, before)
    caption = stage_of(make(HARM)).caption(outcome.notes)
    assert caption is not None
    assert "the weights from before are kept" in caption
    assert "the weights from before are kept" in heard.text


@pytest.mark.parametrize("kind", STAGES)
def test_a_training_that_does_good_is_kept(kind: str, tmp_path: Path) -> None:
    make, key = STAGES[kind]
    outcome = run(make(TRAINING), tmp_path, tiny_checkpoint())
    judged = judged_in(outcome.notes, key)
    assert judged["loss_after"] < judged["loss_before"]  # type: ignore[operator]
    assert judged["kept"] == "after"
    caption = stage_of(make(TRAINING)).caption(outcome.notes)
    assert caption is None or "kept" not in caption


def test_what_judges_is_not_learnt(
    learned: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TextSplit] = []

    def noted(student: Any, teacher: Any, text: TextSplit, *rest: Any, **named: Any) -> FitSummary:
        seen.append(text)
        return teach(student, teacher, text, *rest, **named)

    judged: list[Sequence[Document]] = []
    windows = further.Judge._windows

    def note(self: further.Judge, documents: Sequence[Document], limit: int) -> object:
        if limit > 1:
            judged.append(documents)
        return windows(self, documents, limit)

    monkeypatch.setattr(further, "teach", noted)
    monkeypatch.setattr(further.Judge, "_windows", note)
    run(pruning(TRAINING), tmp_path, learned)
    learnt, held = seen[0].train, judged[-1]
    assert held
    assert not set(learnt) & set(held)
    assert set(learnt) | set(held) == set(SPLIT.train)


def test_windows_that_score_nothing_are_not_counted(learned: Checkpoint, tmp_path: Path) -> None:
    silent = {int(index) for index in np.random.default_rng(0).permutation(20)[:2]}
    documents = tuple(Document((Span(f"{TEXT} {number}", number not in silent),)) for number in range(20))
    text = TextSplit(documents, (), "twenty documents, of which nothing is to be learnt in two")
    judged = judged_in(run(TrainConfig(training=TRAINING), tmp_path, learned, text=text).notes, None)
    assert judged["windows"] == 2  # Of twelve: those with the end of a document, which is scored.


def test_a_last_step_that_broke_the_model_is_undone(learned: Checkpoint, tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"steps": 1, "learning_rate": 1e39, "warmup_ratio": 0.0})
    outcome = run(TrainConfig(training=training), tmp_path, learned)
    judged = judged_in(outcome.notes, None)
    assert judged["loss_after"] is None
    assert judged["kept"] == "before"
    assert same_weights(outcome.checkpoint, learned)
    json.dumps(judged, allow_nan=False)
    caption = stage_of(TrainConfig(training=training)).caption(outcome.notes)
    assert caption is not None
    assert "the weights from before are kept" in caption


@pytest.mark.slow
@pytest.mark.processes
def test_several_processes_keep_the_same_weights(learned: Checkpoint, tmp_path: Path) -> None:
    training = HARM.model_copy(update={"processes": 2})
    outcome = run(TrainConfig(training=training), tmp_path, learned)
    assert judged_in(outcome.notes, None)["kept"] == "before"
    assert same_weights(outcome.checkpoint, learned)


def test_too_little_text_is_learnt_without_a_judge(learned: Checkpoint, tmp_path: Path) -> None:
    text = TextSplit((Document.plain("quick " * 8),), (), "one short text")
    notes = run(TrainConfig(training=TRAINING), tmp_path, learned, text=text).notes
    assert "judged" not in notes
    assert notes["steps"] == TRAINING.steps


def test_vectors_are_judged_by_their_distance_from_the_teacher_s(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny_model(spec=bert(EmbeddingHead())), tiny_tokenizer())
    notes = run(pruning(HARM), tmp_path, checkpoint).notes
    judged = judged_in(notes, "recovery")
    assert judged["kept"] == "before"
    assert 0 < judged["loss_before"] < judged["loss_after"] < 2  # type: ignore[operator]


def test_a_disk_without_room_is_said(
    learned: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(further, "save_file", full)
    with pytest.raises(StageError, match="cannot be written") as caught:
        run(pruning(TRAINING), tmp_path, learned)
    assert caught.value.transient
