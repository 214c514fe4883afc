"""The `train` stage: trains a new model, or one further, by its task's objective."""

from __future__ import annotations

import copy
from typing import Any

import torch

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.train import TrainConfig
from roots_compress.data.documents import TextSplit
from roots_compress.data.tokenizers import train_tokenizer
from roots_compress.data.windows import PackedWindows
from roots_compress.errors import located
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.train.architecture import architecture_spec
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import task_of_model
from roots_compress.training.further import Judge, train_further
from roots_compress.training.loop import fit, windows_needed
from roots_compress.training.objective import Objective
from roots_compress.training.summary import FitSummary


def new_model(config: TrainConfig, text: TextSplit, *, seed: int) -> Checkpoint:
    """Make an untrained model and a tokenizer trained on the text.

    The weights are drawn from a normal distribution with standard deviation 0.02, norms are ones and biases
    zeros. The projections that write to the residual stream are divided by the square root of the number of
    blocks, so that its size does not grow with depth (Radford et al. 2019, GPT-2); not if a norm follows each
    addition.

    Raises:
        InputError: the tokenizer's settings cannot be met.
    """
    encoder = config.objective is not None
    tokenizer = train_tokenizer(text.train, config.tokenizer, encoder=encoder)
    shape = RootsConfig(
        spec=architecture_spec(
            config.architecture, len(tokenizer), encoder=encoder, start=tokenizer.bos_token_id or 0
        ),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(shape).eval()
    with torch.no_grad():
        halves = [half for layer in model.model.all_layers() for half in layer.halves]
        for half in halves if shape.spec.layers[0][0].is_pre_norm else ():
            for writer in half.block.writers():
                writer.weight.mul_(len(halves) ** -0.5)
    return Checkpoint(model, tokenizer)


def train(config: TrainConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
    """Train a model on the text by its task's objective; the given checkpoint is not changed.

    Args:
        checkpoint: where training starts.
        context: its training text is learnt; its seed fixes the windows and their order.

    Raises:
        InputError, StageError: as `fit` raises them; or the text is too short.
    """
    task, place = task_of_model(checkpoint.model), context.training(config.name)
    # A checkpoint may be stored in half precision; it is trained, and then stored, in float32.
    model = copy.deepcopy(checkpoint.model).float()

    def learn(text: TextSplit) -> FitSummary:
        windows, objective = _lesson(config, task, checkpoint, text, seed=context.seed)
        with located(("training",)):
            return fit(model, windows, objective, config.training, place)

    if context.new:
        summary = learn(context.text)
    else:
        windows_of, tokenizer = task.training_windows, checkpoint.tokenizer
        judge = Judge(task.objective(), windows_of, tokenizer, config.training, place)
        summary = train_further(model, context.text, judge, learn)
    return StageOutcome(Checkpoint(model, checkpoint.tokenizer), summary.to_json(), curves=summary.curves)


def _lesson(
    config: TrainConfig, task: Task[Any], checkpoint: Checkpoint, text: TextSplit, *, seed: int
) -> tuple[PackedWindows, Objective]:
    """Return the windows to learn from, and the objective."""
    tokenizer, length, limit = (
        checkpoint.tokenizer,
        config.training.block_size,
        windows_needed(config.training),
    )
    if config.objective is None:
        return task.training_windows(text.train, tokenizer, length, seed=seed, limit=limit), task.objective()
    spec = checkpoint.model.config.spec
    return task.pretraining(config.objective, spec, text.train, tokenizer, length, seed=seed, limit=limit)
