"""Trains a student: makes cached targets, fits maps, and runs the training.

The one way in which `distill` and the recovery of `prune` learn from a teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.data.conversations import PackedConversations
from roots_compress.data.documents import TextSplit
from roots_compress.data.tokenizers import tokenizer_sha256
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import InputError, Key, located
from roots_compress.models.device import autocast, resolve_precision
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.working_copy import as_autocast_reads
from roots_compress.training.batches import BatchOrder, shared_windows
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation.asking import BATCH_SIZE
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.distillation.signals import least_squares_maps, matched_layers, run
from roots_compress.training.distillation.teacher import cached_teacher
from roots_compress.training.distillation.teacher_cache import TeacherCache
from roots_compress.training.distillation.teacher_targets import with_teacher_targets
from roots_compress.training.distillation.teacher_text import with_teacher_text
from roots_compress.training.loop import check_trainable, fit, windows_needed
from roots_compress.training.parallel.shares import team_size
from roots_compress.training.summary import FitSummary

WindowMaker = Callable[..., PackedWindows]
"""Makes windows to learn from, as `Task.training_windows` does."""
MAP_TOKENS = 1 << 14
"""Approximate tokens of text for fitting maps; many times the width of a hidden state."""


def teach(
    student: RootsWithHead,
    teacher: Checkpoint,
    text: TextSplit,
    windows_of: WindowMaker,
    loss: DistillLossConfig,
    training: TrainingConfig,
    context: TrainingContext,
    *,
    release_teacher: bool = False,
) -> FitSummary:
    """Train a student in place on given or teacher-written text, with the teacher's outputs as targets.

    Args:
        student: float32 weights and the teacher's vocabulary.
        teacher: a model with float weights; frozen during training.
        loss: the objective, and whether the teacher's targets are cached or computed at every step.
        context: its folder also holds the teacher's text, and a cache without another place.
        release_teacher: free unneeded weights of the teacher: all once the targets are cached, otherwise
            those not in the training's precision.

    Raises:
        InputError, StageError: as `with_teacher_text`, `with_teacher_targets`, `cached_teacher` and `fit`
            raise them, keys beginning with `loss` and `training`; or the text is too short.
    """
    if student.head_matrix is None:
        with located(("loss",)):
            loss.require_teacher()
    needed = windows_needed(training)
    # For pairs the teacher writes targets; otherwise whole windows.
    written_ratio = 0.0 if text.train[0].is_pair else loss.teacher_text_ratio
    documents = text.train
    if written_ratio < loss.teacher_text_ratio:
        documents = with_teacher_targets(
            documents,
            teacher,
            loss.teacher_text_ratio,
            context,
            block_size=training.block_size,
            limit=needed,
        )
    given = max(1, round((1 - written_ratio) * needed))
    windows = windows_of(documents, teacher.tokenizer, training.block_size, seed=context.seed, limit=given)
    answers = isinstance(windows, PackedConversations)
    rated = text.kind == "ratings"
    with located(("training",)):
        check_trainable(student, windows)
        precision = resolve_precision(training.precision, context.device)
        processes = team_size(training, whole=loss.whole_micro_batches)
        if loss.relation_weight and training.tensor_parallel_teacher:
            raise InputError(
                "divides the heads that the relations of attention are made of",
                where=Key("tensor_parallel_teacher"),
                remedy="Leave it out, or set the loss's relation_weight to 0.",
            )
    if written_ratio:
        windows = with_teacher_text(windows, teacher, written_ratio, context, limit=needed - given)
    asked_once = loss.top_k is not None and loss.divergence_weight > 0
    if asked_once:
        windows = windows.fixed()  # The teacher's targets belong to these very windows.
    windows = shared_windows(windows, processes, context.work)
    source: RootsWithHead | TeacherCache
    if asked_once:
        with located(("loss",)):
            cache = cached_teacher(
                teacher.model,
                windows,
                loss,
                loss.cache or context.work / "teacher",
                context,
                tokenizer_sha256=tokenizer_sha256(teacher.tokenizer),
                precision=precision,
                processes=processes,
                strategy=training.strategy,
                tensor_parallel=training.tensor_parallel_teacher,
                release=release_teacher,
            )
        if release_teacher:
            nn.Module.to(teacher.model, "meta")
        source = cache
    else:
        source = as_autocast_reads(teacher.model, precision, replace=release_teacher)
    maps: Sequence[Tensor] = ()
    if loss.hidden_weight and loss.projection == "least_squares":
        maps = fitted_maps(student, teacher.model, windows, training, context)
    try:
        with located(("training",)):
            return fit(
                student,
                windows,
                Distillation(
                    source, student, loss, seed=context.seed, maps=maps, answers=answers, rated=rated
                ),
                training,
                context,
            )
    finally:
        teacher.model.requires_grad_(True)


def fitted_maps(
    student: RootsWithHead,
    teacher: RootsWithHead,
    windows: PackedWindows,
    training: TrainingConfig,
    context: TrainingContext,
) -> list[Tensor]:
    """Return least-squares maps from the untrained student's hidden states to its teacher's.

    Both models are left on the CPU and in eval mode.
    """
    order, device = BatchOrder(windows, seed=context.seed), context.device
    count = min(len(order), -(-MAP_TOKENS // training.block_size))
    matches = matched_layers(student.config.num_hidden_layers, teacher.config.num_hidden_layers)

    def pairs() -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor]]]:
        for first in range(0, count, BATCH_SIZE):
            batch = order.at(range(first, min(first + BATCH_SIZE, count)), device)
            states = [run(model, batch, states=True).states for model in (student, teacher)]
            yield states[0], [states[1][match] for match in matches]

    for model in (student, teacher):
        nn.Module.to(model, device).eval()
    try:
        with torch.no_grad(), autocast(device, resolve_precision(training.precision, device)):
            return [map_UW.cpu() for map_UW in least_squares_maps(pairs())]
    finally:
        for model in (student, teacher):
            nn.Module.to(model, "cpu")
