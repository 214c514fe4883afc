"""A classifier made of an encoder: its body, and an untrained head for labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.errors import InputError
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import ClassificationHead


def with_labels(checkpoint: Checkpoint, names: Sequence[str], *, seed: int) -> Checkpoint:
    """Return a classifier for labels of some names, its head drawn from a seed, its body the encoder's.

    Raises:
        InputError: the model is no encoder, its weights are quantized, or two labels have one name.
    """
    config = checkpoint.model.config
    if set(config.spec.stacks) != {"encoder"} or config.quantization:
        what = "is quantized" if config.quantization else "is no encoder"
        raise InputError(
            f"labels are for an encoder in float weights, and the model {what}",
            where="--label",
            remedy="Name an encoder, such as one that `train` made with an objective.",
        )
    try:
        head = ClassificationHead(labels=len(names), names=tuple(names))
    except ValueError as error:
        raise InputError(
            f"{', '.join(names):.80}: a classifier has two labels or more, each with a name of its own",
            where="--label",
            remedy="Give each label once.",
        ) from error
    kept = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(RootsConfig(spec=changed(config.spec, head=head), **kept)).eval()
    model.model.load_state_dict(checkpoint.model.model.state_dict())
    return Checkpoint(model.to(checkpoint.model.dtype), checkpoint.tokenizer)
