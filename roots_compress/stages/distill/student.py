"""The student of a distillation: a preset derived from the teacher, a config file, or a checkpoint."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint
from roots_compress.checkpoints.generation_settings import TOKEN_IDS
from roots_compress.configs.distill import student_path
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import OpSpec, changed
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec
from roots_compress.results import Json
from roots_compress.stages.distill.config_file import read_config
from roots_compress.stages.distill.inherit import inherit, spread
from roots_compress.training.distillation.vocabulary import (
    refuse_quantized,
    require_same_outputs,
    require_same_size,
    require_same_tokenizer,
    with_names_of,
)

MLP_MULTIPLE = 32
"""Narrowed MLPs keep to multiples of this, which suits matrix units and the groups of 4-bit formats."""
NEAR_ENOUGH = 0.95
"""An MLP that would keep more than this fraction of its width keeps it all."""
NARROWEST = 0.125


@dataclass(frozen=True)
class Preset:
    """A student's share of its teacher."""

    parameters: float
    """Of the parameters in the layers: embeddings, and with them the vocabulary, stay as they are."""
    layers: float
    """Of the layers; the rest of the saving comes from narrower MLPs."""


PRESETS = {
    "tiny": Preset(parameters=0.25, layers=0.375),
    "small": Preset(parameters=0.5, layers=0.5),
    "medium": Preset(parameters=0.75, layers=0.75),
}


@dataclass(frozen=True)
class Student:
    """A model to be trained, and where its shape and weights come from."""

    model: RootsWithHead
    notes: dict[str, Json]


def make_student(student: str, teacher: Checkpoint, *, seed: int) -> Student:
    """Return the student that a recipe names.

    A preset or a config file takes over the teacher's weights where shapes allow (see `inherit`); a
    checkpoint keeps its own.

    Args:
        student: `tiny`, `small` or `medium`; a ROOTS config file (JSON); or a checkpoint as `load_checkpoint`
            reads it.
        teacher: float weights.
        seed: draws the weights that come from nowhere else.

    Raises:
        InputError: the name is unknown, a file cannot be used, or the tokenizers or labels differ.
    """
    path, shape = student_path(student), teacher.model.config
    if path is None:
        config = copy.deepcopy(shape)
        config.spec = preset_spec(shape.spec, PRESETS[student])
        return _inheriting(config, teacher, seed=seed)
    if path.suffix == ".json":
        config = read_config(path, shape.vocab_size, **{key: getattr(shape, key) for key in TOKEN_IDS})
        require_same_size(config.vocab_size, shape.vocab_size, path)
        require_same_outputs(config.spec, shape.spec, path)
        config.spec = with_names_of(config.spec, shape.spec)
        return _inheriting(config, teacher, seed=seed)
    checkpoint = load_checkpoint(path)
    require_same_tokenizer(checkpoint.tokenizer, teacher.tokenizer, path)
    refuse_quantized(bool(checkpoint.model.config.quantization), path)
    config = checkpoint.model.config
    require_same_outputs(config.spec, shape.spec, path)
    config.spec = with_names_of(config.spec, shape.spec)
    return Student(checkpoint.model.float(), {"student_shape": shape_of(config.spec)})


def preset_spec(teacher: ModelSpec, preset: Preset) -> ModelSpec:
    """Return a student with about the given share of the teacher's layer parameters.

    Layers are left out first, at even depths; what is still too much is taken from the feed-forward blocks:
    from their channels, or from their experts.
    """
    chosen: list[int] = []
    for stack, first in zip(teacher.running, (0, teacher.begins), strict=False):
        count = max(1, math.floor(len(stack.layers) * preset.layers + 0.5))
        chosen += (first + index for index in spread(count, len(stack.layers)))
    student = teacher.with_chosen(chosen)
    target = preset.parameters * sum(layer_sizes(teacher))
    fixed, others = layer_sizes(student)
    keep = (target - fixed) / max(others, 1)
    if keep >= NEAR_ENOUGH:
        return student
    return student.with_layers(
        tuple(
            tuple(changed(each, op=_narrowed(each.op, max(keep, NARROWEST))) for each in layer)
            for layer in student.layers
        )
    )


def _narrowed(op: OpSpec, keep: float) -> OpSpec:
    """Return a block with about this share of its channels or experts; attention is left as it is."""
    if isinstance(op, Attention):
        return op
    axis = op.axes()[0]
    multiple, least = (1, op.chosen) if isinstance(op, Moe) else (MLP_MULTIPLE, MLP_MULTIPLE)
    narrowed = max(least, round(keep * axis.units / multiple) * multiple)
    return op.cut(axis.name, min(axis.units, narrowed))


def layer_sizes(spec: ModelSpec) -> tuple[int, int]:
    """Return how many weights the matrices of the layers hold: those of attention, and all others."""
    fixed = others = 0
    for _, op in spec.blocks():
        size = sum(matrix.rows * matrix.width for matrix in op.matrices(spec.width).values())
        fixed, others = (fixed + size, others) if isinstance(op, Attention) else (fixed, others + size)
    return fixed, others


def shape_of(spec: ModelSpec) -> dict[str, Json]:
    """Return a model's shape for a report."""
    return {
        "layers": len(spec.layers),
        "hidden_size": spec.width,
        "intermediate_sizes": [op.channels for _, op in spec.blocks() if isinstance(op, Mlp | Moe)],
    }


def _inheriting(config: RootsConfig, teacher: Checkpoint, *, seed: int) -> Student:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(config)
    _generate_alike(model, teacher.model)
    taken = inherit(model, teacher.model)
    return Student(
        model,
        {
            "student_shape": shape_of(config.spec),
            "teacher_layers": list(taken.layers),
            "inherited_parameters": taken.inherited,
            "fresh_parameters": taken.fresh,
        },
    )


def _generate_alike(student: RootsWithHead, teacher: RootsWithHead) -> None:
    """Give a student its teacher's settings of generation, but for the ids that its own config file names."""
    if not teacher.can_generate():
        return
    settings = copy.deepcopy(teacher.generation_config)
    for name in TOKEN_IDS:
        own = getattr(student.config, name)
        if own != getattr(teacher.config, name):
            setattr(settings, name, own)
    student.generation_config = settings
