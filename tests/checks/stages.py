"""Faults in training, distillation, pruning and quantization."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from roots_compress.calibration.activations import InputStatistics
from roots_compress.checkpoints.checkpoint import Checkpoint, save_checkpoint
from roots_compress.configs.data import CalibrationConfig
from roots_compress.configs.prune import PruneConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import StageError
from roots_compress.events import Events
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.resizing import keep_units
from roots_compress.models.spec import Place
from roots_compress.stages.base import StageContext
from roots_compress.stages.distill import student as students
from roots_compress.stages.prune import refit
from roots_compress.stages.prune import stage as prune_stage
from roots_compress.stages.prune.layerwise import LayerErrors
from roots_compress.stages.prune.targets.allocate import Allocation
from roots_compress.stages.quantize import head as quantize_head
from roots_compress.stages.quantize import stage as quantize_stage
from roots_compress.stages.quantize.rounding import quantize_matrix
from roots_compress.stages.quantize.walk import round_layers
from roots_compress.training import loop
from roots_compress.training.batches import Batch
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.objective import CrossEntropy, Loss, Objective
from tests.checks.removal import Check, NoticedError
from tests.export.quantized import quantized
from tests.heard import Heard
from tests.stages.prune.shapes import shape
from tests.tiny import TEXT, tiny_checkpoint, tiny_layer, tiny_model, tiny_tokenizer
from tests.training.text import windows

CALIBRATION = CalibrationConfig(windows=8, block_size=32)
SPLIT = TextSplit(tuple(Document.plain(f"{TEXT} {number}") for number in range(8)), (), "a few lines")


def run_prune(checkpoint: Checkpoint, folder: Path, **settings: Any) -> None:
    config = PruneConfig(
        **{"ratio": 0.25, "own_windows": 0, "calibration": CALIBRATION, "multiple_of": 4, **settings}
    )
    events = Events()
    prune_stage.prune(config, checkpoint, StageContext(SPLIT, "cpu", 0, folder, events))


def run_quantize(checkpoint: Checkpoint, folder: Path, **settings: Any) -> None:
    small: dict[str, Any] = {} if settings.get("scheme") == "fp16" else {"group_size": 16, "own_windows": 0}
    if settings.get("scheme", "int8") == "int8":
        small["products"] = "integer"
    config = QuantizeConfig(**{**small, "calibration": CALIBRATION, **settings})
    events = Events()
    quantize_stage.quantize(config, checkpoint, StageContext(SPLIT, "cpu", 0, folder, events))


def unread_row(value: float) -> Checkpoint:
    """Return a checkpoint with `value` in the embedding of a token that the text does not have."""
    checkpoint = tiny_checkpoint(tie_word_embeddings=False)
    token = checkpoint.tokenizer.convert_tokens_to_ids("Ā")
    assert isinstance(token, int)
    with torch.no_grad():
        checkpoint.model.get_parameter("model.embed_tokens.weight")[token, 0] = value
    return checkpoint


def loud_mlp(factor: float) -> Checkpoint:
    checkpoint = tiny_checkpoint()
    with torch.no_grad():
        for name in ("up_proj", "gate_proj"):
            checkpoint.model.get_parameter(f"model.layers.0.mlp.{name}.weight").mul_(factor)
    return checkpoint


UNCUT: list[LayerErrors] = [{"self_attn": None, "mlp": None}] * 2


def mask_only(folder: Path) -> None:
    """Prune with a cut that sets weights to zero and removes none."""

    def cut(_config: Any, _plan: Any, model: RootsForCausalLM, *_rest: Any, **_more: Any) -> Any:
        with torch.no_grad():
            model.get_parameter("model.layers.0.mlp.up_proj.weight")[:12] = 0.0
        return prune_stage.Pruned([], UNCUT, Allocation([shape(2, 2, 48)] * 2))

    with patch.object(prune_stage, "_cut", cut):
        run_prune(tiny_checkpoint(), folder)


def forget_a_layer(folder: Path) -> None:
    """Prune with a cut that leaves one of the layers as it was."""

    def cut(_config: Any, _plan: Any, model: RootsForCausalLM, *_rest: Any, **_more: Any) -> Any:
        keep_units(model, Place(0, "mlp"), "mlp_channels", range(36))
        return prune_stage.Pruned([], UNCUT, Allocation([shape(2, 2, 36)] * 2))

    with patch.object(prune_stage, "_cut", cut):
        run_prune(tiny_checkpoint(), folder)


def forget_a_matrix(folder: Path) -> None:
    """Quantize with a walk that leaves one matrix as it was."""
    name = "model.layers.0.self_attn.q_proj"

    def forgetful(*arguments: Any, **more: Any) -> Any:
        rounded, stream = round_layers(*arguments, **more)
        kept = {key: value for key, value in rounded.state.items() if not key.startswith(name)}
        formats = {key: value for key, value in rounded.formats.items() if key != name}
        return replace(rounded, state=kept, formats=formats), stream

    with patch.object(quantize_stage, "round_layers", forgetful):
        run_quantize(tiny_checkpoint(), folder, scheme="int8", fold=False)


def scale_that_is_not_finite(folder: Path) -> None:
    """Quantize with a rounding that loses one scale."""

    def rounding(*arguments: Any, **more: Any) -> Any:
        matrix = quantize_matrix(*arguments, **more)
        matrix.grid.scale[0] = torch.nan
        return matrix

    with patch.object(quantize_head, "quantize_matrix", rounding):
        run_quantize(tiny_checkpoint(), folder, scheme="int8")


def overflowing_statistics(_: Path) -> None:
    statistics = InputStatistics(4)
    statistics.update(torch.full((2, 4), 1e30))
    statistics.check("a matrix")


def refit_on_nan(_: Path) -> None:
    refit.refit(torch.eye(4), torch.full((4, 4), torch.nan), [0, 1], damping=0.01)


def train(
    folder: Path,
    *,
    model: RootsForCausalLM | None = None,
    text: PackedWindows | None = None,
    objective: Objective | None = None,
    steps: int = 1,
) -> str:
    """Train for a step and return what was printed."""
    events = Heard()
    loop.fit(
        model or tiny_model(),
        text or windows(),
        objective or CrossEntropy(),
        TrainingConfig(steps=steps, batch_size=4, block_size=16, precision="fp32"),
        TrainingContext("cpu", 0, folder, events),
    )
    return events.text


class Spoilt(CrossEntropy):
    """Cross-entropy with a fault added to it."""

    def __init__(self, fault: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, model: RootsWithHead, batch: Batch) -> Loss:
        loss = super().forward(model, batch)
        return Loss(loss.total + self.fault(model.get_parameter("model.norm.weight").sum()), loss.parts)


def teacher_in_training_mode(folder: Path) -> None:
    """Distil with an objective that, as any module would, takes its teacher along into training mode."""
    student = tiny_model(1)
    with patch.object(Distillation, "train", nn.Module.train):
        objective = Distillation(tiny_model(), student, DistillLossConfig(), seed=0)
        train(folder, model=student, objective=objective)


def resume_on_another_text(folder: Path) -> None:
    train(folder, text=windows(seed=0))
    if "going on from" not in train(folder, text=windows(seed=1)):
        raise NoticedError("the state is of another training")


def resume_from_a_flipped_bit(folder: Path) -> None:
    train(folder)
    (path,) = folder.glob("step-*/state.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    if "going on from" not in train(folder):
        raise NoticedError("the state is damaged")


def student_with_swapped_tokens(folder: Path) -> None:
    text = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    vocabulary = text["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    swapped = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(text)))
    save_checkpoint(Checkpoint(tiny_model(1), swapped), folder / "student")
    students.make_student(str(folder / "student"), tiny_checkpoint(), seed=0)


def student_of_another_size(folder: Path) -> None:
    path = folder / "student.json"
    path.write_text(json.dumps({"hidden_size": 32, "vocab_size": 320, "layers": [tiny_layer()]}))
    students.make_student(str(path), tiny_checkpoint(), seed=0)


def row_of_zeros(_: Path) -> None:
    weight = torch.ones(2, 16)
    weight[0] = 0.0
    if quantize_matrix(weight, "w8", 16).grid.scale.all():
        raise NoticedError("the row gets a scale above 0")


CHECKS = [
    Check(
        "too little calibration text for a refit",
        "_calibration_windows",
        lambda folder: run_prune(
            tiny_checkpoint(), folder, calibration=CalibrationConfig(windows=1, block_size=16)
        ),
        guard="if short: ...",
    ),
    Check(
        "calibration activations overflow",
        "InputStatistics.check",
        overflowing_statistics,
        StageError,
    ),
    Check(
        "a refit has no solution",
        "_damped_factor",
        refit_on_nan,
        StageError,
    ),
    Check(
        "pruning masks and removes nothing",
        "prune.stage._check_result",
        mask_only,
        StageError,
        guard="if after >= before: ...",
    ),
    Check(
        "pruning forgets a layer",
        "prune.stage._check_result",
        forget_a_layer,
        StageError,
        guard="if found != ...: ...",
    ),
    Check(
        "a pruned model holds NaN",
        "prune.stage._check_result",
        lambda folder: run_prune(unread_row(torch.nan), folder),
        StageError,
        guard="if not torch.isfinite(parameter).all(): ...",
    ),
    Check(
        "a model to quantize holds NaN",
        "quantize.stage._check_source",
        lambda folder: run_quantize(unread_row(torch.nan), folder, scheme="int8"),
        StageError,
        guard="if not torch.isfinite(parameter).all(): ...",
    ),
    Check(
        "a matrix is left unquantized",
        "quantize.stage._check_result",
        forget_a_matrix,
        StageError,
        guard="if not modules == matrices == ...: ...",
    ),
    Check(
        "a quantized scale is NaN",
        "quantize.stage._check_result",
        scale_that_is_not_finite,
        StageError,
        guard="if tensor.is_floating_point() and ...: ...",
    ),
    Check(
        "a row of zeros would have scale 0",
        "rounding._scale",
        row_of_zeros,
        NoticedError,
        guard="torch.where(..., extent / levels, 1.0)",
        without="extent / levels",
    ),
    Check(
        "a weight overflows float16",
        "half._check",
        lambda folder: run_quantize(unread_row(7e4), folder, scheme="fp16"),
        StageError,
    ),
    Check(
        "an activation overflows float16",
        "half._check",
        lambda folder: run_quantize(loud_mlp(500), folder, scheme="fp16"),
        StageError,
    ),
    Check(
        "a gradient is NaN",
        "TrainingRun.advance",
        lambda folder: train(folder, objective=Spoilt(lambda weight: (weight * 0).sqrt())),
        StageError,
        guard="self._require(math.isfinite(norm), ...)",
    ),
    Check(
        "training windows are longer than the context",
        "check_trainable",
        lambda folder: train(folder, model=tiny_model(max_position_embeddings=8)),
        guard="if length > context: ...",
    ),
    Check(
        "a quantized model is trained",
        "check_trainable",
        lambda folder: train(folder, model=quantized(tiny_model(), {"model.layers.0.mlp.down_proj": "w8"})),
        guard="if model.config.quantization: ...",
    ),
    Check(
        "the teacher is in training mode",
        "Distillation._run_teacher",
        teacher_in_training_mode,
        AssertionError,
        guard="assert not self.teacher.training",
    ),
    Check(
        "a training goes on from another's state",
        "training.state._read",
        resume_on_another_text,
        NoticedError,
        guard='document["fingerprint"] != fingerprint',
        without="False",
    ),
    Check(
        "a training goes on from a damaged state",
        "training.state._read",
        resume_from_a_flipped_bit,
        NoticedError,
        guard='document["sha256"] != ...',
        without="False",
    ),
    Check(
        "a student's tokens mean something else",
        "require_same_tokenizer",
        student_with_swapped_tokens,
    ),
    Check(
        "a student has another vocabulary",
        "require_same_size",
        student_of_another_size,
    ),
]
