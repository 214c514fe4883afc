"""The `train` stage: a model from scratch, or one trained further, by its task's own objective."""

from __future__ import annotations

import copy

import torch

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.configs.train import TrainConfig
from roots_compress.data.documents import TextSplit
from roots_compress.data.tokenizers import train_tokenizer
from roots_compress.errors import located
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.stages.base import StageContext, StageOutcome
from roots_compress.stages.train.architecture import architecture_spec
from roots_compress.tasks.registry import task_of_model
from roots_compress.training.loop import fit, windows_needed


def new_model(config: TrainConfig, text: TextSplit, *, seed: int) -> Checkpoint:
    """Make an untrained model and a tokenizer trained on the text.

    The weights are drawn from a normal distribution with standard deviation 0.02, norms are ones and biases
    zeros. The projections that write to the residual stream are divided by the square root of the number of
    blocks, so that depth does not swell it (Radford et al. 2019, GPT-2); not where a norm follows each
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
    """Train a model on the text by its task's objective; the given checkpoint is left as it is.

    Args:
        config: the stage's settings; `architecture` and `tokenizer` are those of `new_model`.
        checkpoint: where training starts.
        context: its training text is learnt from; its seed is that of the windows and their order.

    Raises:
        InputError, StageError: as `fit` raises them; or the text is too short.
    """
    task, spec = task_of_model(checkpoint.model), checkpoint.model.config.spec
    documents, tokenizer, length = context.text.train, checkpoint.tokenizer, config.training.block_size
    seed, limit = context.seed, windows_needed(config.training)
    if config.objective is None:
        windows = task.training_windows(documents, tokenizer, length, seed=seed, limit=limit)
        objective = task.objective()
    else:
        windows, objective = task.pretraining(
            config.objective, spec, documents, tokenizer, length, seed=seed, limit=limit
        )
    # A checkpoint may be stored in half precision; it is trained, and then stored, in float32.
    model = copy.deepcopy(checkpoint.model).float()
    with located(("training",)):
        summary = fit(
            model,
            windows,
            objective,
            config.training,
            device=context.device,
            seed=context.seed,
            work=context.work,
            events=context.events,
            label=config.name,
        )
    return StageOutcome(Checkpoint(model, checkpoint.tokenizer), summary.to_json(), curves=summary.curves)
