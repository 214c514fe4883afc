"""The one training loop: AdamW, warm-up and cosine, mixed precision, several processes, exact resume."""

from __future__ import annotations

import time

import torch

from roots_compress.configs.training import TrainingConfig
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import InputError, Key
from roots_compress.models.device import resolve_precision
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.layer import recompute
from roots_compress.progress import Display
from roots_compress.training.batches import BatchOrder, shared_windows
from roots_compress.training.context import TrainingContext
from roots_compress.training.objective import Objective, TrainingStep
from roots_compress.training.parallel.launch import call, team_of
from roots_compress.training.parallel.shares import team_size
from roots_compress.training.parallel.team import Team
from roots_compress.training.parallel.twins import twin
from roots_compress.training.running import Lesson, TrainingRun
from roots_compress.training.summary import FitSummary


def fit(
    model: RootsWithHead,
    windows: PackedWindows,
    objective: Objective,
    config: TrainingConfig,
    context: TrainingContext,
) -> FitSummary:
    """Train a model in place; afterwards it is on the CPU and in eval mode.

    The training state is saved every `checkpoint_every` steps, at the end and on Ctrl-C. The same call on the
    same `work` folder goes on from there, and ends with the same bits on the same device and number of
    threads.

    Args:
        model: float32 weights; its parameters that require gradients are trained.
        windows: packed text; read in an order that follows from the seed, epoch after epoch.
        objective: the loss to minimise; its own parameters that require gradients are trained too.

    Raises:
        InputError: windows longer than the model's context, nothing to score, a quantized model, or a
            precision that the device lacks.
        StageError: the loss or a gradient is no longer finite, or the state cannot be written.
        KeyboardInterrupt: passed on once the state is saved.
    """
    check_trainable(model, windows)
    objective.check(model, windows)
    precision = resolve_precision(config.precision, context.device)
    size = team_size(config, whole=objective.whole_micro_batches)
    order = BatchOrder(shared_windows(windows, size, context.work), seed=context.seed)
    lesson = Lesson(order, config, context.device, precision, context.seed)
    step = TrainingStep(model, objective)
    try:
        with team_of(size, device=context.device, label=context.label) as team:
            if team.size > 1:
                call(team, follow_training, twin(step, "meta"), lesson)

            def say(text: str) -> None:
                context.events.say(f"{context.label}: {text}")

            return _train(TrainingRun(team, step, lesson, work=context.work, say=say), context)
    finally:
        recompute(model, False)
        model.eval().to("cpu")
        objective.to("cpu")


def follow_training(team: Team, step: TrainingStep, lesson: Lesson) -> None:
    """Do the part of a training of a process other than 0."""
    run = TrainingRun(team, step, lesson)
    if run.train(lambda: None):
        run.finish()


def _train(run: TrainingRun, context: TrainingContext) -> FitSummary:
    """Train to the end in process 0, and show the progress."""
    first_tokens, started = run.tally.tokens, time.monotonic()
    with Display(context.events, context.label, done=run.step) as display:

        def tell() -> None:
            speed = (run.tally.tokens - first_tokens) / max(time.monotonic() - started, 1e-9)
            for name, loss in run.tally.losses.items():
                figure = "loss" if name == "total" else name
                context.events.figure(figure, loss, work=context.label, step=run.step)
            note = f"loss {run.tally.losses['total']:.3f}, {speed:,.0f} tokens/s"
            display.update(run.step, run.config.steps, note)

        try:
            run.train(tell)
        except KeyboardInterrupt:
            run.save()
            raise
    return run.finish()


def windows_needed(config: TrainingConfig) -> int:
    """Return how many windows a training reads, so that no more text is tokenised."""
    return config.steps * config.accumulation * config.batch_size


def check_trainable(model: RootsWithHead, windows: PackedWindows) -> None:
    """Check that `fit` can train a model on windows.

    Raises:
        InputError: they are longer than its context, or its weights are integers.
    """
    length, context = windows.input_ids.shape[1], model.config.max_position_embeddings
    if length > context:
        raise InputError(
            f"training windows of {length} tokens are longer than the model's context of {context}",
            where=Key("block_size"),
            remedy=f"Use windows of at most {context} tokens.",
        )
    if model.config.quantization:
        raise InputError(
            "a quantized model cannot be trained: its weights are integers",
            where="stages",
            remedy="Put training stages before quantize.",
        )
    assert all(p.dtype == torch.float32 for p in model.parameters()), "training needs float32 weights"
