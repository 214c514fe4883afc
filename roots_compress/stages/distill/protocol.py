"""The `distill` stage as the pipeline sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.configs.distill import STUDENT_PRESETS, DistillConfig, student_path
from roots_compress.configs.training import DistillLossConfig
from roots_compress.errors import InputError, Key, Text
from roots_compress.models.limits import Limits
from roots_compress.models.spec import ModelSpec
from roots_compress.stages.base import ModelInfo, Stage, StageContext, StageOutcome
from roots_compress.stages.distill.presets import PRESETS, preset_spec
from roots_compress.stages.expected import Estimate, Expected, ExpectedModel, Small, least
from roots_compress.training.distillation.vocabulary import (
    refuse_quantized,
    require_same_head,
    require_same_outputs,
    require_same_size,
    require_same_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from roots_compress.checkpoints.checkpoint import Checkpoint


def check_student(
    path: Path,
    tokenizer: PreTrainedTokenizerFast,
    vocab_size: int,
    head_kind: str,
    teacher: ModelSpec | None = None,
) -> Limits:
    """Check a student's files, head and vocabulary against its teacher's, without loading weights.

    Args:
        path: a ROOTS config file or a checkpoint.
        teacher: its specification; if unknown, only the kind of head is compared.

    Returns:
        The student's limits.

    Raises:
        InputError: the student is damaged or quantized, or its vocabulary or kind of output is not the
            teacher's.
    """
    if path.suffix == ".json":
        # It needs torch, as does any run with a student of the user's shape.
        from roots_compress.stages.distill.config_file import read_config

        spec = read_config(path, vocab_size).spec
        require_same_head(spec.head.kind, head_kind, path)
        if teacher is not None:
            require_same_outputs(spec, teacher, path)
        require_same_size(spec.embeddings.vocabulary, vocab_size, path)
        return Limits.of(spec)
    from roots_compress.checkpoints.tokenizer import check_vocabulary, load_tokenizer

    source = inspect_source(path)
    require_same_head(source.spec.head.kind, head_kind, path)
    if teacher is not None:
        require_same_outputs(source.spec, teacher, path)
    refuse_quantized(source.quantized, path)
    student_tokenizer = load_tokenizer(source)
    check_vocabulary(student_tokenizer, source.vocab_size, path)
    require_same_tokenizer(student_tokenizer, tokenizer, path)
    return source.limits


class DistillStage(Stage[DistillConfig]):
    """Makes a student of the given model."""

    def check(self, config: DistillConfig, info: ModelInfo) -> ModelInfo:
        """Check a student that is a file or a checkpoint against the teacher's vocabulary and labels.

        Presets keep the teacher's limits. The limits of a student from a file are unknown until there is a
        tokenizer to compare with its own.
        """
        path = student_path(config.student)
        if path is None:
            preset = PRESETS[config.student]
            spec = None if info.spec is None else preset_spec(info.spec, preset)
            return replace(info, spec=spec, source=None)
        if info.tokenizer is None:
            return replace(info, limits=Limits(None, None), spec=None, source=None)
        try:
            head = info.task.head_kind
            limits = check_student(path, info.tokenizer(), info.vocab_size, head, info.spec)
        except InputError as error:
            # The file name alone would not show that it is the student's, not the model's.
            error.message = Text(f"{error.where}: ", error.message)
            error.where = Key("student")
            presets = ", ".join(STUDENT_PRESETS)
            advice = f"\nA preset ({presets}) or a ROOTS config file can be a student, too."
            error.remedy = Text(error.remedy or "", advice)
            raise
        return replace(info, limits=limits, spec=None, source=None)

    def estimate(self, config: DistillConfig, parameters: float, *, device: str) -> Estimate:
        """Count the training of the student; a preset's share of the parameters is its lower bound."""
        preset = PRESETS.get(config.student)
        made = preset.parameters * parameters if preset else _student_parameters(Path(config.student))
        return least(parameters, made, trained_on=device)

    def expect(self, config: DistillConfig, before: ExpectedModel) -> Expected:
        """Return the student's shape."""
        path = student_path(config.student)
        if path is None:
            spec = preset_spec(before.spec, PRESETS[config.student])
        else:
            spec = _spec_of(path, before.spec.embeddings.vocabulary)
        return Expected(ExpectedModel(spec, certain=before.certain or path is not None))

    def in_small(self, config: DistillConfig, small: Small) -> DistillConfig:
        """Give a student from a checkpoint few layers, and one from a file the teacher's vocabulary."""
        less, path = small.lessened(config), student_path(config.student)
        if path is None:
            return less
        return less.model_copy(update={"student": str(small.stand_in(path))})

    def inputs(self, config: DistillConfig) -> dict[str, Path]:
        path = student_path(config.student)
        return {} if path is None else {"student": path}

    def control(self, config: DistillConfig) -> tuple[str, DistillConfig]:
        """Return the same student, trained in the same way on the text alone."""
        loss = DistillLossConfig(cross_entropy_weight=1.0, divergence_weight=0.0)
        return "untaught", config.model_copy(update={"loss": loss})

    def run(self, config: DistillConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
        from roots_compress.stages.distill.stage import distill

        return distill(config, checkpoint, context)


def _spec_of(path: Path, vocabulary: int) -> ModelSpec:
    """Return the shape of a student from a file or a checkpoint."""
    if path.suffix != ".json":
        return inspect_source(path).spec
    from roots_compress.stages.distill.config_file import read_config

    return read_config(path, vocabulary).spec


def _student_parameters(path: Path) -> float:
    """Return the parameters of a student with a shape from a file; 0 for a checkpoint, which is not read."""
    if path.suffix != ".json":
        return 0.0
    from roots_compress.stages.distill.config_file import read_config

    return float(read_config(path, None).spec.parameters)
