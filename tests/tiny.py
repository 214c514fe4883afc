"""Tiny real models for every test: two layers, width 32, from a seed, and a byte-level BPE tokenizer."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import Checkpoint
from roots_compress.data.special_tokens import open_with_bos
from roots_compress.models.config import RootsConfig
from roots_compress.models.encoders import make_model
from roots_compress.models.modeling import RootsForCausalLM

VOCAB_SIZE = 300
TEXT = """The quick brown fox jumps over the lazy dog.
A model reads tokens, one after another, and guesses the next.
def add(left, right): return left + right  # comments say why
Whether 'tis nobler in the mind to suffer the slings and arrows of outrageous fortune; 0123456789 ünïcödé.
"""


def tiny_layer(**overrides: Any) -> dict[str, Any]:
    """Return the widths of one layer: four query heads, two key/value heads of size 8, an MLP of 48."""
    widths = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48}
    return {**widths, **overrides}


def tiny_fields(**overrides: Any) -> dict[str, Any]:
    """Return version 1 fields of two layers and width 32; any field may be given."""
    fields: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "max_position_embeddings": 128,
        "layers": [tiny_layer(), tiny_layer()],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    return {**fields, **overrides}


def tiny_config(**overrides: Any) -> RootsConfig:
    """Return a config of two layers and width 32; any version 1 field may be given."""
    return RootsConfig(**tiny_fields(**overrides))


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Draw every parameter of a model on a scale at which its outputs spread."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                spread = 0.5 if "embed" in name else parameter.shape[1] ** -0.5
                parameter.normal_(0.0, spread, generator=generator)
            else:
                parameter.normal_(0.0 if name.endswith("bias") else 1.0, 0.2, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("stream_scale"):
                buffer.normal_(0.8, 0.2, generator=generator)
            elif name.endswith("selection_bias"):
                buffer.normal_(0.0, 0.2, generator=generator)


def tiny_model(seed: int = 0, **overrides: Any) -> RootsForCausalLM:
    """Return a model in eval mode whose every parameter is random.

    Norms and biases too, so that leaving one out is seen; on a scale at which logits spread over units.
    """
    model = cast(RootsForCausalLM, make_model(tiny_config(**overrides)).eval())
    randomise(model, seed)
    return model


@cache
def _trained_tokenizer() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=1,
        special_tokens=["<bos>", "<eos>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    serialized: str = tokenizer.to_str()
    return serialized


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of 300 entries; `<bos>`, `<eos>` and `<pad>` are tokens 0, 1 and 2.

    It puts `<bos>` before each text.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_tokenizer()),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    )
    open_with_bos(tokenizer)
    return tokenizer


def tiny_checkpoint(seed: int = 0, **overrides: Any) -> Checkpoint:
    """Return a tiny model with its tokenizer."""
    return Checkpoint(tiny_model(seed, **overrides), tiny_tokenizer())


def tiny_tokens(batch: int = 2, tokens: int = 24, seed: int = 0) -> torch.Tensor:
    """Return random token ids `(batch, tokens)`, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB_SIZE, (batch, tokens), generator=generator)
