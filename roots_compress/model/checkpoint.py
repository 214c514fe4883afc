"""A ROOTS checkpoint: a model with its tokenizer, in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from roots_compress.model.modeling import RootsForCausalLM


@dataclass(frozen=True)
class Checkpoint:
    """A model and the tokenizer it was trained with."""

    model: RootsForCausalLM
    tokenizer: PreTrainedTokenizerFast
