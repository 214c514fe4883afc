"""The `distill` stage: make a student and train it on the text and on its teacher's outputs."""

from __future__ import annotations

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.distill import DistillConfig
from roots_compress.errors import InputError
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.distill.student import make_student
from roots_compress.tasks.registry import task_of_model
from roots_compress.training.distillation.teach import teach
from roots_compress.training.distillation.teacher import with_first_tokens


def distill(config: DistillConfig, teacher: Checkpoint, context: StageContext) -> StageOutcome:
    """Train a student on the text and on its teacher's distributions.

    Args:
        teacher: float weights. With `loss.top_k` they are freed once the teacher's targets are cached;
            otherwise they are not changed.
        context: its training text is learnt; its seed fixes new weights, the windows and their order.

    Raises:
        InputError: the student cannot be made (see `make_student`), the teacher is quantized, the text is too
            short, or as `teach` raises it.
        StageError: as `teach` raises it.
    """
    if teacher.model.config.quantization:
        raise InputError(
            "the teacher is quantized, and a student cannot inherit integer weights",
            where="stages",
            remedy="Distil first, then quantize: give the checkpoint from before quantization.",
        )
    student = make_student(config.student, teacher, seed=context.seed)
    summary = teach(
        student.model,
        with_first_tokens(teacher, student.model.config.vocab_size),
        context.text,
        task_of_model(student.model).training_windows,
        config.loss,
        config.training,
        context.training(config.name),
        release_teacher=True,
    )
    return StageOutcome(
        Checkpoint(student.model, teacher.tokenizer),
        {**student.notes, **summary.to_json()},
        curves=summary.curves,
    )
