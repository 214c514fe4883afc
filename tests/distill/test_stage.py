"""The `distill` stage on real documents: it learns, it resumes, it says what it did."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from roots_compress.data.documents import Document, TextSplit
from roots_compress.distill.config import DistillConfig
from roots_compress.distill.stage import distill
from roots_compress.errors import InputError
from roots_compress.model.checkpoint import Checkpoint
from roots_compress.training.config import DistillLossConfig, TrainingConfig
from roots_compress.training.outcome import StageOutcome
from tests.tiny import TEXT as SENTENCES
from tests.tiny import tiny_checkpoint, tiny_layer

TEXT = TextSplit(tuple(Document.plain(line * 20) for line in SENTENCES.splitlines()), (), "four lines")
CONFIG = DistillConfig(
    student="small",
    loss=DistillLossConfig(hidden_weight=0.1),
    training=TrainingConfig(steps=30, batch_size=4, block_size=32, learning_rate=3e-3, precision="fp32"),
)


def teacher() -> Checkpoint:
    return tiny_checkpoint(layers=[tiny_layer()] * 4)


def run(work: Path, checkpoint: Checkpoint, config: DistillConfig = CONFIG) -> StageOutcome:
    console = Console(file=io.StringIO())
    return distill(config, checkpoint, TEXT, device="cpu", seed=0, work=work, console=console)


def test_the_student_is_smaller_and_nearer_its_teacher_than_it_began(tmp_path: Path) -> None:
    checkpoint = teacher()
    before = copy.deepcopy(checkpoint.model.state_dict())
    (tmp_path / "one").mkdir()
    one_step = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"steps": 1})})
    first, last = run(tmp_path / "one", checkpoint, one_step), run(tmp_path, checkpoint)

    assert len(last.checkpoint.model.config.layers) == 2
    assert last.checkpoint.tokenizer is checkpoint.tokenizer
    assert not last.checkpoint.model.training
    first_losses, last_losses = first.notes["losses"], last.notes["losses"]
    assert isinstance(first_losses, dict)
    assert isinstance(last_losses, dict)
    assert set(last_losses) == {"cross_entropy", "kl", "hidden"}
    assert float(str(last_losses["kl"])) < 0.7 * float(str(first_losses["kl"]))
    assert last.notes["teacher_layers"] == [0, 3]
    assert last.notes["tokens"] == 30 * 4 * 32

    after = checkpoint.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad for p in checkpoint.model.parameters())


def test_a_teacher_in_half_precision_has_a_student_in_float32(tmp_path: Path) -> None:
    checkpoint = teacher()
    checkpoint.model.half()
    one_step = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"steps": 1})})
    student = run(tmp_path, checkpoint, one_step).checkpoint.model
    assert {p.dtype for p in student.parameters()} == {torch.float32}


def test_the_stage_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir()
    broken.mkdir()
    expected = run(straight, teacher()).checkpoint.model.state_dict()

    stopping = teacher()
    calls = iter(range(100))

    def hook(*_: object) -> None:
        if next(calls) == 17:
            raise KeyboardInterrupt

    stopping.model.model.register_forward_pre_hook(hook)
    with pytest.raises(KeyboardInterrupt):
        run(broken, stopping)
    assert (broken / "step-00000017").is_dir()
    resumed = run(broken, teacher()).checkpoint.model.state_dict()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_an_unknown_student_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no student preset"):
        run(tmp_path, teacher(), DistillConfig(student="huge"))
    assert list(tmp_path.iterdir()) == []


def test_an_objective_without_a_term_is_refused() -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        DistillLossConfig(cross_entropy_weight=0.0, kl_weight=0.0)
