"""Further training of a trained model keeps the better weights, because it may also do harm.

It compares the loss on validation text, kept back from the training, before and after: the cross-entropy with
the text, or, without targets in the text, the distance from the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.training import DistillLossConfig, TrainingConfig
from roots_compress.data.documents import Document, TextSplit
from roots_compress.data.kept_back import keep_back
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import InputError, StageError, located
from roots_compress.io.names import in_utf8
from roots_compress.models.heads import RootsWithHead
from roots_compress.training.batches import BatchOrder, scored_windows
from roots_compress.training.context import TrainingContext
from roots_compress.training.distillation.objective import Distillation
from roots_compress.training.distillation.teach import WindowMaker, teach
from roots_compress.training.loop import check_trainable, windows_needed
from roots_compress.training.objective import CrossEntropy, Objective, ScoreLoss
from roots_compress.training.summary import FitSummary, Judged

SHARE = 0.2
"""Validation windows, as a share of the training's."""
FEWEST, MOST = 1 << 11, 1 << 13
"""Approximate bounds on their tokens: fewer show nothing, more take long."""
FRACTIONS = 0.1, 0.25, 0.5
"""Largest share of the documents to keep back; the next one if they do not fill a window."""
CHARACTERS = 6
"""Bytes of a token; few texts have more."""
TOKENS = 1 << 12
"""Validation windows read at a time."""
KEPT = "before.safetensors"
"""File in the work folder."""


@dataclass(frozen=True)
class Judge:
    """The comparison that decides whether a training helped.

    Attributes:
        objective: the one whose loss is compared.
        windows_of: makes windows of documents.
        tokenizer: the model's.
        training: gives the number and length of its windows.
        context: its seed chooses the validation documents.
    """

    objective: Objective
    windows_of: WindowMaker
    tokenizer: PreTrainedTokenizerFast
    training: TrainingConfig
    context: TrainingContext

    def kept_back(self, text: TextSplit) -> tuple[TextSplit, PackedWindows] | None:
        """Return the remaining training text and the validation windows; None if there is too little text."""
        limit, length = judging_windows(self.training), self.training.block_size
        characters = limit * length * CHARACTERS
        for fraction in FRACTIONS:
            parts = keep_back(text.train, fraction, characters=characters, seed=self.context.seed)
            if parts is None:
                return None
            learnt, held = parts
            try:
                windows = scored_windows(self._windows(held, limit))
                self._windows(learnt, 1)
            except InputError:  # If the text is faulty, the training itself reports it.
                continue
            return replace(text, train=learnt), windows
        return None

    def _windows(self, documents: Sequence[Document], limit: int) -> PackedWindows:
        length = self.training.block_size
        return self.windows_of(documents, self.tokenizer, length, seed=self.context.seed, limit=limit)

    @torch.no_grad()
    def loss(self, model: RootsWithHead, windows: PackedWindows) -> float:
        """Return the mean loss of a scored position; the model is left on the CPU and in eval mode."""
        order = BatchOrder(windows, seed=self.context.seed)
        rows = max(1, TOKENS // self.training.block_size)
        total, scored, device = 0.0, 0, self.context.device
        nn.Module.to(model.eval(), device)
        self.objective.to(device)
        try:
            for first in range(0, len(order), rows):
                batch = order.at(range(first, min(first + rows, len(order))), device)
                count = int(batch.scored_BT.sum())
                total += count * float(self.objective(model, batch).total)
                scored += count
        finally:
            nn.Module.to(model, "cpu")
            self.objective.to("cpu")
        return total / scored


def judging_windows(training: TrainingConfig) -> int:
    """Return the largest number of validation windows for a training."""
    read, length = windows_needed(training), training.block_size
    return min(max(round(SHARE * read), -(-FEWEST // length)), -(-MOST // length), read)


def judging_passes(training: TrainingConfig) -> float:
    """Return the cost of validation before and after a training, in forward passes of a token."""
    return 2.0 * judging_windows(training) * training.block_size


def train_further(
    model: RootsWithHead,
    text: TextSplit,
    judge: Judge,
    train: Callable[[TextSplit], FitSummary],
) -> FitSummary:
    """Train a model in place, and restore its weights if it did not improve.

    Args:
        model: one whose parameters that require gradients are trained.
        text: a part of its training documents is kept back.
        judge: decides which weights are better. If there is too little text to keep some back, nothing is
            compared.
        train: trains on the text that it gets.

    Raises:
        StageError, InputError: as `train` does.
    """
    found = judge.kept_back(text)
    if found is None:
        return train(text)
    learnt, windows = found
    with located(("training",)):
        check_trainable(model, windows)
    judge.objective.check(model, windows)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    before, context = judge.loss(model, windows), judge.context
    _save(trained, context.work)
    summary = train(learnt)
    after = judge.loss(model, windows)
    judged = Judged(before, after, len(windows.input_ids))
    if judged.worse:
        _restore(trained, context.work)
        context.events.say(f"{context.label}: {judged.in_words('the training')}")
    return replace(summary, judged=judged)


def teach_further(
    student: RootsWithHead,
    teacher: Checkpoint,
    text: TextSplit,
    windows_of: WindowMaker,
    loss: DistillLossConfig,
    training: TrainingConfig,
    context: TrainingContext,
) -> FitSummary:
    """Train by `teach`, and restore the student's weights if it did not improve."""
    objective: Objective = CrossEntropy()
    if text.kind == "ratings" and loss.cross_entropy_weight:
        objective = ScoreLoss()
    elif student.head_matrix is None:
        apart = DistillLossConfig(cross_entropy_weight=0.0, divergence_weight=1.0)
        objective = Distillation(teacher.model, student, apart, seed=context.seed)

    def train(learnt: TextSplit) -> FitSummary:
        return teach(student, teacher, learnt, windows_of, loss, training, context)

    judge = Judge(objective, windows_of, teacher.tokenizer, training, context)
    return train_further(student, text, judge, train)


def _save(parameters: dict[str, nn.Parameter], work: Path) -> None:
    """Write the weights to disk, because a training leaves little memory.

    Raises:
        StageError: they cannot be written.
    """
    try:
        save_file({name: each.detach().contiguous() for name, each in parameters.items()}, work / KEPT)
    except (OSError, SafetensorError) as error:
        raise StageError(
            f"the weights from before the training cannot be written: {error}",
            where=work,
            remedy="Make room there and run the command again.",
            transient=True,
        ) from error


@torch.no_grad()
def _restore(parameters: dict[str, nn.Parameter], work: Path) -> None:
    with in_utf8(work) as alias, safe_open(alias / KEPT, framework="pt") as tensors:
        for name, parameter in parameters.items():
            parameter.copy_(tensors.get_tensor(name))
