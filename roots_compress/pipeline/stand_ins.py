"""Models of few layers and random weights, of the shapes of a run's own models, whose place they take."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import Checkpoint, save_checkpoint
from roots_compress.checkpoints.generation_settings import TOKEN_IDS
from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.tokenizer import load_tokenizer
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.spec import Layer, ModelSpec
from roots_compress.stages.expected import ExpectedModel


def with_few_layers(spec: ModelSpec, count: int) -> ModelSpec:
    """Return a model with at most so many layers a stack, each of another form as far as there are others."""
    chosen: list[int] = []
    for stack, first in zip(spec.running, (0, spec.begins), strict=False):
        chosen += (first + index for index in _different(stack.layers, count))
    return spec.with_chosen(chosen)


def _different(layers: tuple[Layer, ...], count: int) -> list[int]:
    """Return the numbers of at most so many layers: the first of each form, and then the others in turn."""
    firsts = sorted(dict(zip(reversed(layers), reversed(range(len(layers))), strict=True)).values())
    others = [index for index in range(len(layers)) if index not in firsts]
    return sorted([*firsts, *others][:count])


def random_model(expected: ExpectedModel, *, seed: int = 0) -> RootsWithHead:
    """Return a model of random weights, in eval mode."""
    config = RootsConfig(spec=expected.spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: RootsWithHead = make_model(config).eval()
    return model


def stand_in(spec: ModelSpec, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0) -> Checkpoint:
    """Return a checkpoint of random weights with a tokenizer of its vocabulary."""
    model = random_model(ExpectedModel(spec), seed=seed)
    for name in TOKEN_IDS:
        setattr(model.config, name, getattr(tokenizer, name))
    return Checkpoint(model, tokenizer)


def write_stand_in(source: Path, folder: Path, *, layers: int) -> Path:
    """Write a checkpoint of few layers with the tokenizer of another; return its folder.

    Raises:
        InputError: the source is damaged.
    """
    info = inspect_source(source)
    save_checkpoint(stand_in(with_few_layers(info.spec, layers), load_tokenizer(info)), folder)
    return folder
