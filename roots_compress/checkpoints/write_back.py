"""Writing a ROOTS checkpoint as one of another family, where it still fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from roots_compress.checkpoints.checkpoint import HEAD, Checkpoint, refuse_occupied
from roots_compress.checkpoints.dense import OURS as DENSE
from roots_compress.checkpoints.dense import write_dense
from roots_compress.checkpoints.inspect import CONFIG
from roots_compress.checkpoints.sentence_transformers.modules import write_modules
from roots_compress.checkpoints.tokenizer import save_tokenizer
from roots_compress.checkpoints.weight_files import WEIGHTS
from roots_compress.errors import InputError, did_you_mean
from roots_compress.families.base import Family
from roots_compress.families.registry import FAMILIES
from roots_compress.families.switches import Switches
from roots_compress.families.tensors import from_roots
from roots_compress.families.text_encoder import as_text_encoder, label_class, read_config, written_config
from roots_compress.io.atomic import system_errors
from roots_compress.io.names import in_utf8
from roots_compress.models.config import RootsConfig
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import EmbeddingHead, LabelHead, LmHead, TextLabelHead
from roots_compress.models.spec import ModelSpec


def write_back(checkpoint: Checkpoint, model_type: str, directory: Path) -> None:
    """Write a checkpoint of the family `model_type` that gives the same logits under transformers.

    To check the fit, the configuration is written and read back: the family cannot express anything that
        changes.

    Raises:
        InputError: the family is unknown, the model does not fit it, or the directory is not empty.
    """
    if model_type not in FAMILIES:
        raise InputError(
            f"no family is called {model_type!r}{did_you_mean(model_type, list(FAMILIES))}",
            remedy=f"Name one of {', '.join(FAMILIES)}.",
        )
    refuse_occupied(directory)
    family, model = FAMILIES[model_type], checkpoint.model
    config = family_config(model.config, model_type, model.dtype)
    state = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        state.pop(HEAD, None)
    of_vectors = isinstance(model.config.spec.head, EmbeddingHead)
    dense = {name: state.pop(name) for name in list(state) if of_vectors and name.startswith(DENSE)}
    try:
        tensors = from_roots(family, model.config.spec, state)
    except ValueError as error:
        raise _misfit(family, str(error)) from None

    directory.mkdir(parents=True, exist_ok=True)
    contiguous, dense = (
        {name: tensor.detach().cpu().contiguous() for name, tensor in each.items()}
        for each in (tensors, dense)
    )
    with system_errors(directory / WEIGHTS), in_utf8(directory) as folder:
        save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_modules(model.config.spec, directory)
    write_dense(dense, directory)
    if model.can_generate():
        model.generation_config.save_pretrained(directory)
    save_tokenizer(checkpoint.tokenizer, directory)


def family_config(config: RootsConfig, model_type: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return this model's config.json as one of the family `model_type`.

    Raises:
        InputError: the family cannot express the model; the message says why.
    """
    family = FAMILIES[model_type]
    if config.quantization:
        raise _misfit(family, "its weights are quantized")
    head = config.spec.head
    labelled = family.writes_text and isinstance(head, TextLabelHead)
    if labelled and not hasattr(transformers, label_class(family)):
        raise _misfit(family, f"transformers has no class {label_class(family)}")
    try:
        written = written_config(family, config.spec)
        back = read_config(family, Switches(written, f"as {family.model_type}"))
        if isinstance(head, EmbeddingHead) and isinstance(back.head, LmHead):
            back = as_text_encoder(back, head)
    except (InputError, ValueError) as error:
        raise _misfit(family, str(error)) from error
    # In other files: `write_modules`.
    if isinstance(head, EmbeddingHead) and isinstance(back.head, EmbeddingHead):
        back = changed(back, head=head)
    if back.is_endless or isinstance(back.head, EmbeddingHead | LabelHead):
        back = changed(back, max_positions=config.spec.max_positions)
    if back != config.spec:
        raise _misfit(family, _difference(config.spec, back))
    ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for name, number in ids.items():
        if written.get(name, number) != number:
            raise _misfit(family, f"its {name} is {number}, and must be {written[name]}")
    return {
        "architectures": [family.architecture],
        **written,
        "model_type": model_type,
        "dtype": str(dtype).removeprefix("torch."),
        "transformers_version": transformers.__version__,
        **ids,
    }


def _difference(ours: ModelSpec, back: ModelSpec) -> str:
    """Return the parts of a model that a family's configuration does not keep."""
    for name in ("tied", "max_positions", "head", "embeddings"):
        if (value := getattr(back, name)) != getattr(ours, name):
            return f"its {name} would become {value!r}"
    if len(ours.layers) == len(back.layers):
        for index, (layer, other) in enumerate(zip(ours.layers, back.layers, strict=True)):
            if layer != other and index and ours.layers[0] == back.layers[0]:
                return f"its layers differ in a way the family cannot say: layer {index} would become another"
    return "it has blocks or norms that the family does not have"


def _misfit(family: Family, reason: str) -> InputError:
    return InputError(
        f"the model does not fit the family {family.model_type}: {reason}",
        remedy="Keep it as a ROOTS checkpoint, or prune with uniform widths and leave out quantization.",
    )
