"""The student of a distillation: a preset derived from the teacher, a config file, or a checkpoint."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from roots_compress.checkpoints.checkpoint import Checkpoint, load_checkpoint
from roots_compress.checkpoints.generation_settings import TOKEN_IDS
from roots_compress.configs.distill import student_path
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec
from roots_compress.results import Json
from roots_compress.stages.distill.config_file import read_config
from roots_compress.stages.distill.inherit import inherit
from roots_compress.stages.distill.presets import PRESETS, preset_spec
from roots_compress.training.distillation.vocabulary import (
    refuse_quantized,
    require_same_outputs,
    require_same_size,
    require_same_tokenizer,
    with_names_of,
)


@dataclass(frozen=True)
class Student:
    """A model to be trained, with the origin of its shape and weights."""

    model: RootsWithHead
    notes: dict[str, Json]


def make_student(student: str, teacher: Checkpoint, *, seed: int) -> Student:
    """Return the student that a recipe names.

    A preset or a config file inherits the teacher's weights where shapes allow (see `inherit`); a checkpoint
    keeps its own.

    Args:
        student: `tiny`, `small` or `medium`; a ROOTS config file (JSON); or a checkpoint as `load_checkpoint`
            reads it.
        teacher: float weights.
        seed: for the weights that are not inherited.

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
    """Give a student its teacher's generation settings, except the ids that its own config file names."""
    if not teacher.can_generate():
        return
    settings = copy.deepcopy(teacher.generation_config)
    for name in TOKEN_IDS:
        own = getattr(student.config, name)
        if own != getattr(teacher.config, name):
            setattr(settings, name, own)
    student.generation_config = settings
