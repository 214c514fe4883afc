"""The `distill` stage on real documents: it learns, it resumes, it says what it did."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.data.packing import pack
from roots_compress.errors import InputError
from roots_compress.events import Events
from roots_compress.models.heads import RootsWithHead
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.distill.stage import distill
from roots_compress.training.distillation import teach, teacher_text
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.distillation.teacher_cache import TeacherCache
from roots_compress.training.loop import fit
from roots_compress.training.running import TrainingRun
from tests.tiny import TEXT as SENTENCES
from tests.tiny import tiny_checkpoint, tiny_layer, tiny_tokenizer

TEXT = TextSplit(tuple(Document.plain(line * 20) for line in SENTENCES.splitlines()), (), "four lines")
CONFIG = DistillConfig(
    student="small",
    loss=DistillLossConfig(hidden_weight=0.1),
    training=TrainingConfig(steps=8, batch_size=4, block_size=32, learning_rate=3e-3, precision="fp32"),
)


def teacher() -> Checkpoint:
    return tiny_checkpoint(layers=[tiny_layer()] * 4)


def lasting(steps: int, config: DistillConfig = CONFIG) -> DistillConfig:
    return config.model_copy(update={"training": config.training.model_copy(update={"steps": steps})})


def run(work: Path, checkpoint: Checkpoint, config: DistillConfig = CONFIG) -> StageOutcome:
    events = Events()
    return distill(config, checkpoint, StageContext(TEXT, "cpu", 0, work, events))


def test_the_student_is_smaller_and_nearer_its_teacher_than_it_began(tmp_path: Path) -> None:
    checkpoint = teacher()
    before = copy.deepcopy(checkpoint.model.state_dict())
    (tmp_path / "one").mkdir()
    first = run(tmp_path / "one", checkpoint, lasting(1))
    last = run(tmp_path, checkpoint, lasting(30))

    assert last.checkpoint.model.config.num_hidden_layers == 2
    assert last.checkpoint.tokenizer is checkpoint.tokenizer
    assert not last.checkpoint.model.training
    first_losses, last_losses = first.notes["losses"], last.notes["losses"]
    assert isinstance(first_losses, dict)
    assert isinstance(last_losses, dict)
    assert set(last_losses) == {"cross_entropy", "divergence", "hidden"}
    assert float(str(last_losses["divergence"])) < 0.7 * float(str(first_losses["divergence"]))
    assert last.notes["teacher_layers"] == [0, 3]
    assert last.notes["tokens"] == 30 * 4 * 32

    after = checkpoint.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad for p in checkpoint.model.parameters())


def test_a_teacher_in_half_precision_has_a_student_in_float32(tmp_path: Path) -> None:
    checkpoint = teacher()
    checkpoint.model.half()
    student = run(tmp_path, checkpoint, lasting(1)).checkpoint.model
    assert {p.dtype for p in student.parameters()} == {torch.float32}


def test_the_stage_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir()
    broken.mkdir()
    expected = run(straight, teacher()).checkpoint.model.state_dict()

    stopping = teacher()
    calls = iter(range(100))

    def hook(*_: object) -> None:
        if next(calls) == 5:
            raise KeyboardInterrupt

    stopping.model.model.register_forward_pre_hook(hook)
    with pytest.raises(KeyboardInterrupt):
        run(broken, stopping)
    assert (broken / "step-00000005").is_dir()
    resumed = run(broken, teacher()).checkpoint.model.state_dict()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def cached(**overrides: Any) -> DistillConfig:
    return CONFIG.model_copy(update={"loss": DistillLossConfig(**{"top_k": 8, **overrides})})


def test_a_cached_teacher_is_asked_once_and_then_leaves_the_memory(tmp_path: Path) -> None:
    checkpoint, windows_read = teacher(), 0

    def count(_module: object, _arguments: object, keywords: dict[str, Any]) -> None:
        nonlocal windows_read
        windows_read += len(keywords["input_ids"])

    checkpoint.model.model.register_forward_pre_hook(count, with_kwargs=True)
    outcome = run(tmp_path, checkpoint, lasting(30, cached()))
    available = len(pack(TEXT.train, tiny_tokenizer(), 32, seed=0).input_ids)
    assert windows_read == available < 30 * 4
    assert {p.device.type for p in checkpoint.model.parameters()} == {"meta"}
    assert (tmp_path / "teacher").is_dir()
    losses = outcome.notes["losses"]
    assert isinstance(losses, dict)
    assert set(losses) == {"cross_entropy", "divergence"}


def test_a_teacher_is_held_in_the_precision_of_its_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[torch.dtype] = []

    def seen(student: RootsWithHead, windows: Any, objective: Distillation, *rest: Any, **named: Any) -> Any:
        assert objective.teacher is not None
        held.append(objective.teacher.get_parameter("model.layers.0.mlp.up_proj.weight").dtype)
        return fit(student, windows, objective, *rest, **named)

    monkeypatch.setattr(teach, "fit", seen)
    checkpoint = teacher()
    training = CONFIG.training.model_copy(update={"precision": "bf16", "steps": 2})
    run(tmp_path, checkpoint, CONFIG.model_copy(update={"training": training}))
    assert held == [torch.bfloat16]
    assert checkpoint.model.get_parameter("model.layers.0.mlp.up_proj.weight").dtype == torch.bfloat16


def test_a_kept_cache_serves_other_students(tmp_path: Path) -> None:
    for name, student in (("first", "small"), ("second", "tiny")):
        (tmp_path / name).mkdir()
        config = cached(cache=tmp_path / "caches").model_copy(update={"student": student})
        calls: list[int] = []
        checkpoint = teacher()
        checkpoint.model.model.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        run(tmp_path / name, checkpoint, config)
        assert bool(calls) == (name == "first")
    assert len(list((tmp_path / "caches").iterdir())) == 1


def test_where_the_cache_is_kept_changes_nothing(tmp_path: Path) -> None:
    states = []
    for name, config in (("within", cached()), ("outside", cached(cache=tmp_path / "caches"))):
        (tmp_path / name).mkdir()
        states.append(run(tmp_path / name, teacher(), config).checkpoint.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_with_a_cache_the_stage_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir()
    broken.mkdir()
    expected = run(straight, teacher(), cached()).checkpoint.model.state_dict()
    read, calls = TeacherCache.read, iter(range(100))

    def stop(cache: TeacherCache, rows: Any) -> Any:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return read(cache, rows)

    with monkeypatch.context() as patch:
        patch.setattr(TeacherCache, "read", stop)
        with pytest.raises(KeyboardInterrupt):
            run(broken, teacher(), cached())
    assert (broken / "step-00000005").is_dir()
    resumed = run(broken, teacher(), cached()).checkpoint.model.state_dict()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_a_narrower_student_is_compared_through_fitted_maps(tmp_path: Path) -> None:
    """Fitted to the student as it begins, they are nearer to the teacher than maps that are yet to learn."""
    path = tmp_path / "student.json"
    path.write_text(json.dumps({"hidden_size": 16, "layers": [tiny_layer()] * 2}))
    firsts = {}
    for projection in ("learned", "least_squares"):
        work = tmp_path / projection
        work.mkdir()
        loss = DistillLossConfig(hidden_weight=0.5, projection=projection)
        training = CONFIG.training.model_copy(update={"steps": 1})
        config = DistillConfig(student=str(path), loss=loss, training=training)
        losses = run(work, teacher(), config).notes["losses"]
        assert isinstance(losses, dict)
        firsts[projection] = float(str(losses["hidden"]))
    assert firsts["least_squares"] < 0.9
    assert firsts["least_squares"] < 0.8 * firsts["learned"]


def test_an_on_policy_training_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    config = CONFIG.model_copy(
        update={
            "loss": DistillLossConfig(on_policy_ratio=0.5),
            "training": CONFIG.training.model_copy(update={"steps": 8, "batch_size": 2, "accumulation": 2}),
        }
    )
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir()
    broken.mkdir()
    expected = run(straight, teacher(), config).checkpoint.model.state_dict()
    stopping, calls = teacher(), iter(range(100))

    def hook(*_: object) -> None:
        if next(calls) == 9:
            raise KeyboardInterrupt

    stopping.model.model.register_forward_pre_hook(hook)
    with pytest.raises(KeyboardInterrupt):
        run(broken, stopping, config)
    resumed = run(broken, teacher(), config).checkpoint.model.state_dict()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


@pytest.mark.parametrize("loss", [{}, {"top_k": 8}])
def test_a_training_on_the_teachers_text_goes_on_with_the_same_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: dict[str, Any]
) -> None:
    config = CONFIG.model_copy(
        update={
            "loss": DistillLossConfig(teacher_text_ratio=0.5, **loss),
            "training": CONFIG.training.model_copy(update={"steps": 6, "checkpoint_every": 2}),
        }
    )
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir()
    broken.mkdir()
    expected = run(straight, teacher(), config).checkpoint.model.state_dict()
    without = config.model_copy(update={"loss": DistillLossConfig(**loss)})
    (tmp_path / "without").mkdir()
    plain = run(tmp_path / "without", teacher(), without).checkpoint.model.state_dict()
    assert any(not torch.equal(expected[name], plain[name]) for name in expected)

    advance, calls = TrainingRun.advance, iter(range(100))

    def stop(training: TrainingRun) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        advance(training)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "advance", stop)
        with pytest.raises(KeyboardInterrupt):
            run(broken, teacher(), config)
    with monkeypatch.context() as patch:
        patch.setattr(
            teacher_text, "own_text_in_parts", None
        )  # It would be called if the text were not kept.
        resumed = run(broken, teacher(), config).checkpoint.model.state_dict()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_an_unknown_student_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no preset or path 'huge'"):
        run(tmp_path, teacher(), DistillConfig(student="huge"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cross_entropy_weight": 0.0, "divergence_weight": 0.0}, "must be above 0"),
        ({"cache": Path("caches")}, "needs top_k"),
        ({"top_k": 8, "hidden_weight": 0.1}, "need the teacher itself"),
        ({"top_k": 8, "relation_weight": 0.1}, "need the teacher itself"),
        ({"top_k": 8, "on_policy_ratio": 0.1}, "need the teacher itself"),
        ({"divergence_weight": 0.0, "on_policy_ratio": 0.1}, "needs a divergence_weight"),
        ({"divergence": "total_variation"}, "forward_kl"),
        ({"on_policy_ratio": 1.5}, "less than or equal to 1"),
        ({"teacher_text_ratio": 1.0}, "less than 1"),
    ],
)
def test_an_objective_that_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillLossConfig(**fields)
